"""Look-up-free quantisation: the signs of a vector are the bits of its index."""

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.modules.quantisers.base import (
    Alternatives,
    Assigned,
    Extra,
    Params,
    Quantiser,
    Train,
    mean_of,
    require_option,
    unchanged,
    weights,
)
from rnngen_jax.ops import codebooks, lattices, ranking

MOST_BITS = 18
MOST_JOINT = 12  # bits of a group, whose joint probabilities are listed


def lfq(
    features: int,
    *,
    bits: int = 9,
    beta: float = 0.25,
    entropy: float = 0.1,
    diversity: float = 1.0,
    sharpness: float = 100.0,
    group: int = 0,
) -> Quantiser:
    """q = sign z, with 2^bits codes (Yu et al. 2023, section 3.1).

    Args:
      features: not read: the vectors have `bits` values.
      bits: D.
      beta: weight of ‖z - sg q‖².
      entropy: weight of E[H(p)] - diversity · H(E[p]), which makes single choices sharp and all of
        them together even.
      diversity: weight of the second entropy beside the first.
      sharpness: τ⁻¹ of the soft choice p.
      group: bits whose joint probabilities make up H(E[p]); 0 for all of them, or 12 at most.

    Raises:
      UserError: an option out of range.
    """
    del features
    return of_signs("lfq", 1.0, False, bits, beta, entropy, diversity, sharpness, group)


def of_signs(
    name: str,
    size: float,
    spherical: bool,
    bits: int,
    beta: float,
    entropy: float,
    diversity: float,
    sharpness: float,
    group: int,
) -> Quantiser:
    """A quantiser of signs; the arguments of `lfq`, and these.

    Args:
      name: the quantiser's, for messages.
      size: absolute value of a code's values.
      spherical: vectors are brought to length 1 first.
    """
    require_option(1 <= bits <= MOST_BITS, name, "bits", bits, f"in [1, {MOST_BITS}]")
    for option, value in (("beta", beta), ("entropy", entropy), ("diversity", diversity)):
        require_option(value >= 0, name, option, value, "≥ 0")
    require_option(sharpness > 0, name, "sharpness", sharpness, "> 0")
    fits = 0 <= group <= MOST_JOINT and bits % (group or 1) == 0
    require_option(fits, name, "group", group, f"0, or a divisor of bits={bits} up to {MOST_JOINT}")
    joint = group or max(n for n in range(1, MOST_JOINT + 1) if bits % n == 0)

    def init(key: Array) -> tuple[Params, Extra]:
        del key
        return {}, {}

    def placed(z: Array) -> Array:
        z = z.astype(jnp.float32)
        return codebooks.unit(z) if spherical else z

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        del params
        z = placed(z)
        q = size * lattices.signs(z)
        losses = {"commitment": beta * mean_of(jnp.square(z - jax.lax.stop_gradient(q)), mask)}
        if train is not None and entropy:
            weight = None if mask is None else weights(mask, z)
            own, of_mean = lattices.sign_entropies(z, size, sharpness, joint, weight)
            losses["entropy"] = entropy * (own - diversity * of_mean)
        indices = lattices.sign_indices(q)[..., None]
        return Assigned(codebooks.straight_through(z, q), indices, losses, extra, {})

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        del params, extra
        return size * lattices.sign_values(indices[..., 0], bits)

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        """The other sign of z_d is farther by 4 s |z_d| in squared distance."""
        del params, extra
        own = lattices.digits_of(indices[..., 0], (2,) * bits)
        flipped = jnp.moveaxis(4 * size * jnp.abs(placed(z)), -1, 0)
        costs = jnp.stack([jnp.zeros_like(flipped), flipped], axis=-1)
        chosen, sums = ranking.smallest_sums(costs, count)
        digits = own[..., None, :] ^ jnp.moveaxis(chosen, 0, -1)
        return Alternatives((digits * lattices.bases((2,) * bits)).sum(-1)[..., None], sums)

    return Quantiser(bits, 2**bits, 1, init, assign, unchanged, decode, alternatives)
