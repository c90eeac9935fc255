"""Codes being drawn, one place after another, and the image that is expected after each.

Once some places have their codes, the image expected is the decoder's, averaged over draws of all
other codes from the prior given these:

    E[x | c_<t] = E[ E[x | c] | c_<t ]

So a film starts at the average image of the model and ends at the expected image of all codes. Of
several levels the coarsest is drawn first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.evaluation.batching import Track, map_batches
from rnngen_jax.evaluation.sampling import codes_of
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.models.codes import Codes
from rnngen_jax.models.levels import Grids, packed

CONTINUATIONS = 16  # draws of the other codes, per grid
GRIDS = 8  # in one call of the model, each with all of its draws
MOST_FRAMES = 100  # of a film; of larger grids not every place has one of its own


class Film(NamedTuple):
    """Grids of codes while they are drawn; what is of each level is a tuple, the coarsest first.

    Attributes:
      mean: the expected images of each frame, float32 `[F, N, H, W, C]` in [0, 1].
      known: the places of each level that have been drawn, bool `[F, h, w]`: none at first, all at
        last.
      vectors: of each level's codes, float32 `[N, h, w, D]`.
    """

    mean: np.ndarray
    known: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]

    @property
    def new(self) -> list[np.ndarray]:
        """The places of each frame that the frame before did not have, bool `[F, h, w]`."""
        return [np.diff(known, axis=0, prepend=known[:1]) for known in self.known]


def filmer(
    model: Model, track: Track = iter, continuations: int = CONTINUATIONS
) -> Callable[..., Film]:
    """`film(params, extra, key, grids, labels, temperature) -> Film`.

    `grids` is `[N, h, w, depth]`, or a tuple of several levels; `labels` int32 `[N]` or `None`. The
    draws of all frames share their noise, so that images change by what is known alone.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "for a film")
    prior = codes.prior

    def one(params: Params, extra: Extra, batch: Any, common: Any) -> Array:
        number, *grids, label = batch
        key, known, temperature = common
        grids = [jnp.repeat(grid, continuations, axis=0) for grid in grids]
        each = zip(known, grids, strict=True)
        known = [jnp.broadcast_to(places, grid.shape[:-1]) for places, grid in each]
        label = None if label is None else jnp.repeat(label, continuations)
        own, key = prior.params(params, extra), jax.random.fold_in(key, number)
        given = packed(grids), packed(known), label, temperature
        drawn = prior.model.complete(own, {}, key, *given).image
        mean = codes.likelihood.mean(codes.raw(*codes.bind(params, extra), drawn))
        return mean.reshape(-1, continuations, *mean.shape[1:]).mean(1)

    def vectors_of(params: Params, extra: Extra, batch: Any, common: None) -> Any:
        del common
        return codes.vectors(*codes.bind(params, extra), packed(batch[1:]))

    def film(
        params: Params,
        extra: Extra,
        key: Array,
        grids: Grids,
        labels: np.ndarray | None,
        temperature: float = 1.0,
    ) -> Film:
        known = stops(codes)
        grids = jax.tree.leaves(grids)
        num, common = len(grids[0]), (keys.named(key, "film"), np.float32(temperature))
        vectors = map_batches(vectors_of, params, extra, None, num, GRIDS, *grids)
        mean = []
        for n in track(range(len(known[0]))):
            given = common[0], [places[n] for places in known], common[1]
            mean.append(map_batches(one, params, extra, given, num, GRIDS, *grids, labels))
        return Film(np.stack(mean), known, tuple(jax.tree.leaves(vectors)))

    return film


def stops(codes: Codes) -> tuple[np.ndarray, ...]:
    """Which places of each level are known before a prior's first stop, and after each.

    Args:
      codes: of a whole model, with its prior.

    Returns:
      bool `[F, h, w]` of each level, F at most `MOST_FRAMES` and one more, evenly spaced.
    """
    model = codes.prior.model
    steps = [stage.steps for stage in model.stages] or [model.steps]
    sizes = [spec.height * spec.width for spec in codes.specs]
    known = [np.zeros(sum(sizes), bool)]
    for level, (own, spec) in enumerate(zip(steps, codes.specs, strict=True)):
        of_stop = own.starts.reshape(-1, own.starts.shape[-1], 1) + np.arange(own.width)
        for places in of_stop.reshape(len(of_stop), -1) // spec.channels:
            known.append(known[-1].copy())
            known[-1][sum(sizes[:level]) + places] = True
    last = len(known) - 1
    frames = np.linspace(0, last, min(last, MOST_FRAMES) + 1).round().astype(int)
    each = np.split(np.stack(known)[frames], np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        found.reshape(-1, spec.height, spec.width)
        for found, spec in zip(each, codes.specs, strict=True)
    )
