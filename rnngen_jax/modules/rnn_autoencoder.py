"""The network of the recurrent autoencoder: from patches to codes and back."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, initial_carry
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.latent import GaussianHead, affine, linear
from rnngen_jax.modules.pixels import PixelDense, Table
from rnngen_jax.modules.recurrent import Run
from rnngen_jax.ops import attention, gaussians
from rnngen_jax.ops.gaussians import Gaussian, Pick

Masks = tuple[Array, Array] | None


class DecoderCarry(NamedTuple):
    """The decoder's carry, and its previous output `[B, F]`, from which the query is made."""

    cell: Carry
    y: Array


class Codes(NamedTuple):
    """The decoder's view of the codes, constant over steps.

    Attributes:
      values: the codes as the decoder's inputs, `[S, B, D]`.
      keys: attention keys, `[S, B, D]`; `None` without attention, where S is 1.
    """

    values: Array
    keys: Array | None


class RNNAutoencoder(nn.Module):
    """A recurrent encoder and a recurrent decoder over the patches of an image.

    Attributes:
      encoder, decoder: any cells.
      steps: patches per image T.
      values: values per patch V.
      levels: grey levels.
      classes: classes of the decoder's label input; 0 for none.
      latents: Z per code.
      size: raw outputs P per value.
      encoding: "onehot" or "scalar", of pixel values.
      width: D of both cells' inputs.
      bidirectional: a second encoder reads the patches in reverse.
      gaussian: codes are drawn from Gaussians instead of being deterministic.
      attention: "additive", "dot", or "none" for a single code, of the last state.
      attend: with attention there is a code for each of the encoder's "states", or for each
        patch's "embedding".
      autoregressive: the decoder sees the previous patch.
      run: how the cells are run; a decoder with attention ignores its `strategy`, since it attends
        to the codes at each step.
    """

    encoder: Cell
    decoder: Cell
    steps: int
    values: int
    levels: int
    classes: int
    latents: int
    size: int
    encoding: str
    width: int
    bidirectional: bool
    gaussian: bool
    attention: str
    attend: str
    autoregressive: bool
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers; those in the decoder's loop are plain arrays."""
        width = self.width
        self.embed = PixelDense(width, self.levels, self.encoding)
        if self.attention == "none" or self.attend == "states":
            directions = ("forward", "backward")[: 1 + self.bidirectional]
            self.encoding_cells = {
                name: self.param(f"encoder_{name}", self.encoder.init, width) for name in directions
            }
        self.head = GaussianHead(self.latents) if self.gaussian else Dense(self.latents)
        self.code = Dense(width)
        self.place = Table(self.steps, width)
        if self.classes:
            self.label = Table(self.classes, width)
        if self.autoregressive:
            self.before = PixelDense(width, self.levels, self.encoding)
        self.decoding_cell = self.param("decoder", self.decoder.init, width)
        if self.attention != "none":
            self.key = Dense(width, use_bias=False)
            self.query = self.param("query", affine(), self.decoder.features, width)
        if self.attention == "additive":
            self.score = self.param("score", nn.initializers.normal(width**-0.5), (width,))
        self.readout = Dense(self.values * self.size)

    def infer(
        self,
        patches: Array,
        label: Array,
        noise: Array,
        masks: Masks,
        pick: Pick = gaussians.reparameterised,
    ) -> tuple[Array, Gaussian | None, Array]:
        """Encodes patches and decodes them.

        Args:
          patches: int `[T, B, V]`.
          label: int `[B]`.
          noise: standard normal noise for the codes, `[S, B, Z]`.
          masks: dropout masks for the decoder's inputs `[B, D]` and outputs `[B, F]`, or `None`.
          pick: `pick(posterior, noise) -> codes`, `[S, B, Z]` each.

        Returns:
          Codes `[S, B, Z]`, their posterior or `None`, and raw outputs `[T, B, V, P]`, given the
          earlier patches if the decoder is autoregressive.
        """
        found = self.head(self._seen(patches))
        posterior = found if self.gaussian else None
        codes = pick(found, noise) if self.gaussian else found
        return codes, posterior, self.decode(codes, label, patches, masks)

    def decode(
        self, codes: Array, label: Array, patches: Array | None = None, masks: Masks = None
    ) -> Array:
        """Raw outputs `[T, B, V, P]` from codes `[S, B, Z]`.

        Args:
          codes: `[S, B, Z]`.
          label: int `[B]`.
          patches: int `[T, B, V]`, for teacher forcing of an autoregressive decoder.
          masks: as in `infer`.
        """
        told = self.told(codes)
        xs = self.place(jnp.arange(self.steps))[:, None] + jnp.zeros_like(told.values[0])
        if self.classes:
            xs = xs + self.label(label)
        if self.autoregressive:
            assert patches is not None
            outside = jnp.full_like(patches[:1], self.levels)
            xs = xs + self.before(jnp.concatenate([outside, patches[:-1]]))
        if told.keys is None:
            xs = xs + told.values
        xs = xs if masks is None else xs * masks[0]
        ys = self._run(xs, told)
        return self._read(ys if masks is None else ys * masks[1])

    def told(self, codes: Array) -> Codes:
        """The decoder's view of codes `[S, B, Z]`, computed once for all steps."""
        values = self.code(codes)
        return Codes(values, None if self.attention == "none" else self.key(values))

    def first(self, batch: int) -> DecoderCarry:
        """The decoder's carry before the first step."""
        carry = initial_carry(self.decoder, self.decoding_cell, (batch,), jnp.float32)
        return DecoderCarry(carry, jnp.zeros((batch, self.decoder.features)))

    def step(
        self, carry: DecoderCarry, told: Codes, place: Array, before: Array, label: Array
    ) -> tuple[DecoderCarry, Array]:
        """One autoregressive step, from the previous patch int `[B, V]` to raw `[B, V, P]`."""
        x = self.place(place) + self.before(before)
        if self.classes:
            x = x + self.label(label)
        if told.keys is None:
            x = x + told.values[0]
        carry, y = self._advance(carry, x, told)
        return carry, self._read(y)

    def _seen(self, patches: Array) -> Array:
        """The encoder's features from which codes are made, `[S, B, D]`."""
        xs = nn.relu(self.embed(patches))
        if self.attention != "none" and self.attend == "embedding":
            return xs
        if not self.bidirectional:
            params = self.encoding_cells["forward"]
            _, ys = recurrence.unroll(self.encoder, params, xs, **self.run.options)
            return ys if self.attention != "none" else ys[-1:]
        cells = (self.encoder, self.encoder)
        _, ys = recurrence.bidirectional(*cells, dict(self.encoding_cells), xs, **self.run.options)
        if self.attention != "none":
            return ys
        forward, backward = jnp.split(ys, 2, axis=-1)
        return jnp.concatenate([forward[-1:], backward[:1]], axis=-1)

    def _run(self, xs: Array, told: Codes) -> Array:
        """Runs the decoder over all steps, `[T, B, D]` to `[T, B, F]`."""
        if told.keys is None:
            cell, params = self.decoder, self.decoding_cell
            return recurrence.unroll(cell, params, xs, **self.run.options)[1]
        asking = Cell(
            features=self.decoder.features,
            init=lambda key, in_features: {},
            carry=lambda batch, dtype: self.first(*batch),
            inputs=lambda params, xs: xs,
            step=lambda params, carry, x: self._advance(carry, x, told),
        )
        return recurrence.unroll(asking, {}, xs, remat=self.run.remat or None)[1]

    def _advance(self, carry: DecoderCarry, x: Array, told: Codes) -> tuple[DecoderCarry, Array]:
        """One step of the decoder, with attention over the codes if there is any."""
        if told.keys is not None:
            query = linear(self.query, carry.y)
            if self.attention == "additive":
                scores = attention.additive(query, told.keys, self.score)
            else:
                scores = attention.dot(query, told.keys)
            x = x + attention.weighted_mean(scores, told.values)
        inputs = self.decoder.inputs(self.decoding_cell, x)
        cell, y = self.decoder.step(self.decoding_cell, carry.cell, inputs)
        return DecoderCarry(cell, y), y

    def _read(self, ys: Array) -> Array:
        return self.readout(ys).reshape(*ys.shape[:-1], self.values, self.size)
