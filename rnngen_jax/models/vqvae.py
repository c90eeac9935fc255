"""VQ-VAE: an encoder to a grid of codes, and a decoder that sees the codes alone.

The loss is -log p(x|q(x)) and the quantiser's own (van den Oord et al. 2017, eq. 3). Without a
learned prior all codes are equally likely, and

    -log p(x) <= -log p(x | c(x)) + n log K   for n codes of K

is an honest bound; `code_rnn` trains a prior that lowers it. The quantiser is in
`modules/quantisers`.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params, require_mixture_read
from rnngen_jax.models.codes import Codes, Prior, coded_model, uniform
from rnngen_jax.models.halving import require_stages
from rnngen_jax.modules import quantisers
from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.modules.vqvae import CodeDecoder, CodeEncoder, sizes
from rnngen_jax.ops import likelihoods
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config:
    """Choices of a VQ-VAE: its encoder, its quantiser and its decoder.

    Attributes:
      quantiser: a quantiser and its options, such as "codebook:codes=256,estimator=rotation",
        "fsq:levels=8x5x5" or "lfq:bits=9"; a file of `modules/quantisers`.
      depth: quantisers in depth, each of what the ones before it left; codebooks and simvq.
      depth_dropout: in training an example keeps a random number of its first depths.
      groups: parts of a vector with codes of their own.
      vectors: width of the vectors that are quantised; quantisers with another width of their own
        are reached by a projection.
      features: channels of the largest map; each halving doubles them.
      stages: number of halvings; 0 halves once, then up to three times in all while the shorter
        side of the grid of codes stays at 4 or above.
      kernel: side of the halving convolutions' kernels, even.
      blocks: residual blocks of a 3x3 convolution at the size of the codes, on either side.
      activation: "elu", "gelu", "relu" or another in `ops.activations`.
      readout: "categorical" over the grey levels, "bernoulli", "logistic_mixture" or "gaussian".
      mixtures: components of the logistic mixture; 1 is the discretised logistic.
    """

    quantiser: str = "codebook:codes=64"
    depth: int = 1
    depth_dropout: bool = False
    groups: int = 1
    vectors: int = 32
    features: int = 32
    stages: int = 0
    kernel: int = 4
    blocks: int = 1
    activation: str = "elu"
    readout: str = "categorical"
    mixtures: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 1, "vectors", "features", "kernel")
        require_at_least(self, "config.model", 0, "stages", "blocks")
        require(self.kernel % 2 == 0, "config.model.kernel", self.kernel, "even")
        require_choice("config.model.activation", self.activation, ACTIVATIONS)
        require_mixture_read(self)
        if self.depth == 1:
            remedy = ", or set config.model.depth above 1"
            refuse_unread(self, "config.model", "depth_dropout", ("depth",), remedy=remedy)
        self.make_quantiser()

    def make_quantiser(self) -> quantisers.Quantiser:
        """The quantiser of vectors `[..., vectors]`."""
        return quantisers.build(
            self.quantiser,
            self.vectors,
            depth=self.depth,
            groups=self.groups,
            dropout=self.depth_dropout,
        )

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError`: a codebook is moved by a batch, not by gradients of examples."""
        del player
        require(noise == 0, "config.optimizer.private_noise", noise, "0 for vqvae")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: a readout unsuitable for the images, or more halvings than the image has room for.
    """
    require_stages(config.stages, spec)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    quantiser = config.make_quantiser()
    names = ("stages", "features", "kernel", "blocks", "activation")
    shared = {"spec": spec, **{name: getattr(config, name) for name in names}}
    encoder = CodeEncoder(vectors=config.vectors, **shared)
    decoder = CodeDecoder(size=likelihood.size, **shared)
    height, width = sizes(spec.height, spec.width, config.stages)[-1]
    grid = ImageSpec(height, width, quantiser.depth, quantiser.codes, spec.classes)

    def init(key: Array) -> tuple[Params, Extra]:
        image = jnp.zeros((1, *spec.shape), jnp.int32)
        vectors = jnp.zeros((1, height, width, config.vectors))
        own, extra = quantiser.init(keys.named(key, "quantiser"))
        params = {
            "encoder": encoder.init(keys.named(key, "encoder"), image)["params"],
            "quantiser": own,
            "decoder": decoder.init(keys.named(key, "decoder"), vectors)["params"],
        }
        return {"model": params}, {"quantiser": extra}

    def encoded(params: Params, image: Array) -> Array:
        variables = {"params": params["model"]["encoder"]}
        return encoder.apply(variables, image.astype(jnp.int32))

    def decode(params: Params, extra: Extra, vectors: Array) -> Array:
        del extra
        return decoder.apply({"params": params["model"]["decoder"]}, vectors)

    def encode(params: Params, extra: Extra, image: Array) -> Array:
        own = params["model"]["quantiser"], extra["quantiser"]
        return quantiser.quantise(*own, encoded(params, image)).indices.astype(grid.dtype)

    def alternatives(params: Params, extra: Extra, image: Array, count: int) -> Alternatives:
        own = params["model"]["quantiser"], extra["quantiser"]
        z = encoded(params, image)
        found = quantiser.quantise(*own, z).indices
        return quantiser.alternatives(*own, z, found, count)

    def vectors_of(params: Params, extra: Extra, codes: Array) -> Array:
        own = params["model"]["quantiser"], extra["quantiser"]
        return quantiser.decode(*own, codes.astype(jnp.int32))

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean of -log p(x|q) over values, in nats, and the quantiser's losses."""
        del step
        image, train = batch[spec.key], (keys.named(key, "quantiser"), batch["index"])
        found = quantiser.quantise(
            params["model"]["quantiser"], extra["quantiser"], encoded(params, image), train
        )
        raw = decode(params, extra, found.values)
        log_p = likelihood.log_prob(raw, image.astype(jnp.int32))
        nats = -log_p.sum(range(1, log_p.ndim)).mean()
        whole = nats + grid.dims * math.log(grid.levels)
        metrics = {
            "reconstruction_nats": nats,
            "nats_per_image": whole,
            "bits_per_dim": whole / (spec.dims * math.log(2)),
            **{f"quantiser/{name}": value for name, value in found.losses.items()},
        }
        total = nats / spec.dims + sum(found.losses.values())
        return total, Aux(metrics, {"quantiser": found.extra})

    codes = Codes(grid, spec, config.vectors, encode, alternatives, vectors_of, decode, likelihood)
    return coded_model(
        "vqvae",
        init,
        {"model": loss},
        codes,
        lambda params, extra: (params, extra),
        Prior(uniform(grid), lambda params, extra: {"model": {}}),
        "VQ bound, uniform prior",
    )
