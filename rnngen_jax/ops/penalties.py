"""Penalties on the gradient of a critic's score with respect to its image, per example.

`critic: [B, H, W, C] -> [B]`, where each score depends on its own image only, so batch statistics
are ruled out. Penalties are unweighted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require_choice
from rnngen_jax.ops import batch

Critic = Callable[[Array], Array]
Penalty = Callable[[Critic, Array, Array, Array], Array]


def make(name: str) -> Penalty:
    """Builds the penalty `name`.

    Args:
      name: one of `PENALTIES`.

    Returns:
      `penalty(critic, real, fake, each) -> [B]`, for real and generated images float32
      `[B, H, W, C]` and one key per example `[B]`.

    Raises:
      UserError: an unknown penalty.
    """
    require_choice("config.model.penalty", name, PENALTIES)
    return _PENALTIES[name]


def none(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """No penalty: zeros `[B]`."""
    del critic, fake, each
    return jnp.zeros(len(real))


def wgan_gp(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """`(||∇D(x̂)|| - 1)²` where x̂ lies anywhere between a real and a generated image, `[B]`.

    Gulrajani et al. 2017, eq. 3: `x̂ = ε x + (1 - ε) G(z)`, with one uniform ε per example.
    """
    share = _uniform(each)
    between = share * real + (1 - share) * fake
    return jnp.square(_norm(_slope(critic, between)) - 1)


def r1(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """`½ ||∇D(x)||²` at real images, `[B]`: a weight γ makes Mescheder et al. 2018, eq. 9."""
    del fake, each
    return 0.5 * _square(_slope(critic, real))


def r2(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """`½ ||∇D(G(z))||²` at generated images, `[B]` (Mescheder et al. 2018, eq. 10)."""
    del real, each
    return 0.5 * _square(_slope(critic, fake))


def r1_r2(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """The sum of `r1` and `r2`, `[B]` (Huang et al. 2024)."""
    return r1(critic, real, fake, each) + r2(critic, real, fake, each)


def dragan(critic: Critic, real: Array, fake: Array, each: Array) -> Array:
    """`(||∇D(x̂)|| - 1)²` around real images, `[B]` (DRAGAN, Kodali et al. 2017).

    As in the authors' code, `x̂` lies anywhere between x and `x + ½ s u`, where u is uniform in
    [0, 1) per value and s the standard deviation of all values of the whole batch.
    """
    del fake
    _, variance = batch.moments(real, range(real.ndim))
    pairs = jax.vmap(jax.random.split)(each)
    noise = jax.vmap(lambda key: jax.random.uniform(key, real.shape[1:]))(pairs[:, 0])
    away = 0.5 * jnp.sqrt(variance) * noise
    near = real + _uniform(pairs[:, 1]) * away
    return jnp.square(_norm(_slope(critic, near)) - 1)


_PENALTIES: dict[str, Penalty] = {
    "none": none,
    "wgan_gp": wgan_gp,
    "r1": r1,
    "r2": r2,
    "r1_r2": r1_r2,
    "dragan": dragan,
}
PENALTIES = tuple(_PENALTIES)


def _uniform(each: Array) -> Array:
    """One uniform number per example in [0, 1), `[B, 1, 1, 1]`."""
    return jax.vmap(jax.random.uniform)(each)[:, None, None, None]


def _slope(critic: Critic, images: Array) -> Array:
    """The gradient of each image's score, `[B, H, W, C]`; each score sees its own image only."""
    return jax.grad(lambda x: critic(x).sum())(images)


def _square(slope: Array) -> Array:
    return jnp.square(slope).sum((1, 2, 3))


def _norm(slope: Array) -> Array:
    """Euclidean norm of each image's gradient, `[B]`; differentiable at 0, with gradient 0."""
    square = _square(slope)
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)
