"""Describes in one line what completed images were sampled from."""

from collections.abc import Mapping

import numpy as np

from rnngen_jax import models
from rnngen_jax.models import autoregressive
from rnngen_jax.models.autoregressive import Steps
from rnngen_jax.models.base import Completion, Model
from rnngen_jax.shapes import ImageSpec

WORTH_IT = 0.75  # another order is named if it leaves out at most this fraction of known pixels
FEW = 2.0  # effective sample size below which choosing among draws has little effect


def come_later(steps: Steps, known: np.ndarray, channels: int) -> float:
    """The number of known pixels that do not precede a missing one, averaged over missing pixels.

    Pixels of a missing pixel's own turn do not precede it.

    Args:
      steps: a model's order.
      known: bool `[N, H, W]`.
      channels: channels C of a pixel.
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
    """`come_later` for each order of pixels that a model could be trained with.

    Args:
      name: the model's name.
      fields: the fields of its `Config`.
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
    """A line on which known pixels each missing pixel of completed images was sampled from.

    Args:
      model: the model that completed them.
      known: bool `[N, H, W]`.
      candidates: number of draws to choose from; `None` for the model's own number.
      completion: the completed images.
      orders: from `of_orders`.
    """
    candidates = candidates or model.candidates
    if model.steps is None:
        of_codes = completion.effective is not None
        return (_weighed if of_codes else _chain)(model, candidates, completion)
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
    """The order that leaves out the fewest known pixels, if far fewer than this one."""
    best = min(orders, key=orders.__getitem__, default=None)
    if best is None or orders[best] > WORTH_IT * later:
        return "no other order of this model leaves out far fewer"
    left = _number(orders[best]) if orders[best] else "none"
    return f"a run trained with --config.model.order={best} leaves out {left}"


def _chain(model: Model, candidates: int, completion: Completion) -> str:
    """How a latent-variable model completed images."""
    draws = f"{candidates} draws" if candidates > 1 else "1 draw"
    return (
        f"completed given all known pixels, by {model.latent.completion} with {draws} of the "
        f"latents in each; {np.median(completion.moved):.0%} (median) or "
        f"{completion.moved.min():.0%} (least) of these were accepted"
    )


def _weighed(model: Model, candidates: int, completion: Completion) -> str:
    """How a model of codes completed images."""
    effective, moved = completion.effective, completion.moved
    return (
        f"completed given all known pixels, by {model.latent.completion}: effective sample size of "
        f"{candidates} draws {np.median(effective):.1f} (median), {effective.min():.1f} (least); "
        f"{np.median(moved):.0%} (median) or {moved.min():.0%} (least) of the steps changed a code"
    )


def _number(mean: float) -> str:
    """A mean number of pixels, with one decimal unless it is whole."""
    return f"{mean:.1f}".removesuffix(".0")
