"""The network of the video RNN: from the frames so far to raw outputs of the next one."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.frame_codings import FrameCoding
from rnngen_jax.modules.pixels import Table
from rnngen_jax.modules.recurrent import Recurrent, Run
from rnngen_jax.shapes import ImageSpec


class VideoRNN(nn.Module):
    """The previous frame's encoding goes through a recurrent cell to the next frame's decoding.

    Frames are float32, values in [0, 1]. What comes before the first frame is all zeros, as is a
    flag beside each pixel's values, which is 1 within a sequence.

    Attributes:
      spec: the frames.
      readout_size: raw outputs P per value.
      cell: the recurrent cell over time.
      coding: the encoder and decoder of a frame.
      maps: whether the cell's inputs and outputs are maps `[B, h, w, F]`, so that each place has a
        state of its own; otherwise the whole frame is one vector.
      input_features: width D of the cell's inputs, of vectors alone.
      conditional: adds an embedding of the class to the cell's inputs.
      last: the initial weights of the last frame's value and of its flag in that value's raw
        outputs, `[2, P]`; `None` without this connection.
      run: how the cell is run over frames.
    """

    spec: ImageSpec
    readout_size: int
    cell: Cell
    coding: FrameCoding
    maps: bool
    input_features: int
    conditional: bool
    last: tuple[tuple[float, ...], tuple[float, ...]] | None
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        spec = self.spec
        height, width, features = self.coding.map(spec)
        self.encoder = self.coding.encoder(spec)
        inputs = features if self.maps else self.input_features
        if not self.maps:
            self.into, self.out_of = Dense(inputs), Dense(height * width * features)
        if self.conditional:
            self.label = Table(spec.classes, inputs)
        self.recurrent = Recurrent(self.cell, inputs, self.run)
        self.decoder = self.coding.decoder(spec, spec.channels * self.readout_size)
        if self.last is not None:
            self.again = self.param("last", lambda _: jnp.asarray(self.last, jnp.float32))

    def __call__(self, frames: Array, label: Array) -> Array:
        """Raw outputs for all frames at once, each given the true frames before it.

        Args:
          frames: `[T, B, H, W, C]`.
          label: int `[B]`.

        Returns:
          `[T, B, H, W, C, P]`.
        """
        before = jnp.concatenate([jnp.zeros_like(frames[:1]), frames[:-1]])
        begun = jnp.arange(frames.shape[0]) > 0
        return self._decode(self.recurrent(self._embed(before, begun, label)), before, begun)

    def first(self, batch: int) -> Carry:
        """The carry before the first frame."""
        places = self.coding.map(self.spec)[:2] if self.maps else ()
        return self.recurrent.first((batch, *places), jnp.float32)

    def step(self, carry: Carry, before: Array, begun: Array, label: Array) -> tuple[Carry, Array]:
        """One frame.

        Args:
          carry: of the cell.
          before: the previous frame, `[B, H, W, C]`; anything if there is none.
          begun: bool scalar: whether there is a previous frame.
          label: int `[B]`.

        Returns:
          The carry, and raw outputs of this frame, `[B, H, W, C, P]`.
        """
        before, begun = jnp.where(begun, before, 0.0)[None], begun[None]
        carry, y = self.recurrent.step(carry, self._embed(before, begun, label)[0])
        return carry, self._decode(y[None], before, begun)[0]

    def _embed(self, before: Array, begun: Array, label: Array) -> Array:
        """Previous frames `[T, B, H, W, C]` and flags `[T]` to the cell's inputs."""
        time, batch, height, width, _ = before.shape
        flags = jnp.broadcast_to(
            begun[:, None, None, None, None].astype(before.dtype), (*before.shape[:-1], 1)
        )
        pixels = jnp.concatenate([before, flags], axis=-1)
        x = self.encoder(pixels.reshape(time * batch, height, width, -1))
        if not self.maps:
            x = self.into(x.reshape(time * batch, -1))
        x = x.reshape(time, batch, *x.shape[1:])
        if self.conditional:
            of_class = self.label(label)
            x = x + of_class.reshape(batch, *(1,) * (x.ndim - 3), -1)
        return x if self.maps else nn.relu(x)

    def _decode(self, y: Array, before: Array, begun: Array) -> Array:
        """The cell's outputs `[T, B, ..., F]` to raw outputs `[T, B, H, W, C, P]`."""
        time, batch = y.shape[:2]
        y = y.reshape(time * batch, *y.shape[2:])
        if not self.maps:
            y = nn.relu(self.out_of(y)).reshape(time * batch, *self.coding.map(self.spec))
        raw = self.decoder(y).reshape(*before.shape, self.readout_size)
        if self.last is None:
            return raw
        flags = begun[(slice(None), *[None] * before.ndim)].astype(raw.dtype)
        return raw + before[..., None] * self.again[0] + flags * self.again[1]


def repeating(kind: str, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights `[2, P]` of a frame's value in [0, 1] and of its flag that predict it once more.

    Args:
      kind: of the likelihood, as in `ops.likelihoods.make`, or "mean" for outputs in [0, 1].
      size: P.
    """
    value, flag = np.zeros(size), np.zeros(size)
    if kind == "mean":
        value[:] = 1.0
    elif kind == "bernoulli":
        value[:], flag[:] = 4.0, -2.0
    elif kind == "categorical":  # logits that are linear in the level, and in the value
        level = np.linspace(-1.0, 1.0, size)
        value, flag = 4.0 * level, -2.0 * level
    else:  # means in [-1, 1]
        means = slice(0, 1) if kind == "gaussian" else slice(size // 3, 2 * size // 3)
        value[means], flag[means] = 2.0, -1.0
    return tuple(map(float, value)), tuple(map(float, flag))
