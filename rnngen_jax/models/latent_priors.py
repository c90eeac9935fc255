"""Priors p(z) of latent-variable models: a standard normal, or one that is learned.

    log p(z) = Σ_i log p(z_i | z_<i)

over the Z variables of all S steps in a row, each a mixture of normals given the ones before it. A
learned prior is trained with the model: it moves to where the posteriors of all images are, so the
KL that the bound pays is less, and draws from it are what the decoder has seen.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import cells
from rnngen_jax.config import options, require, require_choice
from rnngen_jax.models.base import Params, Scalar
from rnngen_jax.modules.latent_rnn import LatentRNN
from rnngen_jax.ops import gaussians, mixtures
from rnngen_jax.ops.gaussians import Gaussian
from rnngen_jax.recurrence import generate

Shape = tuple[int, int]
NORMAL = "normal"  # the name of the prior that is not learned


class LatentPrior(NamedTuple):
    """A distribution over latents `[B, S, Z]`.

    Attributes:
      init: `init(key) -> params`, {} if nothing is learned.
      log_density: `log_density(params, z, label [B], temperature=1.0) -> [B, S, Z]`, nats, of each
        variable given those before it. Up to a constant that the temperature sets.
      draw: `draw(params, key, label, temperature) -> z`. The temperature multiplies scales and
        divides the logits of mixtures.
      kl: `kl(params, posterior, z, label) -> [B, S, Z]`, the KL divergence of each variable's
        posterior, or where it has no closed form its estimate from one draw z of the posterior.
    """

    init: Callable[[Array], Params]
    log_density: Callable[..., Array]
    draw: Callable[[Params, Array, Array, Scalar], Array]
    kl: Callable[[Params, Gaussian, Array, Array], Array]


def from_spec(spec: str, shape: Shape, classes: int) -> LatentPrior:
    """Builds the learned prior that a spec string names.

    Args:
      spec: a prior and, after a colon, its options, such as "recurrent:features=128".
      shape: (S, Z).
      classes: number of classes whose priors differ; 0 for one prior.

    Raises:
      UserError: an unknown prior or option, or an option out of range.
    """
    name, _, text = spec.partition(":")
    require_choice("config.model.prior", name, [NORMAL, *KINDS])
    require(name != NORMAL, "config.model.prior", spec, f"{NORMAL!r}, which has no options")
    return KINDS[name](shape, classes, **options(KINDS[name], f"prior {name!r}", text))


def normal(shape: Shape, classes: int = 0) -> LatentPrior:
    """Independent standard normal variables, the same for all classes."""
    del classes

    def log_density(params: Params, z: Array, label: Array, temperature: Scalar = 1.0) -> Array:
        del params, label
        return gaussians.log_density_standard(z / temperature)

    def draw(params: Params, key: Array, label: Array, temperature: Scalar) -> Array:
        del params
        return temperature * jax.random.normal(key, (label.shape[0], *shape))

    def kl(params: Params, posterior: Gaussian, z: Array, label: Array) -> Array:
        del params, z, label
        return gaussians.kl_to_standard(posterior)

    return LatentPrior(lambda key: {}, log_density, draw, kl)


def recurrent(
    shape: Shape, classes: int = 0, *, cell: str = "gru", features: int = 64, components: int = 5
) -> LatentPrior:
    """A recurrent network over the variables in a row.

    Args:
      shape: (S, Z).
      classes: number of classes whose priors differ; 0 for one prior.
      cell: the cell's name.
      features: its size.
      components: of the mixture of normals that a variable is.

    Raises:
      UserError: an unknown cell, or an option out of range.
    """
    for option, value in (("features", features), ("components", components)):
        require(value >= 1, f"prior 'recurrent': {option}", value, "≥ 1")
    length = shape[0] * shape[1]
    net = LatentRNN(cells.from_spec(cell, features), length, components, classes)

    def in_line(z: Array) -> Array:
        """`[B, S, Z]` to `[T, B]`."""
        return z.reshape(len(z), length).T

    def back(values: Array) -> Array:
        """`[T, B]` to `[B, S, Z]`."""
        return values.T.reshape(-1, *shape)

    def init(key: Array) -> Params:
        return net.init(key, jnp.zeros((length, 1)), jnp.zeros(1, jnp.int32))["params"]

    def log_density(params: Params, z: Array, label: Array, temperature: Scalar = 1.0) -> Array:
        flat = in_line(z)
        raw = net.apply({"params": params}, flat, label)
        return back(mixtures.log_density(raw, flat, temperature))

    def draw(params: Params, key: Array, label: Array, temperature: Scalar) -> Array:
        variables, num = {"params": params}, label.shape[0]

        def step(carry: Array, before: Array, t: Array, key: Array) -> tuple[Array, Array]:
            carry, raw = net.apply(variables, carry, before, t, label, method=net.step)
            return carry, mixtures.draw(key, raw, temperature)

        carry = net.apply(variables, num, method=net.first)
        return back(generate(step, carry, jnp.zeros(num), key, length)[1])

    def kl(params: Params, posterior: Gaussian, z: Array, label: Array) -> Array:
        return gaussians.log_density(posterior, z) - log_density(params, z, label)

    return LatentPrior(init, log_density, draw, kl)


KINDS = {"recurrent": recurrent}
