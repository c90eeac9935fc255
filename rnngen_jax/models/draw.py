"""DRAW (Gregor et al. 2015): a recurrent VAE that reads an image and draws it step by step.

log p(x) >= E_q[log p(x|c_T)] - Σ_t KL(q(z_t|h_enc_t) || p(z_t))   (eqs. 9, 10, 12)

with independent noise at every step. The paper's closed form of the second term (eq. 11) counts its
constant once per step; here there is a KL for each of the Z variables per step.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_at_least
from rnngen_jax.models.base import Extra, Model, Params, Train, require_classes
from rnngen_jax.models.latent import LatentConfig, latent_model
from rnngen_jax.models.latent_networks import Inference, Network, independent
from rnngen_jax.models.recurrent import RecurrentConfig, cell_of
from rnngen_jax.modules.draw import Draw, Trace
from rnngen_jax.ops import likelihoods
from rnngen_jax.ops.gaussians import Pick
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(LatentConfig, RecurrentConfig):
    """Choices of DRAW; see `LatentConfig`, and `RecurrentConfig` for its two cells.

    Attributes:
      steps: T, reads and writes.
      latents: number of latent variables Z per step.
      read_size: filters per side of the read window; 0 reads the whole image at every step.
      write_size: filters per side of the write window; 0 writes to the whole canvas.
      class_conditional: the class is an input of both cells.
    """

    cell: str = "lstm"
    features: int = 256
    learned_carry: bool = True
    steps: int = 16
    read_size: int = 2
    write_size: int = 5

    def __post_init__(self) -> None:
        LatentConfig.__post_init__(self)
        RecurrentConfig.__post_init__(self)
        require_at_least(self, "config.model", 1, "steps")
        require_at_least(self, "config.model", 0, "read_size", "write_size")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell or readout, or a readout or window unsuitable for the images.
    """
    require_classes(config.class_conditional, spec)
    side = min(spec.height, spec.width)
    for name in ("read_size", "write_size"):
        given, allowed = getattr(config, name), f"in [0, {side}] (the image's shorter side)"
        require(given <= side, f"config.model.{name}", given, allowed)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    cell = cell_of(config)
    net = Draw(
        encoder=cell,
        decoder=cell,
        spec=spec,
        latents=config.latents,
        size=likelihood.size,
        mean=likelihood.mean,
        read_size=config.read_size,
        write_size=config.write_size,
        conditional=config.class_conditional,
        remat=config.remat,
    )

    def init(key: Array) -> tuple[Params, Extra]:
        image, label = jnp.zeros((1, *spec.shape), jnp.int32), jnp.zeros(1, jnp.int32)
        noise = jnp.zeros((config.steps, 1, config.latents))
        return {"model": net.init(key, image, label, noise, method=net.infer)["params"]}, {}

    def infer(
        params: Params, image: Array, label: Array, noise: Array, train: Train, pick: Pick
    ) -> Inference:
        del train
        variables, noise = {"params": params["model"]}, jnp.moveaxis(noise, 1, 0)
        trace, raw = net.apply(variables, image, label, noise, pick, method=net.infer)
        latents, posterior = jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1), (trace.latents, trace.posterior)
        )
        return Inference(latents, posterior, raw)

    def drawn(params: Params, latents: Array, label: Array) -> tuple[Trace, Array]:
        variables, latents = {"params": params["model"]}, jnp.moveaxis(latents, 1, 0)
        return net.apply(variables, latents, label, method=net.draw)

    def canvases(
        params: Params, latents: Array, label: Array
    ) -> tuple[Array, Array | None, Array | None]:
        trace, _ = drawn(params, latents, label)
        return trace.canvases, trace.read, trace.write

    return latent_model(
        "draw",
        spec,
        config.class_conditional,
        Network(init, infer, independent(lambda *given: drawn(*given)[1]), canvases),
        likelihood,
        (config.steps, config.latents),
        config.objective(),
        config.learned_prior((config.steps, config.latents), spec.classes),
    )
