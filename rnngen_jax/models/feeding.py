"""What a model of frames is fed in training: the true frames, or its own predictions in part.

Scheduled sampling (Bengio et al. 2015) replaces true frames by the model's own, per sequence and
frame, more and more often; reverse scheduled sampling (Wang et al. 2023, section 3.4) also replaces
frames of the context, less and less often.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import nearest, options, require, require_at_least
from rnngen_jax.errors import UserError

WHERE = "config.model.feeding"


@dataclass(frozen=True)
class Teacher:
    """The true frames."""

    def own(self, step: Array, frames: int) -> Array | None:
        """No prediction is fed."""
        del step, frames
        return None


@dataclass(frozen=True)
class Scheduled:
    """Predictions of frames after the context are fed with a probability that rises linearly.

    Attributes:
      steps: training steps over which it rises from 0 to `rate`.
      context: number of frames at the beginning that are always fed as they are.
      rate: the probability in the end.
    """

    steps: int = 1000
    context: int = 1
    rate: float = 1.0

    def __post_init__(self) -> None:
        """Checks the options."""
        require_at_least(self, WHERE, 1, "steps", "context")
        require(0 <= self.rate <= 1, f"{WHERE}.rate", self.rate, "in [0, 1]")

    def own(self, step: Array, frames: int) -> Array:
        """The probability that a frame's prediction is fed instead of it, `[T]`."""
        risen = self.rate * jnp.minimum(step / self.steps, 1.0)
        return jnp.where(jnp.arange(frames) < self.context, 0.0, risen)


@dataclass(frozen=True)
class Reverse(Scheduled):
    """As `Scheduled`, and predictions of the context's frames are fed less and less often.

    The probability is 1/2 over the first half of `steps`, then falls linearly to 0. That of the
    first frame, which has no context, falls likewise.
    """

    def own(self, step: Array, frames: int) -> Array:
        """The probability that a frame's prediction is fed instead of it, `[T]`."""
        fallen = jnp.clip(1.0 - step / self.steps, 0.0, 0.5)
        given = jnp.arange(frames) < self.context
        return jnp.where(given, fallen, super().own(step, frames))


Feeding = Teacher | Scheduled
FEEDINGS = {"teacher": Teacher, "scheduled": Scheduled, "reverse": Reverse}


def from_spec(spec: str) -> Feeding:
    """The feeding that a spec string names, such as "scheduled:steps=2000,context=10".

    Raises:
      UserError: an unknown name or option, or a value out of range.
    """
    name, _, text = spec.partition(":")
    if name not in FEEDINGS:
        raise UserError(f"{WHERE}={spec!r} is unknown; {nearest(name, FEEDINGS)}")
    return FEEDINGS[name](**options(FEEDINGS[name], f"{WHERE} {name!r}", text))


def chosen(own: Array, key: Array, index: Array) -> Array:
    """Draws which frames are replaced by their predictions, bool `[T, B]`.

    Args:
      own: their probabilities, `[T]`.
      key: a random key.
      index: of the examples, int `[B]`.
    """
    each = keys.per_example(keys.named(key, "feeding"), index)
    return jax.vmap(lambda k: jax.random.uniform(k, own.shape) < own, out_axes=1)(each)
