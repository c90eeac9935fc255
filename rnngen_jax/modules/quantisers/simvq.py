"""SimVQ: a fixed codebook behind a learned linear map, which moves all codes at once."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.config import require_choice
from rnngen_jax.modules.quantisers.base import (
    Alternatives,
    Assigned,
    Extra,
    Params,
    Quantiser,
    Train,
    mean_of,
    require_codes,
    require_option,
    unchanged,
)
from rnngen_jax.ops import codebooks, ranking


def simvq(
    features: int,
    *,
    codes: int = 512,
    width: int = 0,
    estimator: str = "straight_through",
    beta: float = 0.25,
) -> Quantiser:
    """Codes C W with C frozen, drawn from N(0, 1/D), and W trained (Zhu et al. 2024, eq. 7).

    Args:
      features: width of the vectors, if `width` is 0.
      codes: K.
      width: D of a code; 0 for `features`.
      estimator: "straight_through", or "rotation".
      beta: weight of the encoder's term ‖z - sg q‖² beside ‖sg z - q‖².

    Raises:
      UserError: an option out of range.
    """
    require_codes("simvq", codes)
    require_choice("quantiser 'simvq': estimator", estimator, codebooks.ESTIMATORS)
    require_option(width >= 0, "simvq", "width", width, "≥ 0")
    require_option(beta >= 0, "simvq", "beta", beta, "≥ 0")
    width = width or features
    through = codebooks.ESTIMATORS[estimator]

    def init(key: Array) -> tuple[Params, Extra]:
        first, second = jax.random.split(key)
        kernel = nn.initializers.lecun_normal()(first, (width, width))
        frozen = jax.random.normal(second, (codes, width)) * width**-0.5
        return {"kernel": kernel}, {"codes": frozen}

    def table_of(params: Params, extra: Extra) -> Array:
        return codebooks.product(extra["codes"], params["kernel"])

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        del train
        z, table = z.astype(jnp.float32), table_of(params, extra)
        indices = codebooks.nearest(*jax.lax.stop_gradient((z, table)))
        q = table[indices]
        losses = {
            "commitment": beta * mean_of(jnp.square(z - jax.lax.stop_gradient(q)), mask),
            "codebook": mean_of(jnp.square(jax.lax.stop_gradient(z) - q), mask),
        }
        return Assigned(through(z, q), indices[..., None], losses, extra, {})

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        return codebooks.look_up(table_of(params, extra), indices[..., 0])

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        far = -2 * codebooks.closeness(z, table_of(params, extra))
        which, costs = ranking.cheapest(far, indices[..., 0], count)
        return Alternatives(which[..., None], costs)

    return Quantiser(width, codes, 1, init, assign, unchanged, decode, alternatives, through)
