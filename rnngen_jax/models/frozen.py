"""Arrays of another run's model that a model keeps in its `extra`, and never trains.

A checkpoint is so whole without the other run's folder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.base import Extra, Model, Params


class Frozen(NamedTuple):
    """A trained model's arrays."""

    params: Params
    extra: Extra


class Perceptual(NamedTuple):
    """The classifier in whose activations a perceptual loss compares images.

    Attributes:
      model: a model with `activations`.
      frozen: its arrays, as for `kept`.
    """

    model: Model
    frozen: Frozen | None = None


def kept(
    init: Callable[[Array], tuple[Params, Extra]], frozen: Frozen | None, key: Array
) -> dict[str, Any]:
    """The arrays as an item of `extra`.

    Args:
      init: makes the same arrays untrained.
      frozen: the arrays; `None` where they come from a checkpoint. There are then no finite numbers
        in their places, so that a state without them cannot be taken for one that has them.
      key: of the initialisation, for shapes alone.

    Returns:
      `{"params", "extra"}`.
    """
    arrays: tuple[Params, Extra] | None = frozen
    if arrays is None:
        shapes = jax.eval_shape(init, key)
        arrays = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
    params, extra = jax.tree.map(jnp.asarray, tuple(arrays))
    return {"params": params, "extra": extra}
