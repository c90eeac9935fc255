"""Pixel RNN: the image as a sequence, one pixel per time step, any cell.

    log p(x) = Σ_t Σ_c log p(x[t, c] | x[t, <c], x[<t])     (van den Oord et al. 2016, eqs. 1-2)

With `previous=1`, `above=0` and `position=False` it is the textbook generator that is fed its last
pixel; the pixels above as further inputs let a one-dimensional recurrence see both dimensions.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.cells.base import Carry
from rnngen_jax.config import require, require_at_least
from rnngen_jax.models.autoregressive import (
    PixelConfig,
    Steps,
    autoregressive_model,
    in_raster_order,
)
from rnngen_jax.models.base import Extra, Model, Params, Train, dropout_masks, require_classes
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
from rnngen_jax.modules.pixel_rnn import PixelRNN
from rnngen_jax.ops import likelihoods, orders
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(PixelConfig, UnrolledConfig):
    """Choices of the pixel RNN; see `PixelConfig` and `UnrolledConfig` for the others.

    Attributes:
      ORDERS: choices of `order`.
      input_features: width D of the first layer's inputs.
      previous: number of directly preceding pixels that are inputs.
      above: number of earlier lines whose 2·above + 1 nearest pixels are inputs.
      order: "raster", "serpentine" or "column".
      readout_hidden: units of a hidden layer between the cell and the readout, 0 for none.
    """

    ORDERS: ClassVar[tuple[str, ...]] = orders.ORDERS

    input_features: int = 64
    previous: int = 1
    above: int = 1
    order: str = "raster"
    readout_hidden: int = 0

    def __post_init__(self) -> None:
        PixelConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)
        require_at_least(self, "config.model", 0, "previous", "above", "readout_hidden")
        sees, allowed = self.previous + self.above, "≥ 1 if config.model.above is 0"
        require(sees > 0, "config.model.previous", 0, allowed)
        width = self.input_features
        require(width >= 1, "config.model.input_features", width, "≥ 1")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell, order or readout, or one unsuitable for the images.
    """
    require_classes(config.class_conditional, spec)
    height, width, channels = spec.shape
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    cell = cell_of(config)
    place = orders.positions(config.order, height, width)
    table = orders.neighbours(config.order, height, width, config.previous, config.above)
    length, count = table.shape
    # Indices in the image of each step's values and its neighbours'.
    starts = ((place[:, 0] * width + place[:, 1]) * channels)[:, None] + np.arange(channels)
    starts = starts.astype(np.int32)
    outside = np.full((1, channels), spec.dims, np.int32)
    context_values = np.concatenate([starts, outside])[table].reshape(length, count * channels)
    net = PixelRNN(
        cell=cell,
        spec=spec,
        input_features=config.input_features,
        readout_size=likelihood.size,
        readout_hidden=config.readout_hidden,
        **config.inputs(),
        run=run_of(config),
    )

    def init(key: Array) -> tuple[Params, Extra]:
        context = jnp.zeros((length, 1, count * channels), jnp.int32)
        values, label = jnp.zeros((length, 1, channels), jnp.int32), jnp.zeros(1, jnp.int32)
        variables = net.init(key, context, place, values, label)
        return {"model": variables["params"]}, {}

    def raw_outputs(params: Params, image: Array, label: Array, train: Train) -> Array:
        sizes = config.input_features, cell.features
        masks = dropout_masks(train, sizes, config.dropout)
        values = in_raster_order(image).astype(jnp.int32)
        outside = jnp.full((1, values.shape[1]), spec.levels, jnp.int32)
        context = jnp.concatenate([values, outside])[context_values]
        sequence = orders.to_sequence(image, config.order).astype(jnp.int32)
        variables = {"params": params["model"]}
        raw = net.apply(variables, jnp.swapaxes(context, 1, 2), place, sequence, label, masks)
        return orders.from_sequence(raw, config.order, height, width)

    def first(params: Params, label: Array) -> tuple[Carry, Array, Array]:
        num = label.shape[0]
        carry = net.apply({"params": params["model"]}, num, method=net.first)
        return carry, jnp.zeros((num, cell.features)), label

    def raw(
        params: Params, state: tuple[Carry, Array, Array], t: Array, turn: int, seen: Array
    ) -> tuple[tuple[Carry, Array, Array], Array]:
        """One cell step per pixel; a pixel's channels differ only in the readout's inputs."""
        variables = {"params": params["model"]}
        carry, y, label = state
        if turn == 0:
            context = seen[jnp.asarray(context_values)[t]].T
            where = jnp.asarray(place)[t]
            carry, y = net.apply(variables, carry, context, where, label, method=net.step)
        pixel = jax.lax.dynamic_slice_in_dim(seen, jnp.asarray(starts)[t, 0], channels).T
        raw = net.apply(variables, y, pixel, method=net.read)
        return (carry, y, label), raw[:, turn : turn + 1]

    return autoregressive_model(
        "pixel_rnn",
        spec,
        config.class_conditional,
        init,
        raw_outputs,
        Steps(starts[None], 1, first, raw),
        likelihood,
    )
