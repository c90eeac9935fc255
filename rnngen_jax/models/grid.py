"""Shared by models over an image's two dimensions: config, pixel orders, sampling steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax import cells, keys, recurrence
from rnngen_jax.cells.base import Cell
from rnngen_jax.cells.convolved import takes_any_width
from rnngen_jax.config import require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.autoregressive import (
    PixelConfig,
    Steps,
    autoregressive_model,
    in_raster_order,
)
from rnngen_jax.models.base import Extra, Model, Params, Train, require_classes
from rnngen_jax.models.levels import Coarser
from rnngen_jax.modules.grid.network import GridNetwork
from rnngen_jax.ops import dropout, grids, likelihoods
from rnngen_jax.shapes import ImageSpec

ORDERS = ("raster", "column", "reverse")


@dataclass(frozen=True)
class GridConfig(PixelConfig):
    """Choices of all models over an image's two dimensions; see `PixelConfig` for the others.

    Attributes:
      ORDERS: choices of `order`.
      features: F of a layer; the maps between layers have 2F.
      layers: number of layers.
      residual: residual connections around the layers.
      first_kernel: side of the first convolution's kernel, odd.
      order: "raster", "column" (down each column, columns from the left) or "reverse" (raster from
        the last pixel to the first).
      readout_hidden: units of a hidden layer before the readout, 0 for none.
      dropout: rate for the outputs of each layer, one mask per image.
    """

    ORDERS: ClassVar[tuple[str, ...]] = ORDERS

    features: int = 32
    layers: int = 2
    residual: bool = True
    first_kernel: int = 7
    order: str = "raster"
    readout_hidden: int = 64

    def __post_init__(self) -> None:
        PixelConfig.__post_init__(self)
        require_choice("config.model.order", self.order, ORDERS)
        require_at_least(self, "config.model", 1, "features", "layers")
        hidden = self.readout_hidden
        require(hidden >= 0, "config.model.readout_hidden", hidden, "≥ 0")
        require_kernel("first_kernel", self.first_kernel)


def require_kernel(name: str, size: int) -> None:
    """Raises a `UserError` unless a kernel of `size` has a centre and neighbours."""
    require(size >= 3 and size % 2 == 1, f"config.model.{name}", size, "odd and ≥ 3")


def convolvable(spec: str, features: int, strategy: str = "auto") -> Cell:
    """Builds the cell of a spec string for a layer that convolves it.

    Args:
      spec: a cell and its options.
      features: size F of its outputs.
      strategy: how it will be run over time.

    Raises:
      UserError: an unknown cell, or a cell or strategy that cannot be convolved.
    """
    cell = cells.from_spec(spec, features)
    if not _is_convolvable(cell):
        allowed = ", ".join(convolvable_names())
        raise UserError(
            f"config.model.cell={spec!r} cannot be convolved; allowed: {allowed}, in their "
            "default variant with input weights."
        )
    allowed = recurrence.joining()
    if cell.gated is not None and strategy.partition(":")[0] not in allowed:
        raise UserError(
            f"config.model.strategy={strategy!r} needs independent places, but cell {spec!r} "
            f"is convolved over them; allowed: {', '.join(allowed)}."
        )
    return cell


def convolvable_names() -> list[str]:
    """Names of the cells that can be convolved with their default options."""
    return [name for name in cells.names() if _is_convolvable(cells.from_spec(name, 1))]


def _is_convolvable(cell: Cell) -> bool:
    return (cell.gated is not None or cell.linear is not None) and takes_any_width(cell)


# The layers' states, the labels [B], and what each pixel is given of a coarser level, or `None`.
State = tuple[Any, Array, Array | None]


class Frame(NamedTuple):
    """An image rearranged so that its order becomes raster order.

    Attributes:
      values: index of each value in the image, int32 `[H', W', C]`.
      context: indices of the first convolution's inputs, int32 `[H', W', K · C]`, V outside.
    """

    values: np.ndarray
    context: np.ndarray


def frame(order: str, spec: ImageSpec, kernel: int) -> Frame:
    """The frame of an order, and its pixels' neighbours in the first convolution."""
    values = np.arange(spec.dims, dtype=np.int32).reshape(spec.shape)
    if order == "column":
        values = values.swapaxes(0, 1)
    if order == "reverse":
        values = values[::-1, ::-1]
    radius = kernel // 2
    padding = ((radius, 0), (radius, radius), (0, 0))
    padded = np.pad(values, padding, constant_values=spec.dims)
    height, width = values.shape[:2]
    seen = [
        padded[radius + up : radius + up + height, radius + aside : radius + aside + width]
        for up, aside in grids.before(radius)
    ]
    return Frame(values, np.concatenate(seen, axis=-1))


def grid_model(
    name: str,
    config: GridConfig,
    spec: ImageSpec,
    layer: Callable[..., nn.Module],
    apart: bool = False,
) -> Model:
    """Builds a model from its layers.

    Args:
      name: the model's name.
      config: its config.
      spec: the images.
      layer: makes one layer, a module with the two evaluations of `modules.grid`, from the fields
        of `modules.grid.parts.GridLayer` as keyword arguments.
      apart: whether layers keep a separate map of the rows above.

    Raises:
      UserError: a readout unsuitable for the images, or class_conditional without labels.
    """
    return grid_level(name, config, spec, layer, apart)()


def grid_level(
    name: str,
    config: GridConfig,
    spec: ImageSpec,
    layer: Callable[..., nn.Module],
    apart: bool = False,
    coarser: Coarser | None = None,
) -> Callable[..., Model]:
    """Builds a level of `models.levels.over_levels` from its layers.

    Args:
      name, config, spec, layer, apart: as for `grid_model`.
      coarser: the coarser level that it is given, if any.

    Raises:
      UserError: as `grid_model`.
    """
    require_classes(config.class_conditional, spec)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    values, context_values = frame(config.order, spec, config.first_kernel)
    height, width, channels = values.shape
    radius = config.first_kernel // 2
    sizes = {"width": 2 * config.features, "columns": width, "channels": channels}
    net = GridNetwork(
        layers=[layer(**sizes, residual=config.residual) for _ in range(config.layers)],
        spec=spec._replace(height=height, width=width),
        width=2 * config.features,
        **config.inputs(),
        readout_size=likelihood.size,
        readout_hidden=config.readout_hidden,
        coarser=None if coarser is None else coarser.spec,
        above=radius * (2 * radius + 1) * channels if apart else 0,
    )
    places = values[..., 0] // channels  # of the order's pixels in the image

    def whole(image: Array) -> tuple[Array, Array]:
        """Context and own values of all pixels, `[H', W', B, ...]`."""
        seen = in_raster_order(image).astype(jnp.int32)
        outside = jnp.full((1, seen.shape[1]), spec.levels, jnp.int32)
        context = jnp.concatenate([seen, outside])[context_values]
        return jnp.swapaxes(context, 2, 3), jnp.swapaxes(seen[values], 2, 3)

    def given(top: Array | None = None) -> Model:
        """The model, given the coarser level's codes `[B, h, w, depth]`."""

        def around() -> Array | None:
            """The coarser level's codes around each pixel, `[H', W', B, N]`."""
            return None if coarser is None else coarser.around(top)[places]

        def init(key: Array) -> tuple[Params, Extra]:
            image, label = jnp.zeros((1, *spec.shape), jnp.int32), jnp.zeros(1, jnp.int32)
            variables = net.init(key, *whole(image), label, None, around())
            return {"model": variables["params"]}, {}

        def raw_outputs(params: Params, image: Array, label: Array, train: Train) -> Array:
            masks = None
            if train is not None and config.dropout:
                key, index = train
                masks = [
                    dropout.mask(
                        keys.per_example(keys.named(key, f"layer_{n}"), index),
                        config.features,
                        config.dropout,
                    )
                    for n in range(config.layers)
                ]
            raw = net.apply({"params": params["model"]}, *whole(image), label, masks, around())
            raw = jnp.moveaxis(raw, 2, 0)  # [B, H', W', C, P]
            if config.order == "column":
                return jnp.swapaxes(raw, 1, 2)
            return raw[:, ::-1, ::-1] if config.order == "reverse" else raw

        def first(params: Params, label: Array) -> State:
            variables, above = {"params": params["model"]}, around()
            shown = None if above is None else net.apply(variables, above, method=net.see)
            return net.apply(variables, label.shape[0], method=net.first), label, shown

        return autoregressive_model(
            name,
            spec,
            config.class_conditional,
            init,
            raw_outputs,
            Steps(np.ascontiguousarray(values), 1, first, raw, line),
            likelihood,
        )

    def line(params: Params, state: State, n: Array, seen: Array) -> State:
        states, label, shown = state
        context = jnp.swapaxes(seen[jnp.asarray(context_values)[n]], 1, 2)
        variables, above = {"params": params["model"]}, None if shown is None else shown[n]
        states = net.apply(variables, states, context, n, label, above, method=net.row)
        return states, label, shown

    def raw(params: Params, state: State, t: Array, turn: int, seen: Array) -> tuple[State, Array]:
        states, label, shown = state
        row, column = t // width, t % width
        context = seen[jnp.asarray(context_values)[row, column]].T
        own = jax.lax.dynamic_slice_in_dim(seen, jnp.asarray(values)[row, column, 0], channels).T
        variables = {"params": params["model"]}
        above = None if shown is None else shown[row, column]
        states, raw = net.apply(
            variables, states, context, own, row, column, label, above, method=net.pixel
        )
        return (states, label, shown), raw[:, turn : turn + 1]

    return given
