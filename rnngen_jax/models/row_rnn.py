"""Row RNN: one row of the image per time step.

log p(x) = Σ_t log p(x[t] | x[<t]),   a row's values independent given the rows above, or
log p(x[t] | x[<t]) = Σ_w log p(x[t, w] | x[t, <w], x[<t])   with a second cell along the row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import cells
from rnngen_jax.cells.base import Carry
from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.models.autoregressive import PixelConfig, Steps, autoregressive_model
from rnngen_jax.models.base import Extra, Model, Params, Train, dropout_masks, require_classes
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
from rnngen_jax.modules.row_rnn import RowRNN
from rnngen_jax.ops import likelihoods
from rnngen_jax.shapes import ImageSpec

WITHIN = ("independent", "autoregressive")


class State(NamedTuple):
    """The sampler's state: carry and output over rows, and those along the current row.

    `along` is `None` for rows of independent values.
    """

    carry: Carry
    y: Array
    along: tuple[Carry, Array] | None
    label: Array


@dataclass(frozen=True)
class Config(PixelConfig, UnrolledConfig):
    """Choices of the row RNN; see `PixelConfig` and `UnrolledConfig` for the others.

    Attributes:
      input_features: width D of the first layer's inputs.
      within: "independent", or "autoregressive" with a second cell of the same kind along each row.
      within_features: size of that second cell and of its inputs.
      tied_readout: the readout is the transpose of the input weights, `y = Wᵀ h + b`; needs
        independent values, `input_features` equal to `features`, and "scalar" pixels with the
        Bernoulli readout or "onehot" pixels with the categorical one.
    """

    input_features: int = 128
    within: str = "independent"
    tied_readout: bool = False
    within_features: int = 64

    def __post_init__(self) -> None:
        PixelConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)
        require_choice("config.model.within", self.within, WITHIN)
        require_at_least(self, "config.model", 1, "input_features", "within_features")
        if self.within == "independent":
            remedy = ", or set config.model.within to autoregressive"
            refuse_unread(self, "config.model", "within_features", ("within",), remedy=remedy)
        if self.tied_readout:
            fits = {("scalar", "bernoulli"), ("onehot", "categorical")}
            require(
                self.within == "independent"
                and self.input_features == self.features
                and (self.pixels, self.readout) in fits,
                "config.model.tied_readout",
                True,
                "False unless within='independent', input_features equals features, and pixels and "
                "readout are 'scalar' and 'bernoulli', or 'onehot' and 'categorical'",
            )


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell or readout, or one unsuitable for the images.
    """
    require_classes(config.class_conditional, spec)
    height, width, channels = spec.shape
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    cell = cell_of(config)
    within = None
    if config.within == "autoregressive":
        within = cells.build(config.cell, config.within_features, learned=config.learned_carry)
    net = RowRNN(
        cell=cell,
        within=within,
        run=run_of(config),
        spec=spec,
        tied=config.tied_readout,
        readout_size=likelihood.size,
        input_features=config.input_features,
        **config.inputs(),
    )

    def init(key: Array) -> tuple[Params, Extra]:
        rows = jnp.zeros((height, 1, width, channels), jnp.int32)
        variables = net.init(key, rows, jnp.zeros(1, jnp.int32))
        return {"model": variables["params"]}, {}

    def raw_outputs(params: Params, image: Array, label: Array, train: Train) -> Array:
        sizes = config.input_features, cell.features
        masks = dropout_masks(train, sizes, config.dropout)
        rows = jnp.moveaxis(image, 1, 0).astype(jnp.int32)
        raw = net.apply({"params": params["model"]}, rows, label, masks)
        return jnp.moveaxis(raw, 0, 1)

    row_values = width * channels

    def above(seen: Array, row: Array) -> Array:
        """The row above row `row`, int `[B, W, C]`, all `levels` above the first."""
        start = jnp.maximum(row - 1, 0) * row_values
        values = jax.lax.dynamic_slice_in_dim(seen, start, row_values)
        return jnp.where(row > 0, values, spec.levels).T.reshape(-1, width, channels)

    def first(params: Params, label: Array) -> State:
        variables, num = {"params": params["model"]}, label.shape[0]
        along = None
        if within is not None:
            out = jnp.zeros((num, within.features))
            along = (net.apply(variables, num, method=net.first_along), out)
        carry = net.apply(variables, num, method=net.first)
        return State(carry, jnp.zeros((num, cell.features)), along, label)

    def line(params: Params, state: State, row: Array, seen: Array) -> State:
        """One step of the cell over rows."""
        variables, label = {"params": params["model"]}, state.label
        carry, y = net.apply(variables, state.carry, above(seen, row), row, label, method=net.step)
        return first(params, label)._replace(carry=carry, y=y)

    def raw_of_row(
        params: Params, state: State, t: Array, turn: int, seen: Array
    ) -> tuple[State, Array]:
        """All values of a row at once, independent given the rows above."""
        raw = net.apply({"params": params["model"]}, state.y, method=net.read_row)
        return state, raw.reshape(-1, row_values, likelihood.size)

    def raw_of_pixel(
        params: Params, state: State, t: Array, turn: int, seen: Array
    ) -> tuple[State, Array]:
        """One pixel of a row, given those to its left."""
        variables = {"params": params["model"]}
        column, start = t % width, t * channels
        if turn == 0:
            left = jax.lax.dynamic_slice_in_dim(seen, jnp.maximum(start - channels, 0), channels)
            left = jnp.where(column > 0, left, spec.levels).T
            along, out = net.apply(
                variables, state.along[0], left, state.y, column, method=net.step_along
            )
            state = state._replace(along=(along, out))
        pixel = jax.lax.dynamic_slice_in_dim(seen, start, channels).T
        raw = net.apply(variables, state.along[1], pixel, method=net.read_pixel)
        return state, raw[:, turn : turn + 1]

    if within is None:
        starts = np.arange(height, dtype=np.int32)[:, None, None] * row_values
        steps = Steps(starts, row_values, first, raw_of_row, line)
    else:
        starts = np.arange(spec.dims, dtype=np.int32).reshape(spec.shape)
        steps = Steps(starts, 1, first, raw_of_pixel, line)

    return autoregressive_model(
        "row_rnn",
        spec,
        config.class_conditional,
        init,
        raw_outputs,
        steps,
        likelihood,
    )
