"""The distribution of a code with several values, such as FSQ's levels or LFQ's signs.

A code's index has the values as digits, the first counting ones (`ops.lattices.bases`):

    log p(code) = Σ_d log p(digit_d | digit_<d)    or    Σ_d log p(digit_d)

The logits of digit d are a_d, and with `chained` a_d + Σ_{j<d} B_jd[digit_j], in which a_d `[L_d]`
and B_jd `[L_j, L_d]` are outputs of the network: Σ L_d + Σ_{j<d} L_j L_d of them instead of Π L_d.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.ops import lattices
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.ops.precision import exact


def heads(levels: Sequence[int], chained: bool) -> PixelLikelihood:
    """Builds the distribution; temperature T makes it p^(1/T), normalised over all codes.

    Args:
      levels: number of values L_d of each digit.
      chained: whether a digit's logits depend on the digits before it.
    """
    codes, num = math.prod(levels), len(levels)
    before = [(j, d) for d in range(num) for j in range(d)] if chained else []
    shapes = [(count,) for count in levels] + [(levels[j], levels[d]) for j, d in before]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def split(raw: Array) -> tuple[list[Array], dict[tuple[int, int], Array]]:
        """a_d `[..., L_d]`, and B_jd `[..., L_j, L_d]` by (j, d)."""
        parts = [
            part.reshape(*raw.shape[:-1], *shape)
            for part, shape in zip(jnp.split(raw, ends[:-1], axis=-1), shapes, strict=True)
        ]
        return parts[:num], dict(zip(before, parts[num:], strict=True))

    def of_path(raw: Array, value: Array) -> Array:
        """log p of one code, without the others'."""
        (own, pairs), digits = split(raw), lattices.digits_of(value, levels)
        total = jnp.zeros(value.shape)
        for d, logits in enumerate(own):
            for j in range(d) if chained else ():
                row = jnp.take_along_axis(pairs[j, d], digits[..., j, None, None], axis=-2)
                logits = logits + row[..., 0, :]
            log_p = jax.nn.log_softmax(logits)
            total = total + jnp.take_along_axis(log_p, digits[..., d, None], axis=-1)[..., 0]
        return total

    def log_probs(raw: Array) -> Array:
        """log p of all codes, digit by digit, from all beginnings of codes."""
        own, pairs = split(raw)
        joint = jnp.zeros((*raw.shape[:-1], 1))
        for d, logits in enumerate(own):
            beginnings = np.asarray(lattices.digits_of(np.arange(joint.shape[-1]), levels))
            each = jnp.broadcast_to(logits[..., None, :], (*joint.shape, levels[d]))
            for j in range(d) if chained else ():
                each = each + pairs[j, d][..., beginnings[:, j], :]
            longer = joint[..., None] + jax.nn.log_softmax(each)
            joint = jnp.swapaxes(longer, -1, -2).reshape(*raw.shape[:-1], -1)
        return joint

    def log_prob(raw: Array, value: Array, temperature: Array | float = 1.0) -> Array:
        value = value.astype(jnp.int32)
        if isinstance(temperature, float) and temperature == 1.0:
            return of_path(raw, value)
        log_p = jax.nn.log_softmax(log_probs(raw) / temperature)
        return jnp.take_along_axis(log_p, value[..., None], axis=-1)[..., 0]

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        return jax.random.categorical(key, log_probs(raw) / temperature).astype(jnp.int32)

    def mean(raw: Array) -> Array:
        return exact(jnp.exp(log_probs(raw)), jnp.linspace(0.0, 1.0, codes))

    return PixelLikelihood(int(ends[-1]), log_prob, log_probs, draw, mean)
