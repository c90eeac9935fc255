"""What completed images were drawn from, in one line."""

from collections.abc import Mapping

import numpy as np

from rnngen_jax import models
from rnngen_jax.models import autoregressive
from rnngen_jax.models.autoregressive import Steps
from rnngen_jax.models.base import Completion, Model
from rnngen_jax.shapes import ImageSpec

WORTH_IT = 0.75  # share of the known pixels left out, up to which another order is named
FEW = 2.0  # an effective sample size below which choosing among draws does little


def come_later(steps: Steps, known: np.ndarray, channels: int) -> float:
    """How many known pixels are not before a missing one, the mean over missing pixels.

    Those of a missing pixel's own turn are not before it.

    Args:
      steps: a model's order.
      known: bool `[N, H, W]`.
      channels: C of a pixel.
    """
    turn = autoregressive.turn_of_each(steps)
    later = missing = 0
    for values in np.repeat(known.reshape(len(known), -1), channels, axis=1):
        sought = turn[~values]
        before = np.searchsorted(np.sort(turn[values]), sought)
        later += (values.sum() - before).sum() / channels
        missing += len(sought)
    return later / max(missing, 1)


def of_orders(
    name: str, fields: Mapping[str, object], spec: ImageSpec, known: np.ndarray
) -> dict[str, float]:
    """`come_later` of each order of pixels that a model could have been trained with.

    Args:
      name: the model's name.
      fields: of its `Config`.
      spec: the images.
      known: bool `[N, H, W]`.
    """
    built = {
        order: models.build(name, {**fields, "order": order}, spec) for order in models.orders(name)
    }
    return {order: come_later(model.steps, known, spec.channels) for order, model in built.items()}


def described(
    model: Model,
    known: np.ndarray,
    candidates: int | None,
    completion: Completion,
    orders: Mapping[str, float],
) -> str:
    """Says of completed images which known pixels each missing one was drawn from.

    Args:
      model: completed them.
      known: bool `[N, H, W]`.
      candidates: how many draws there were to choose from; `None` for the model's own number.
      completion: the completed images.
      orders: as `of_orders` gives them.
    """
    candidates = candidates or model.candidates
    if model.steps is None:
        return _chain(model, candidates, completion)
    later = come_later(model.steps, known, model.spec.channels)
    if later == 0:
        return "completed given all known pixels: none comes later than a missing one"
    count = f"{_number(later)} of {_number(known.sum() / len(known))} known pixels"
    if candidates > 1:
        least, median = completion.effective.min(), np.median(completion.effective)
        line = (
            f"completed by choosing among {candidates} draws, each missing pixel given those "
            f"before it, by how well the {count} that come later fit; effective sample size "
            f"{median:.1f} (median), {least:.1f} (least)"
        )
        few = ", near 1, so this is little better than one draw: raise --candidates"
        return line + few * bool(median < FEW)
    return (
        "completed given the known pixels before each missing one in the model's order; "
        f"{count} come later and were not used. --candidates=32 weighs them; "
        f"{_other_order(later, orders)}"
    )


def _other_order(later: float, orders: Mapping[str, float]) -> str:
    """Which order leaves out fewer known pixels, if one leaves out far fewer."""
    best = min(orders, key=orders.__getitem__, default=None)
    if best is None or orders[best] > WORTH_IT * later:
        return "no other order of this model leaves out far fewer"
    left = _number(orders[best]) if orders[best] else "none"
    return f"a run trained with --config.model.order={best} leaves out {left}"


def _chain(model: Model, candidates: int, completion: Completion) -> str:
    """Says how a model of latent variables completed images."""
    draws = f"{candidates} draws" if candidates > 1 else "1 draw"
    return (
        f"completed given all known pixels, by {model.latent.completion} with {draws} of the "
        f"latents in each; {np.median(completion.moved):.0%} (median) or "
        f"{completion.moved.min():.0%} (least) of these were accepted"
    )


def _number(mean: float) -> str:
    """A mean number of pixels, with a decimal where it is not whole."""
    return f"{mean:.1f}".removesuffix(".0")
