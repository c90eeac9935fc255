"""Codes being drawn, one place after another, and the image that is expected after each.

Once some places have their codes, the image expected is the decoder's, averaged over draws of all
other codes from the prior given these:

    E[x | c_<t] = E[ E[x | c] | c_<t ]

So a film starts at the average image of the model and ends at the expected image of all codes.
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
from rnngen_jax.models.autoregressive import Steps
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.shapes import ImageSpec

CONTINUATIONS = 16  # draws of the other codes, per grid
GRIDS = 8  # in one call of the model, each with all of its draws
MOST_FRAMES = 100  # of a film; of larger grids not every place has one of its own


class Film(NamedTuple):
    """Grids of codes while they are drawn.

    Attributes:
      mean: the expected images of each frame, float32 `[F, N, H, W, C]` in [0, 1].
      known: the places that have been drawn, bool `[F, h, w]`: none at first, all at last.
      vectors: of the grids' codes, float32 `[N, h, w, D]`.
    """

    mean: np.ndarray
    known: np.ndarray
    vectors: np.ndarray

    @property
    def new(self) -> np.ndarray:
        """The places of each frame that the frame before did not have, bool `[F, h, w]`."""
        return np.diff(self.known, axis=0, prepend=self.known[:1])


def filmer(
    model: Model, track: Track = iter, continuations: int = CONTINUATIONS
) -> Callable[..., Film]:
    """`film(params, extra, key, grids, labels, temperature) -> Film`.

    `grids` is `[N, h, w, depth]`, `labels` int32 `[N]` or `None`. The draws of all frames share
    their noise, so that images change by what is known alone.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "for a film")
    prior, spec = codes.prior, codes.spec

    def one(params: Params, extra: Extra, batch: Any, common: Any) -> Array:
        number, grids, label = batch
        key, known, temperature = common
        grids = jnp.repeat(grids, continuations, axis=0)
        known = jnp.broadcast_to(known, grids.shape[:-1])
        label = None if label is None else jnp.repeat(label, continuations)
        own = prior.params(params, extra)
        key = jax.random.fold_in(key, number)
        drawn = prior.model.complete(own, {}, key, grids, known, label, temperature).image
        mean = codes.likelihood.mean(codes.raw(*codes.bind(params, extra), drawn))
        return mean.reshape(-1, continuations, *mean.shape[1:]).mean(1)

    def vectors_of(params: Params, extra: Extra, batch: Any, common: Any) -> Array:
        del common
        return codes.vectors(*codes.bind(params, extra), batch[1])

    def film(
        params: Params,
        extra: Extra,
        key: Array,
        grids: np.ndarray,
        labels: np.ndarray | None,
        temperature: float = 1.0,
    ) -> Film:
        known = stops(prior.model.steps, spec)
        num, arrays = len(grids), (grids, labels)
        key, temperature = keys.named(key, "film"), np.float32(temperature)
        vectors = map_batches(vectors_of, params, extra, None, num, GRIDS, grids)
        mean = [
            map_batches(one, params, extra, (key, known[n], temperature), num, GRIDS, *arrays)
            for n in track(range(len(known)))
        ]
        return Film(np.stack(mean), known, vectors)

    return film


def stops(steps: Steps, spec: ImageSpec) -> np.ndarray:
    """Which places of a grid are known before the first stop of a prior, and after each.

    Args:
      steps: of the prior.
      spec: the grids.

    Returns:
      bool `[F, h, w]`, F at most `MOST_FRAMES` and one more, evenly spaced.
    """
    of_stop = steps.starts.reshape(-1, steps.starts.shape[-1], 1) + np.arange(steps.width)
    places = of_stop.reshape(len(of_stop), -1) // spec.channels
    known = np.zeros((len(places) + 1, spec.height * spec.width), bool)
    for n, own in enumerate(places):
        known[n + 1] = known[n]
        known[n + 1, own] = True
    frames = np.linspace(0, len(places), min(len(places), MOST_FRAMES) + 1).round().astype(int)
    return known[frames].reshape(-1, spec.height, spec.width)
