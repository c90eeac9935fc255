"""Vector quantisation with a learned codebook (van den Oord et al. 2017)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
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
    weights,
)
from rnngen_jax.ops import batch, codebooks, ranking

UPDATES = ("ema", "gradient")
STARTS = ("kmeans", "normal")


def codebook(
    features: int,
    *,
    codes: int = 512,
    width: int = 0,
    update: str = "ema",
    estimator: str = "straight_through",
    cosine: bool = False,
    beta: float = 0.25,
    decay: float = 0.99,
    start: str = "kmeans",
    revive: float = 0.1,
    orthogonal: float = 0.0,
) -> Quantiser:
    """A codebook of K vectors.

    The loss is β ‖z - sg q‖², and for a codebook that is learned by gradient also ‖sg z - q‖²
    (eq. 3). Vectors are quantised with the codes as they were before the batch.

    A dead code is one whose average number of vectors per batch is below `revive` times that of
    codes in equal use; it is replaced by a vector of the batch. The threshold so does not depend on
    the size of a batch.

    Args:
      features: width of the vectors, if `width` is 0.
      codes: K.
      width: D of a code; 0 for `features`.
      update: "ema" for moving averages of the vectors that chose a code (appendix A.1), "gradient"
        for the loss ‖sg z - q‖².
      estimator: "straight_through", or "rotation" (Fifty et al. 2024).
      cosine: codes and vectors have length 1 (Yu et al. 2022, section 3.2).
      beta: weight β of the encoder's term.
      decay: of the moving averages.
      start: "kmeans" of the first batch, or "normal".
      revive: the fraction below which a code is dead; 0 for never.
      orthogonal: weight of the mean squared cosine between codes, with "gradient".

    Raises:
      UserError: an option out of range.
    """
    name = "codebook"
    require_codes(name, codes)
    require_choice(f"quantiser {name!r}: update", update, UPDATES)
    require_choice(f"quantiser {name!r}: estimator", estimator, codebooks.ESTIMATORS)
    require_choice(f"quantiser {name!r}: start", start, STARTS)
    require_option(width >= 0, name, "width", width, "≥ 0")
    require_option(beta >= 0, name, "beta", beta, "≥ 0")
    require_option(0 <= decay < 1, name, "decay", decay, "in [0, 1)")
    require_option(0 <= revive < 1, name, "revive", revive, "in [0, 1)")
    averaged = update == "ema"
    allowed = "0 with update=ema" if averaged else "≥ 0"
    fits = orthogonal == 0 if averaged else orthogonal >= 0
    require_option(fits, name, "orthogonal", orthogonal, allowed)
    width = width or features
    through = codebooks.ESTIMATORS[estimator]
    placed = codebooks.unit if cosine else lambda codes: codes

    def init(key: Array) -> tuple[Params, Extra]:
        first = placed(jax.random.normal(key, (codes, width)) * width**-0.5)
        state = {"count": jnp.ones(codes), "started": jnp.float32(0)}
        if averaged:
            return {}, {**state, "codes": first, "total": first}
        return {"codes": first}, {**state, "shift": jnp.zeros((codes, width))}

    def table_of(params: Params, extra: Extra) -> Array:
        # What moves a code at once, k-means or its revival, is kept beside the trained parameters.
        return extra["codes"] if averaged else placed(params["codes"] + extra["shift"])

    def moved_to(params: Params, extra: Extra, which: Array, to: Array, count: Array) -> Extra:
        """Codes that are put elsewhere, `which` bool `[K]`, with new counts of their vectors."""
        here = which[:, None]
        found = {**extra, "count": jnp.where(which, count, extra["count"])}
        if averaged:
            found["total"] = jnp.where(here, count[:, None] * to, extra["total"])
            found["codes"] = jnp.where(here, to, extra["codes"])
        else:
            own = jax.lax.stop_gradient(params["codes"])
            found["shift"] = jnp.where(here, to - own, extra["shift"])
        return found

    def started(params: Params, extra: Extra, rows: Array, weight: Array, key: Array) -> Extra:
        """The state before the first batch: counts are of its size, so that no code is dead."""

        def place() -> Extra:
            fair = batch.parts() * rows.shape[0] / codes
            centres, count = table_of(params, extra), jnp.full(codes, fair)
            if start == "kmeans":
                centres, found = codebooks.k_means(rows, weight, key, codes)
                centres, count = placed(centres), jnp.maximum(found, 1)
            everywhere = jnp.ones(codes, bool)
            state = moved_to(params, extra, everywhere, jax.lax.stop_gradient(centres), count)
            return {**state, "started": jnp.ones_like(extra["started"])}

        return jax.lax.cond(extra["started"] > 0, lambda: dict(extra), place)

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        z = placed(z.astype(jnp.float32))
        rows = jax.lax.stop_gradient(z).reshape(-1, width)
        weight = weights(mask, z)
        if train is not None:
            extra = started(params, extra, rows, weight, keys.named(train[0], "k-means"))
        table = table_of(params, extra)
        indices = codebooks.nearest(rows, jax.lax.stop_gradient(table)).reshape(z.shape[:-1])
        q = table[indices]
        fixed = jax.lax.stop_gradient(q)
        losses = {"commitment": beta * mean_of(jnp.square(z - fixed), mask)}
        if not averaged:
            own = jnp.square(jax.lax.stop_gradient(z) - q)
            losses["codebook"] = mean_of(own, mask)
        if orthogonal:
            losses["orthogonal"] = orthogonal * codebooks.coherence(table)
        statistics: dict[str, Any] = {}
        if train is not None:
            count, total = codebooks.tally(rows, indices.reshape(-1), weight, codes)
            statistics = {"count": count, "vectors": weight.sum()}
            if averaged:
                statistics["total"] = total
            if revive:
                key = keys.named(train[0], "revival")
                everything = batch.parts() * rows.shape[0]
                places = jax.random.randint(key, (codes,), 0, everything)
                statistics["candidates"] = batch.own_rows(rows, places)
                statistics["valid"] = batch.own_rows(weight, places)
        return Assigned(through(z, fixed), indices[..., None], losses, extra, statistics)

    def advance(params: Params, extra: Extra, statistics: Any) -> Extra:
        found = {**extra, "count": codebooks.moved(extra["count"], statistics["count"], decay)}
        if averaged:
            found["total"] = codebooks.moved(extra["total"], statistics["total"], decay)
            found["codes"] = placed(codebooks.centroids(found["count"], found["total"]))
        if revive:
            fair = statistics["vectors"] / codes
            dead = (found["count"] < revive * fair) & (statistics["valid"] > 0)
            count = jnp.full(codes, fair)
            found = moved_to(params, found, dead, statistics["candidates"], count)
        # A batch without vectors changes nothing.
        some = statistics["vectors"] > 0
        return jax.tree.map(lambda new, old: jnp.where(some, new, old), found, dict(extra))

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        return codebooks.look_up(table_of(params, extra), indices[..., 0])

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        far = -2 * codebooks.closeness(placed(z.astype(jnp.float32)), table_of(params, extra))
        which, costs = ranking.cheapest(far, indices[..., 0], count)
        return Alternatives(which[..., None], costs)

    # A code of length 1 is no part of a sum of codes.
    sums = None if cosine else through
    return Quantiser(width, codes, 1, init, assign, advance, decode, alternatives, sums)
