"""VQ-VAE: an encoder to grids of codes, and a decoder that sees the codes alone.

The loss is -log p(x|q(x)) and the quantiser's own (van den Oord et al. 2017, eq. 3). Without a
learned prior all codes are equally likely, and

    -log p(x) <= -log p(x | c(x)) + n log K   for n codes of K

is an honest bound; `code_rnn` trains a prior that lowers it. The quantiser is in
`modules/quantisers`. With two levels (VQ-VAE-2, Razavi et al. 2019) an image has a coarse grid of
codes, the top, and a fine one, the bottom.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.models.base import Aux, Batch, Extra, Loss, Model, Params, require_mixture_read
from rnngen_jax.models.code_networks import one_level, two_levels
from rnngen_jax.models.codes import Codes, coded_model
from rnngen_jax.models.halving import require_stages
from rnngen_jax.models.levels import Grids, packed
from rnngen_jax.models.uniform_prior import uniform_prior
from rnngen_jax.modules import quantisers
from rnngen_jax.ops import likelihoods
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec

NETWORKS = {1: one_level, 2: two_levels}  # by the number of levels


@dataclass(frozen=True)
class Config:
    """Choices of a VQ-VAE: its encoder, its quantiser and its decoder.

    Attributes:
      CODES: the model's codes can be those of a prior.
      quantiser: a quantiser and its options, such as "codebook:codes=256,estimator=rotation",
        "fsq:levels=8x5x5" or "lfq:bits=9"; a file of `modules/quantisers`.
      depth: quantisers in depth, each of what the ones before it left; codebooks and simvq.
      depth_dropout: in training an example keeps a random number of its first depths.
      groups: parts of a vector with codes of their own.
      vectors: width of the vectors that are quantised; quantisers with another width of their own
        are reached by a projection.
      features: channels of the largest map; each halving doubles them.
      levels: 1, or 2 for a second, coarser grid of codes, half the size of the first.
      stages: number of halvings; 0 halves once, then up to three times in all while the shorter
        side of the grid of codes, of two levels the bottom's, stays at 4 or above.
      kernel: side of the halving convolutions' kernels, even.
      blocks: residual blocks of a 3x3 convolution at the size of the codes, on either side.
      activation: "elu", "gelu", "relu" or another in `ops.activations`.
      readout: "categorical" over the grey levels, "bernoulli", "logistic_mixture" or "gaussian".
      mixtures: components of the logistic mixture; 1 is the discretised logistic.
    """

    CODES: ClassVar[bool] = True

    quantiser: str = "codebook:codes=64"
    depth: int = 1
    depth_dropout: bool = False
    groups: int = 1
    vectors: int = 32
    levels: int = 1
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
        require(self.levels in NETWORKS, "config.model.levels", self.levels, "1 or 2")
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


class Rebuilt(NamedTuple):
    """A batch in training, encoded and quantised; `decode` of its vectors gives raw outputs.

    Attributes:
      vectors: what the decoder reads.
      losses: the quantiser's, by name.
      extra: the quantiser's after the step.
    """

    vectors: Any
    losses: Mapping[str, Array]
    extra: Extra


class Parts(NamedTuple):
    """What models of codes are trained with.

    Attributes:
      init: `init(key) -> (params, extra)` of the player "model".
      rebuilt: `rebuilt(params, extra, batch, key) -> Rebuilt`.
      nats: `nats(raw, image)`, the batch's mean of -log p(x|q).
      metrics: `metrics(nats, losses)`, by name.
      codes: encoder and decoder.
    """

    init: Callable[[Array], tuple[Params, Extra]]
    rebuilt: Callable[[Params, Extra, Batch, Array], Rebuilt]
    nats: Callable[[Array, Array], Array]
    metrics: Callable[[Array, Mapping[str, Array]], dict[str, Array]]
    codes: Codes


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: as `parts`.
    """
    own = parts(config, spec)

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean of -log p(x|q) over values, in nats, and the quantiser's losses."""
        del step
        found = own.rebuilt(params, extra, batch, key)
        nats = own.nats(own.codes.decode(params, extra, found.vectors), batch[spec.key])
        total = nats / spec.dims + sum(found.losses.values())
        return total, Aux(own.metrics(nats, found.losses), {"quantiser": found.extra})

    return model_of("vqvae", own.codes, own.init, {"model": loss})


def model_of(
    name: str,
    codes: Codes,
    init: Callable[[Array], tuple[Params, Extra]],
    losses: Mapping[str, Loss],
) -> Model:
    """A model of images through codes that are all equally likely, as `coded_model`."""
    return coded_model(
        name,
        init,
        losses,
        codes,
        lambda params, extra: (params, extra),
        uniform_prior(codes.specs),
        "VQ bound, uniform prior",
    )


def parts(config: Config, spec: ImageSpec) -> Parts:
    """The encoder, the quantiser and the decoder for images like `spec`.

    Raises:
      UserError: a readout unsuitable for the images, or more halvings than the image has room for.
    """
    require_stages(config.stages, spec)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    names = ("stages", "features", "kernel", "blocks", "activation")
    shared = {"spec": spec, **{name: getattr(config, name) for name in names}}
    networks = NETWORKS[config.levels](
        shared, config.make_quantiser(), config.vectors, likelihood.size
    )
    _require_room(config, networks.specs)
    dims, quantise = sum(grid.dims for grid in networks.specs), networks.quantise

    def encode(params: Params, extra: Extra, image: Array) -> Grids:
        found = jax.tree.leaves(quantise(params, extra, image, None).indices)
        each = zip(found, networks.specs, strict=True)
        return packed([indices.astype(grid.dtype) for indices, grid in each])

    def rebuilt(params: Params, extra: Extra, batch: Batch, key: Array) -> Rebuilt:
        image, train = batch[spec.key], (keys.named(key, "quantiser"), batch["index"])
        found = quantise(params, extra, image, train)
        return Rebuilt(found.values, found.losses, found.extra)

    def nats_of(raw: Array, image: Array) -> Array:
        log_p = likelihood.log_prob(raw, image.astype(jnp.int32))
        return -log_p.sum(range(1, log_p.ndim)).mean()

    def metrics_of(nats: Array, losses: Mapping[str, Array]) -> dict[str, Array]:
        whole = nats + dims * math.log(networks.specs[0].levels)
        return {
            "reconstruction_nats": nats,
            "nats_per_image": whole,
            "bits_per_dim": whole / (spec.dims * math.log(2)),
            **{f"quantiser/{name}": value for name, value in losses.items()},
        }

    codes = Codes(
        networks.specs,
        spec,
        config.vectors,
        encode,
        networks.alternatives,
        networks.vectors,
        networks.decode,
        likelihood,
    )
    return Parts(networks.init, rebuilt, nats_of, metrics_of, codes)


def _require_room(config: Config, specs: Sequence[ImageSpec]) -> None:
    """Raises a `UserError` if the top level would have the size of the bottom."""
    room = len(specs) == 1 or max(specs[-1].shape[:2]) > 1
    require(room, "config.model.levels", config.levels, "1 for grids of 1x1 codes")
