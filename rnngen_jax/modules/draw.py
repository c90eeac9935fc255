"""The network of DRAW, with the equation numbers of Gregor et al. 2015."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, initial_carry, stepper
from rnngen_jax.modules.latent import affine, linear, scaled
from rnngen_jax.ops import gaussians, windows
from rnngen_jax.ops.gaussians import Gaussian, Pick
from rnngen_jax.shapes import ImageSpec

# Scale of the parameter "blank" on the first canvas. Raw outputs end far from zero, at -5 where an
# image is black, and Adam moves a parameter by about its learning rate. Without the scale, the
# windows spend the first thousands of steps on blackening the background, and windows that have
# become large no longer learn to follow strokes.
BLANK_SCALE = 10.0


class DrawCarry(NamedTuple):
    """DRAW's carry.

    Attributes:
      canvas: the raw outputs so far, `[B, H W C, P]`: one axis, as loops along short rows are slow.
      seen: the decoder's output at the previous step, an input of the encoder, `[B, F]`; before the
        first step a parameter, as a cell's output is not part of its carry.
      encoder, decoder: the two cells' carries; the encoder's is constant when latents are given.
    """

    canvas: Array
    seen: Array
    encoder: Carry
    decoder: Carry


class Trace(NamedTuple):
    """Results of each step of an unrolled DRAW.

    Attributes:
      latents: `[T, B, Z]`.
      posterior: q of each step, `[T, B, Z]`; `None` when latents are given.
      canvases: `[T, B, H, W, C P]`, or `None`.
      read, write: attention windows' boxes `[T, B, 4]`, or `None`.
    """

    latents: Array
    posterior: Gaussian | None
    canvases: Array | None = None
    read: Array | None = None
    write: Array | None = None


class Draw(nn.Module):
    """A recurrent encoder that reads the image, and a recurrent decoder that writes the canvas.

    The encoder's inputs are, in this order: class, image and error (or a window's patches of
    these), and the decoder's output; the decoder's are class and latents.

    Attributes:
      encoder, decoder: any cells.
      spec: the images.
      latents: Z per step.
      size: raw outputs P per value.
      mean: `mean(raw [..., P]) -> [...]`, the expected value of raw outputs, in [0, 1].
      read_size, write_size: filters per side of the attention windows; 0 for no attention.
      conditional: the class is an input of both cells.
      remat: keeps every `remat`-th carry in training; 0 keeps all.
    """

    encoder: Cell
    decoder: Cell
    spec: ImageSpec
    latents: int
    size: int
    mean: Callable[[Array], Array]
    read_size: int
    write_size: int
    conditional: bool
    remat: int = 0

    def setup(self) -> None:
        """Declares the parameters; the step is a plain function of them, as it runs in a loop."""
        height, width, channels = self.spec.shape
        classes = self.spec.classes if self.conditional else 0
        seen = self.decoder.features
        patch = 2 * channels * (self.read_size**2 or height * width)
        values = channels * self.size
        parts = {
            "encoder": self.param("encoder", self.encoder.init, patch + seen + classes),
            "decoder": self.param("decoder", self.decoder.init, self.latents + classes),
            "posterior": self.param(
                "posterior",
                affine(jnp.repeat(jnp.array([1.0, 0.1]), self.latents)),
                self.encoder.features,
                2 * self.latents,
            ),
            "blank": self.param("blank", nn.initializers.zeros, (height, width, values)),
            "seen": self.param("seen", nn.initializers.zeros, (seen,)),
            "write": self.param(
                "write", affine(), seen, values * (self.write_size**2 or height * width)
            ),
        }
        for name, size in (("read_window", self.read_size), ("write_window", self.write_size)):
            if size:
                start = windows.covering(height, width, size, writes=name == "write_window")
                parts[name] = self.param(name, affine(0.1, start), seen, windows.PARAMETERS)
        self.parts = parts

    def infer(
        self,
        image: Array,
        label: Array,
        noise: Array,
        pick: Pick = gaussians.reparameterised,
    ) -> tuple[Trace, Array]:
        """Encodes an image and reconstructs it (eqs. 3-8).

        Args:
          image: int `[B, H, W, C]`.
          label: int `[B]`.
          noise: standard normal noise for the latents, `[T, B, Z]`.
          pick: `pick(posterior, noise) -> latents` of a step, `[B, Z]` each.

        Returns:
          The trace, and the last canvas's raw outputs `[B, H, W, C, P]`.
        """
        image, label = scaled(image, self.spec.levels), self._classes(label)
        flat = image.reshape(len(image), -1)
        known = label if self.read_size else jnp.concatenate([label, flat], axis=-1)
        encode = stepper(self.encoder, self.parts["encoder"], known)
        decode = stepper(self.decoder, self.parts["decoder"], label)

        # The backward pass rematerialises all but the linear maps' products, which is cheaper than
        # storing everything.
        @functools.partial(
            jax.checkpoint,
            prevent_cse=False,
            policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        )
        def step(params: Any, carry: DrawCarry, noise: Array) -> tuple[DrawCarry, Trace]:
            looked = flat - self.mean(carry.canvas)  # (3)
            if self.read_size:
                looked = self._read(carry.seen, image, looked.reshape(image.shape))  # (4)
            inputs = jnp.concatenate([looked, carry.seen], axis=-1)
            encoder, h = encode(carry.encoder, inputs)  # (5)
            posterior = Gaussian(*jnp.split(linear(self.parts["posterior"], h), 2, axis=-1))
            z = pick(posterior, noise)  # (6)
            return self._write(decode, carry._replace(encoder=encoder), z), Trace(z, posterior)

        carry, trace = self._unroll(step, noise)
        return trace, self._images(carry.canvas)

    def draw(self, latents: Array, label: Array) -> tuple[Trace, Array]:
        """Decodes latents `[T, B, Z]` into an image (eqs. 7-8); the trace has the canvases."""
        decode = stepper(self.decoder, self.parts["decoder"], self._classes(label))

        def step(params: Any, carry: DrawCarry, z: Array) -> tuple[DrawCarry, Trace]:
            read = write = None
            if self.read_size:
                window = self._window("read_window", carry.seen, self.read_size)
                read = windows.box(window, self.read_size)
            carry = self._write(decode, carry, z)
            if self.write_size:
                window = self._window("write_window", carry.seen, self.write_size)
                write = windows.box(window, self.write_size)
            return carry, Trace(z, None, carry.canvas, read, write)

        carry, trace = self._unroll(step, latents)
        return trace._replace(canvases=self._images(trace.canvases)), self._images(carry.canvas)

    def _unroll(self, step: Callable[..., Any], xs: Array) -> tuple[DrawCarry, Trace]:
        """Runs the steps from the learned first canvas and the cells' initial carries."""

        def first(params: Any, batch: tuple[int, ...], dtype: Any) -> DrawCarry:
            canvas = BLANK_SCALE * self.parts["blank"].reshape(-1, self.size)
            encoder, decoder = (
                initial_carry(cell, self.parts[name], batch, dtype)
                for name, cell in (("encoder", self.encoder), ("decoder", self.decoder))
            )
            canvas = jnp.broadcast_to(canvas, (*batch, *canvas.shape))
            seen = jnp.broadcast_to(self.parts["seen"], (*batch, self.decoder.features))
            return DrawCarry(canvas, seen, encoder, decoder)

        whole = Cell(
            features=self.latents,
            init=lambda key, in_features: {},
            carry=lambda batch, dtype: first({}, batch, dtype),
            inputs=lambda params, xs: xs,
            step=step,
        )
        return recurrence.unroll(whole, {}, xs, remat=self.remat or None)

    def _read(self, seen: Array, image: Array, error: Array) -> Array:
        """The window's patches of the image and of the error, flat (eq. 27)."""
        window = self._window("read_window", seen, self.read_size)
        patches = (windows.read(window, x, self.read_size) for x in (image, error))
        return jnp.concatenate([patch.reshape(len(patch), -1) for patch in patches], axis=-1)

    def _write(self, decode: Callable[..., Any], carry: DrawCarry, z: Array) -> DrawCarry:
        """One step of the decoder and its write to the canvas (eqs. 7, 8, 18, 28, 29)."""
        height, width, _ = self.spec.shape
        decoder, h = decode(carry.decoder, z)
        added = linear(self.parts["write"], h)
        if self.write_size:
            patch = added.reshape(h.shape[0], self.write_size, self.write_size, -1)
            window = self._window("write_window", h, self.write_size)
            added = windows.write(window, patch, height, width)
        canvas = carry.canvas + added.reshape(carry.canvas.shape)
        return carry._replace(canvas=canvas, seen=h, decoder=decoder)

    def _window(self, name: str, seen: Array, size: int) -> windows.Window:
        height, width, _ = self.spec.shape
        return windows.window(linear(self.parts[name], seen), height, width, size)

    def _classes(self, label: Array) -> Array:
        """The class as `[B, classes]`, or `[B, 0]`."""
        return jax.nn.one_hot(label, self.spec.classes if self.conditional else 0)

    def _images(self, canvas: Array) -> Array:
        """`[..., H W C, P]` as `[..., H, W, C, P]`."""
        return canvas.reshape(*canvas.shape[:-2], *self.spec.shape, self.size)
