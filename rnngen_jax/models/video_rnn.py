"""Video RNN: one frame per time step, any cell over vectors or over maps.

    log p(x) = Σ_t Σ_v log p(x[t, v] | x[<t]),   a frame's values independent given those before

With the objectives "cross_entropy" and "mse" it predicts the next frame without a likelihood.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry
from rnngen_jax.config import refuse_unread, require_at_least, require_choice
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
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
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
      maps: the cell has a state at each place of the encoder's map, with shared weights; otherwise
        one for the whole frame.
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
        if self.maps:
            refuse_unread(self, "config.model", "input_features", ("maps",))
        if self.objective != "likelihood":
            for field in ("readout", "mixtures"):
                refuse_unread(self, "config.model", field, ("objective",))
        require_mixture_read(self)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for sequences like `spec`.

    Raises:
      UserError: still images, an unknown cell, encoder or readout, or one unsuitable for the data.
    """
    require_frames("video_rnn", spec)
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
        cell=cell_of(config),
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
