"""Pixel RNN: the image as a sequence, each pixel one time step, any cell.

    log p(x) = Σ_t Σ_c log p(x[t, c] | x[t, <c], x[<t])     (van den Oord et al. 2016, eqs. 1-2)

With `previous=1`, `above=0` and `position=False` it is the plain textbook generator that is fed its
last pixel; looking at the pixels above as well lets one dimension of recurrence see two.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax import cells
from rnngen_jax.cells.base import Carry
from rnngen_jax.config import require
from rnngen_jax.models.base import (
    Extra,
    Model,
    Params,
    autoregressive_model,
    dropout_masks,
    require_classes,
    require_dropout,
)
from rnngen_jax.modules.pixel_rnn import PixelRNN
from rnngen_jax.modules.pixels import draw_pixel, require_encoding
from rnngen_jax.ops import likelihoods, orders
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

Element = tuple[Array, Array]  # a pixel [B, C] and the raw outputs [B, C, P] it was drawn from


@dataclass(frozen=True)
class Config:
    """Choices of the pixel RNN.

    Attributes:
      cell: a cell and its options, such as "gru" or "lstm:forget_bias=0".
      features: size F of the cell.
      layers: cells on top of one another.
      residual: adds each layer's inputs to its outputs, from the second layer on.
      learned_carry: trains the first carry instead of starting from zeros.
      input_features: width D of what the first layer reads.
      pixels: "onehot" gives each grey level a weight of its own, "scalar" scales it to [-1, 1].
      previous: how many pixels just before the next one are inputs.
      above: from how many finished lines nearby pixels are inputs, 2·above + 1 of each.
      position: the row and column of the next pixel are inputs.
      class_conditional: the class is an input.
      order: "raster", "serpentine" or "column".
      readout: "categorical" over the grey levels, "bernoulli" or "logistic_mixture".
      mixtures: components of the logistic mixture.
      readout_hidden: units of a hidden layer between the cell and the readout, 0 for none.
      dropout: rate for the cell's inputs and outputs, one mask an image.
      remat: steps between kept carries in training, to save memory; 0 keeps all.
    """

    cell: str = "gru"
    features: int = 128
    layers: int = 1
    residual: bool = False
    learned_carry: bool = False
    input_features: int = 64
    pixels: str = "onehot"
    previous: int = 1
    above: int = 1
    position: bool = True
    class_conditional: bool = False
    order: str = "raster"
    readout: str = "categorical"
    mixtures: int = 5
    readout_hidden: int = 0
    dropout: float = 0.0
    remat: int = 0

    def __post_init__(self) -> None:
        require_encoding(self.pixels)
        require_dropout(self.dropout)
        for name in ("previous", "above", "readout_hidden", "remat"):
            value = getattr(self, name)
            require(value >= 0, f"config.model.{name}", value, "0 or more")
        require(self.previous + self.above > 0, "config.model.previous", 0, "1 or more, or above")
        require(self.input_features > 0, "config.model.input_features", self.input_features, "1+")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell, order or readout, or one that does not fit the images.
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
    place = orders.positions(config.order, height, width)
    table = orders.neighbours(config.order, height, width, config.previous, config.above)
    length, count = table.shape
    net = PixelRNN(
        cell=cell,
        spec=spec,
        readout_size=likelihood.size,
        input_features=config.input_features,
        encoding=config.pixels,
        position=config.position,
        conditional=config.class_conditional,
        readout_hidden=config.readout_hidden,
        remat=config.remat,
    )

    def init(key: Array) -> tuple[Params, Extra]:
        context = jnp.zeros((length, 1, count * channels), jnp.int32)
        values, label = jnp.zeros((length, 1, channels), jnp.int32), jnp.zeros(1, jnp.int32)
        variables = net.init(key, context, place, values, label)
        return {"model": variables["params"]}, {}

    def gather(sequence: Array, rows: Array) -> Array:
        """Neighbours `rows [..., K]` from `sequence [T + 1, B, C]`, to `[..., B, K·C]`."""
        found = jnp.moveaxis(sequence[rows], -3, -2)
        return found.reshape(*found.shape[:-2], count * channels)

    def raw_outputs(
        params: Params, image: Array, label: Array, train: tuple[Array, Array] | None
    ) -> Array:
        masks = None
        if train is not None and config.dropout:
            sizes = config.input_features, cell.features
            masks = dropout_masks(*train, sizes, config.dropout)
        sequence = orders.to_sequence(image, config.order).astype(jnp.int32)
        outside = jnp.full((1, *sequence.shape[1:]), spec.levels, jnp.int32)
        context = gather(jnp.concatenate([sequence, outside]), jnp.asarray(table))
        raw = net.apply({"params": params["model"]}, context, place, sequence, label, masks)
        return orders.from_sequence(raw, config.order, height, width)

    def step_by_step(
        params: Params,
        key: Array,
        image: Array,
        known: Array,
        label: Array,
        temperature: Array | float,
    ) -> tuple[Array, Array]:
        """Pixel by pixel in order; each is given all pixels before it, known or drawn."""
        num = image.shape[0]
        variables = {"params": params["model"]}
        given = orders.to_sequence(image, config.order).astype(jnp.int32)
        fixed = orders.to_sequence(known[..., None], config.order)[..., 0]
        tables, places = jnp.asarray(table), jnp.asarray(place)

        def step(
            state: tuple[Carry, Array], _: Element, t: Array, key: Array
        ) -> tuple[tuple[Carry, Array], Element]:
            carry, drawn = state
            context = gather(drawn, tables[t])
            carry, y = net.apply(variables, carry, context, places[t], label, method=net.step)
            pixel, raw = draw_pixel(
                lambda values: net.apply(variables, y, values, method=net.read),
                likelihood.draw,
                key,
                given[t],
                fixed[t],
                temperature,
            )
            return (carry, drawn.at[t].set(pixel)), (pixel, raw)

        first = net.apply(variables, num, method=net.first)
        drawn = jnp.full((length + 1, num, channels), spec.levels, jnp.int32)
        pixel = jnp.zeros((num, channels), jnp.int32)
        start = (pixel, jnp.zeros((*pixel.shape, likelihood.size)))
        _, (sequence, raw) = generate(step, (first, drawn), start, key, length)
        completed = orders.from_sequence(sequence, config.order, height, width)
        return completed, orders.from_sequence(raw, config.order, height, width)

    return autoregressive_model(
        "pixel_rnn",
        spec,
        config.class_conditional,
        init,
        raw_outputs,
        step_by_step,
        likelihood.log_prob,
    )
