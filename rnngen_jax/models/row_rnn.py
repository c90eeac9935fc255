"""Row RNN: each row of the image one time step.

log p(x) = Σ_t log p(x[t] | x[<t]),   a row's values independent given the rows above, or
log p(x[t] | x[<t]) = Σ_w log p(x[t, w] | x[t, <w], x[<t])   with a second cell along the row.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax import cells
from rnngen_jax.cells.base import Carry
from rnngen_jax.config import require, require_choice
from rnngen_jax.models.base import (
    Extra,
    Model,
    Params,
    autoregressive_model,
    dropout_masks,
    require_classes,
    require_dropout,
)
from rnngen_jax.modules.pixels import draw_pixel, require_encoding
from rnngen_jax.modules.row_rnn import RowRNN
from rnngen_jax.ops import likelihoods
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

Element = tuple[Array, Array]  # values, and the raw outputs that they were drawn from

WITHIN = ("independent", "autoregressive")


@dataclass(frozen=True)
class Config:
    """Choices of the row RNN.

    Attributes:
      cell: a cell and its options, such as "gru" or "rnn:activation=sigmoid,input_weights=False".
      features: size F of the cell.
      layers: cells on top of one another.
      residual: adds each layer's inputs to its outputs, from the second layer on.
      learned_carry: trains the first carry instead of starting from zeros.
      input_features: width D of what the first layer reads.
      pixels: "onehot" gives each grey level a weight of its own, "scalar" scales it to [-1, 1].
      position: the number of the next row is an input.
      class_conditional: the class is an input.
      within: "independent", or "autoregressive" with a second cell of the same kind along each row.
      within_features: size of that second cell and of its inputs.
      tied_readout: the readout is the transpose of the input weights, `y = Wᵀ h + b`; needs
        independent values and `input_features` equal to `features`, and "scalar" pixels with the
        Bernoulli readout or "onehot" ones with the categorical.
      readout: "categorical" over the grey levels, "bernoulli" or "logistic_mixture".
      mixtures: components of the logistic mixture.
      dropout: rate for the cell's inputs and outputs, one mask an image.
      remat: steps between kept carries in training, to save memory; 0 keeps all.
    """

    cell: str = "gru"
    features: int = 128
    layers: int = 1
    residual: bool = False
    learned_carry: bool = False
    input_features: int = 128
    pixels: str = "onehot"
    position: bool = True
    class_conditional: bool = False
    within: str = "independent"
    within_features: int = 64
    tied_readout: bool = False
    readout: str = "categorical"
    mixtures: int = 5
    dropout: float = 0.0
    remat: int = 0

    def __post_init__(self) -> None:
        require_encoding(self.pixels)
        require_dropout(self.dropout)
        require_choice("config.model.within", self.within, WITHIN)
        require(self.remat >= 0, "config.model.remat", self.remat, "0 or more")
        for name in ("input_features", "within_features"):
            require(getattr(self, name) > 0, f"config.model.{name}", getattr(self, name), "1+")
        if self.tied_readout:
            fits = {("scalar", "bernoulli"), ("onehot", "categorical")}
            require(
                self.within == "independent"
                and self.input_features == self.features
                and (self.pixels, self.readout) in fits,
                "config.model.tied_readout",
                True,
                "True with within='independent', input_features equal to features, and pixels and "
                "readout either 'scalar' and 'bernoulli' or 'onehot' and 'categorical'",
            )


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell or readout, or one that does not fit the images.
    """
    require_classes(config.class_conditional, spec)
    height, width, channels = spec.shape
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    cell = cells.build(
        config.cell,
        config.features,
        layers=config.layers,
        residual=config.residual,
        learned=config.learned_carry,
    )
    within = None
    if config.within == "autoregressive":
        within = cells.build(config.cell, config.within_features, learned=config.learned_carry)
    net = RowRNN(
        cell=cell,
        spec=spec,
        readout_size=likelihood.size,
        input_features=config.input_features,
        encoding=config.pixels,
        position=config.position,
        conditional=config.class_conditional,
        tied=config.tied_readout,
        within=within,
        remat=config.remat,
    )

    def init(key: Array) -> tuple[Params, Extra]:
        rows = jnp.zeros((height, 1, width, channels), jnp.int32)
        variables = net.init(key, rows, jnp.zeros(1, jnp.int32))
        return {"model": variables["params"]}, {}

    def raw_outputs(
        params: Params, image: Array, label: Array, train: tuple[Array, Array] | None
    ) -> Array:
        masks = None
        if train is not None and config.dropout:
            sizes = config.input_features, cell.features
            masks = dropout_masks(*train, sizes, config.dropout)
        rows = jnp.moveaxis(image, 1, 0).astype(jnp.int32)
        raw = net.apply({"params": params["model"]}, rows, label, masks)
        return jnp.moveaxis(raw, 0, 1)

    def step_by_step(
        params: Params,
        key: Array,
        image: Array,
        known: Array,
        label: Array,
        temperature: Array | float,
    ) -> tuple[Array, Array]:
        """Row by row; each is given all rows above, known or drawn."""
        num = image.shape[0]
        variables = {"params": params["model"]}
        given = jnp.moveaxis(image, 1, 0).astype(jnp.int32)
        fixed = jnp.moveaxis(known, 1, 0)

        def draw_row(y: Array, given: Array, fixed: Array, key: Array) -> Element:
            """A row whose values are independent given the rows above, all at once."""
            raw = net.apply(variables, y, method=net.read_row)
            drawn = likelihood.draw(key, raw, temperature)
            return jnp.where(fixed[..., None], given, drawn), raw

        def draw_along(y: Array, given: Array, fixed: Array, key: Array) -> Element:
            """A row pixel by pixel."""

            def step(carry: Carry, left: Element, w: Array, key: Array) -> tuple[Carry, Element]:
                carry, out = net.apply(variables, carry, left[0], y, w, method=net.step_along)
                pixel = draw_pixel(
                    lambda values: net.apply(variables, out, values, method=net.read_pixel),
                    likelihood.draw,
                    key,
                    given[:, w],
                    fixed[:, w],
                    temperature,
                )
                return carry, pixel

            first = net.apply(variables, num, method=net.first_along)
            outside = jnp.full((num, channels), spec.levels, jnp.int32)
            start = (outside, jnp.zeros((*outside.shape, likelihood.size)))
            _, (row, raw) = generate(step, first, start, key, width)
            return jnp.moveaxis(row, 0, 1), jnp.moveaxis(raw, 0, 1)

        draw = draw_along if config.within == "autoregressive" else draw_row

        def step(carry: Carry, above: Element, t: Array, key: Array) -> tuple[Carry, Element]:
            carry, y = net.apply(variables, carry, above[0], t, label, method=net.step)
            return carry, draw(y, given[t], fixed[t], key)

        first = net.apply(variables, num, method=net.first)
        outside = jnp.full((num, width, channels), spec.levels, jnp.int32)
        start = (outside, jnp.zeros((*outside.shape, likelihood.size)))
        _, (rows, raw) = generate(step, first, start, key, height)
        return jnp.moveaxis(rows, 0, 1), jnp.moveaxis(raw, 0, 1)

    return autoregressive_model(
        "row_rnn",
        spec,
        config.class_conditional,
        init,
        raw_outputs,
        step_by_step,
        likelihood.log_prob,
    )
