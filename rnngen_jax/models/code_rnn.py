"""Code RNN: a recurrent network over a grid of codes, the prior that makes a VQ-VAE generate.

    log p(c) = Σ_t Σ_d log p(c[t, d] | c[t, <d], c[<t])

over places t in raster order, and over the depths d of a residual quantiser by a second, small
recurrence. Of two levels of codes each has a network of its own, and the bottom's is given the
top's codes: p(top) p(bottom | top). By itself it is a model of the grids of codes;
`config.tokenizer` makes it one of images (`models.two_stage`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import cells
from rnngen_jax.config import refuse_unread, require, require_at_least
from rnngen_jax.models.autoregressive import Steps, autoregressive_model, in_raster_order
from rnngen_jax.models.base import (
    Extra,
    Model,
    Params,
    Train,
    dropout_masks,
    require_classes,
    require_dropout,
)
from rnngen_jax.models.levels import Coarser
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
from rnngen_jax.modules.code_rnn import CodeRNN
from rnngen_jax.ops import factorised, likelihoods, orders
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(UnrolledConfig):
    """Choices of the code RNN; see `UnrolledConfig` for the others.

    Attributes:
      TOKENIZER: the model whose codes it is trained on unless `config.tokenizer` names a run of
        another; it has a section of its own.
      input_features: width D of the cells' inputs.
      previous: number of directly preceding places whose codes are inputs.
      above: number of earlier rows of which the 2·above + 1 nearest places are inputs.
      around: of two levels, the bottom's inputs are the top's codes at the place above and at
        `around` places to each side of it; not read for one level.
      position: the place of what is predicted is an input.
      class_conditional: the class is an input.
      deep_features: size of the cell over the depths of a place, of the same kind; not read for
        codes of one depth.
      dropout: rate for the inputs and outputs of the cell over places, one mask per image.
      heads: for codes of several values, how many levels each value has, such as 8x5x5 for the
        quantiser fsq:levels=8x5x5, or 2^9 for lfq:bits=9: each value has logits of its own. Empty
        for one logit per code.
      chained: with heads, a value's logits depend on the values before it.
    """

    TOKENIZER: ClassVar[str] = "vqvae"

    input_features: int = 64
    previous: int = 1
    above: int = 1
    around: int = 1
    position: bool = True
    class_conditional: bool = False
    deep_features: int = 64
    dropout: float = 0.0
    heads: str = ""
    chained: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_dropout(self.dropout)
        require_at_least(self, "config.model", 0, "previous", "above", "around")
        require_at_least(self, "config.model", 1, "input_features", "deep_features")
        allowed = "≥ 1 if config.model.above is 0"
        require(self.previous + self.above > 0, "config.model.previous", 0, allowed)
        self.levels()
        if not self.heads:
            refuse_unread(self, "config.model", "chained", ("heads",))

    def levels(self) -> tuple[int, ...]:
        """The numbers in `heads`.

        Raises:
          UserError: something else is there.
        """
        if not self.heads:
            return ()
        power = re.fullmatch(r"(\d+)\^(\d{1,2})", self.heads, re.ASCII)
        words = [power[1]] * int(power[2]) if power else self.heads.split("x")
        numbers = [int(word) for word in words if re.fullmatch(r"\d{1,7}", word, re.ASCII)]
        fits = len(numbers) == len(words) and min(numbers, default=0) >= 2
        allowed = "numbers ≥ 2 with x between, such as 8x5x5, or 2^9"
        require(fits, "config.model.heads", self.heads, allowed)
        return tuple(numbers)

    def likelihood(self, codes: int) -> PixelLikelihood:
        """The distribution of one of K codes.

        Raises:
          UserError: heads of another number of codes.
        """
        levels = self.levels()
        if not levels:
            return likelihoods.categorical(codes)
        allowed = f"numbers whose product is {codes}, the number of codes"
        require(math.prod(levels) == codes, "config.model.heads", self.heads, allowed)
        return factorised.heads(levels, self.chained)

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError`: the tokenizer and the counts of codes have no private gradients."""
        del player
        require(noise == 0, "config.optimizer.private_noise", noise, "0 for code_rnn")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for grids of codes like `spec`.

    Raises:
      UserError: an unknown cell, labels that the data do not have, or heads of other codes.
    """
    return build_level(config, spec)()


def build_level(
    config: Config, spec: ImageSpec, coarser: Coarser | None = None
) -> Callable[..., Model]:
    """Builds a level of `models.levels.over_levels`, given the codes of a coarser level, if any.

    Raises:
      UserError: as `build`.
    """
    require_classes(config.class_conditional, spec)
    height, width, depth = spec.shape
    likelihood = config.likelihood(spec.levels)
    cell = cell_of(config)
    deep = None
    if depth > 1:
        deep = cells.build(config.cell, config.deep_features, learned=config.learned_carry)
    place = orders.positions("raster", height, width)
    table = orders.neighbours("raster", height, width, config.previous, config.above)
    length = len(table)
    starts = np.arange(spec.dims, dtype=np.int32).reshape(length, depth)
    outside = np.full((1, depth), spec.dims, np.int32)
    context_codes = np.concatenate([starts, outside])[table].reshape(length, -1)
    net = CodeRNN(
        spec=spec,
        cell=cell,
        deep=deep,
        input_features=config.input_features,
        position=config.position,
        conditional=config.class_conditional,
        coarser=None if coarser is None else coarser.spec,
        size=likelihood.size,
        run=run_of(config),
    )

    def given(top: Array | None = None) -> Model:
        """The model, given the coarser level's codes `[B, h, w, depth]`."""

        def init(key: Array) -> tuple[Params, Extra]:
            context = jnp.zeros((length, 1, context_codes.shape[1]), jnp.int32)
            codes, label = jnp.zeros((length, 1, depth), jnp.int32), jnp.zeros(1, jnp.int32)
            variables = net.init(key, context, place, codes, label, None, around())
            return {"model": variables["params"]}, {}

        def around() -> Array | None:
            """The coarser level's codes around each place, `[T, B, N·depth]`."""
            return None if coarser is None else coarser.around(top)

        def raw_outputs(params: Params, image: Array, label: Array, train: Train) -> Array:
            sizes = config.input_features, cell.features
            masks = dropout_masks(train, sizes, config.dropout)
            values = in_raster_order(image).astype(jnp.int32)
            outside = jnp.full((1, values.shape[1]), spec.levels, jnp.int32)
            context = jnp.concatenate([values, outside])[context_codes]
            codes = jnp.swapaxes(values.reshape(length, depth, -1), 1, 2)
            variables = {"params": params["model"]}
            context = jnp.swapaxes(context, 1, 2)
            raw = net.apply(variables, context, place, codes, label, masks, around())
            return jnp.moveaxis(raw, 1, 0).reshape(-1, *spec.shape, likelihood.size)

        def first(params: Params, label: Array) -> Any:
            num, variables = label.shape[0], {"params": params["model"]}
            carry, inner = net.apply(variables, num, method=net.first)
            above = around()
            seen = None if above is None else net.apply(variables, above, method=net.see)
            return carry, jnp.zeros((num, cell.features)), label, inner, seen

        def raw(params: Params, state: Any, t: Array, turn: int, seen: Array) -> tuple[Any, Array]:
            """One step of the cell per place, and one of the cell over depths per code."""
            variables = {"params": params["model"]}
            carry, y, label, inner, above = state
            if turn == 0:
                context = seen[jnp.asarray(context_codes)[t]].T
                where = jnp.asarray(place)[t]
                own = None if above is None else above[t]
                carry, y = net.apply(variables, carry, context, where, label, own, method=net.step)
                _, inner = net.apply(variables, label.shape[0], method=net.first)
            before = jnp.full_like(label, spec.levels)
            if turn > 0:
                before = seen[t * depth + turn - 1]
            inner, outputs = net.apply(variables, inner, y, before, turn, method=net.read)
            return (carry, y, label, inner, above), outputs[:, None]

        return autoregressive_model(
            "code_rnn",
            spec,
            config.class_conditional,
            init,
            raw_outputs,
            Steps(starts[None], 1, first, raw),
            likelihood,
        )

    return given
