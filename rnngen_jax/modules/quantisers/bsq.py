"""Binary spherical quantisation: signs of a vector of length 1."""

from rnngen_jax.modules.quantisers.base import Quantiser
from rnngen_jax.modules.quantisers.lfq import of_signs


def bsq(
    features: int,
    *,
    bits: int = 9,
    beta: float = 0.25,
    entropy: float = 0.1,
    diversity: float = 1.0,
    sharpness: float = 100.0,
    group: int = 1,
) -> Quantiser:
    """q = sign(u) / √D with u = z / ‖z‖, so that a code has length 1 (Zhao et al. 2024, eq. 4).

    Args:
      features: not read: the vectors have `bits` values.
      bits: D; there are 2^bits codes.
      beta, entropy, diversity, sharpness: as for `lfq`.
      group: bits whose joint probabilities make up a part of H(E[p]), the sum over groups.

    Raises:
      UserError: an option out of range.
    """
    del features
    size = max(bits, 1) ** -0.5
    return of_signs("bsq", size, True, bits, beta, entropy, diversity, sharpness, group)
