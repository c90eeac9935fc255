"""Images through their codes alone: the codes of any number of images, and images from codes."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import sampling
from rnngen_jax.evaluation.batching import Track
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.models.codes import Lossy


def lossy_of(model: Model) -> Lossy:
    """A model's coding of images by their codes alone.

    Raises:
      UserError: the model has no codes of images.
    """
    if model.lossy is None:
        raise UserError(
            f"{model.name} has no codes of images, which alone are kept with loss; leave --lossy "
            "out, or use a run of a model with a codebook, such as vqvae or code_rnn."
        )
    return model.lossy


def encoder(model: Model, track: Track = iter) -> Callable[..., np.ndarray]:
    """`encode(params, extra, images) -> codes [N, 1, V, 1]`, all of an image in a row.

    Raises:
      UserError: the model has no codes of images.
    """
    return sampling.mapped(lossy_of(model).encode, track)


def decoder(model: Model, track: Track = iter) -> Callable[..., np.ndarray]:
    """`decode(params, extra, codes) -> images [N, H, W, C]`, of the spec's dtype.

    They are the expected images given the codes, at the nearest grey levels. Nothing is drawn, and
    the expectation has the least expected squared error: most probable values have far larger ones.

    Raises:
      UserError: the model has no codes of images.
    """
    expected, spec = lossy_of(model).decode, model.spec

    def decode(params: Params, extra: Extra, codes: Array) -> Array:
        values = jnp.rint(expected(params, extra, codes) * (spec.levels - 1))
        return values.astype(spec.dtype)

    return sampling.mapped(decode, track)
