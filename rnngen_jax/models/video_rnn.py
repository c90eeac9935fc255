"""Video RNN: one frame per time step, any cell over vectors or over maps.

    log p(x) = Σ_t Σ_v log p(x[t, v] | x[<t]),   a frame's values independent given those before

With the objectives "cross_entropy" and "mse" it predicts the next frame without a likelihood.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax import cells
from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.config import refuse_unread, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models import feeding
from rnngen_jax.models.base import Extra, Model, Params, require_classes, require_mixture_read
from rnngen_jax.models.frames import (
    OBJECTIVES,
    Network,
    by_likelihood,
    cross_entropy,
    model_of_frames,
    require_frames,
    squared_error,
)
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, refuse_lone_residual, run_of
from rnngen_jax.modules import frame_codings
from rnngen_jax.modules.video_rnn import VideoRNN, repeating
from rnngen_jax.ops import likelihoods
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(UnrolledConfig):
    """Choices of the video RNN; see `UnrolledConfig` for the others.

    Attributes:
      encoder: "convolutions", with options such as "convolutions:stages=2,features=16,kernel=4",
        or "patches:size=4", which makes each patch of pixels a place of the map.
      maps: the cell runs over the encoder's map, with a state at each place that sees those around
        it: "conv_lstm", "conv_gru", "st_lstm", or any cell that can be convolved. Otherwise there
        is one state for the whole frame.
      kernel: side of the convolutions of such a cell, odd; 1 leaves each place alone.
      input_features: width D of the first layer's inputs, without maps.
      last: the last frame's value is an input of each value's raw outputs, at first so that the
        frame is predicted once more.
      class_conditional: the class is an input.
      objective: "likelihood"; or "cross_entropy" with grey levels as probabilities, or "mse", which
        give expected frames and no likelihood.
      readout: "categorical" over the grey levels, "bernoulli", "logistic_mixture" or "gaussian".
      mixtures: components of the logistic mixture.
      feeding: what is fed in training: "teacher", the true frames;
        "scheduled:steps=1000,context=1,rate=1.0", more and more predictions after the context; or
        "reverse" with the same options, also fewer and fewer of the context.
    """

    encoder: str = "convolutions"
    maps: bool = False
    kernel: int = 3
    input_features: int = 128
    last: bool = True
    class_conditional: bool = False
    objective: str = "likelihood"
    readout: str = "categorical"
    mixtures: int = 5
    feeding: str = "teacher"

    def __post_init__(self) -> None:
        super().__post_init__()
        frame_codings.from_spec(self.encoder)
        feeding.from_spec(self.feeding)
        require_choice("config.model.objective", self.objective, OBJECTIVES)
        require_at_least(self, "config.model", 1, "input_features")
        refuse_unread(self, "config.model", "input_features" if self.maps else "kernel", ("maps",))
        if self.objective != "likelihood":
            for field in ("readout", "mixtures"):
                refuse_unread(self, "config.model", field, ("objective",))
        require_mixture_read(self)

    def check_cell(self) -> None:
        """Raises a `UserError` for a cell that there is not, over maps or over vectors."""
        if self.maps:
            cell_over_maps(self)
        else:
            super().check_cell()


def cell_over_maps(config: Config) -> Cell:
    """The cell over the encoder's map.

    Raises:
      UserError: a cell that cannot run over maps, or one with a term of its own in the loss.
    """
    cell = cells.build_maps(
        config.cell,
        config.features,
        config.kernel,
        layers=config.layers,
        residual=config.residual,
        learned=config.learned_carry,
    )
    if cell.terms:
        raise UserError(
            f"config.model.cell={config.cell!r} adds {', '.join(cell.terms)} to the loss, which "
            "video_rnn does not train; leave that option out."
        )
    return cell


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for sequences like `spec`.

    Raises:
      UserError: still images, an unknown cell, encoder or readout, or one unsuitable for the data.
    """
    require_frames("video_rnn", spec)
    refuse_lone_residual(config)
    require_classes(config.class_conditional, spec)
    if config.objective == "likelihood":
        kind = config.readout
        readout = by_likelihood(likelihoods.make(kind, spec.levels, config.mixtures))
    elif config.objective == "cross_entropy":
        kind, readout = "bernoulli", cross_entropy(spec.levels)
    else:
        kind, readout = "mean", squared_error(spec.levels)
    coding = frame_codings.from_spec(config.encoder)
    coding.map(spec)
    net = VideoRNN(
        spec=spec,
        readout_size=readout.size,
        cell=cell_over_maps(config) if config.maps else cell_of(config),
        coding=coding,
        maps=config.maps,
        input_features=config.input_features,
        conditional=config.class_conditional,
        last=repeating(kind, readout.size) if config.last else None,
        run=run_of(config),
    )

    def init(key: Array) -> tuple[Params, Extra]:
        frames = jnp.zeros((1, 1, *spec.shape[1:]))
        variables = net.init(key, frames, jnp.zeros(1, jnp.int32))
        return {"model": variables["params"]}, {}

    def every(params: Params, frames: Array, label: Array) -> Array:
        return net.apply({"params": params["model"]}, frames, label)

    def first(params: Params, batch: int) -> Carry:
        return net.apply({"params": params["model"]}, batch, method=net.first)

    def step(
        params: Params, carry: Carry, before: Array, begun: Array, label: Array
    ) -> tuple[Carry, Array]:
        variables = {"params": params["model"]}
        return net.apply(variables, carry, before, begun, label, method=net.step)

    return model_of_frames(
        "video_rnn",
        spec,
        config.class_conditional,
        init,
        Network(every, first, step),
        readout,
        feeding.from_spec(config.feeding),
        remat=config.remat > 0,
    )
