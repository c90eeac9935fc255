"""Small recurrent autoencoders with random parameters, for tests."""

from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.models import rnn_autoencoder
from rnngen_jax.models.base import Model
from rnngen_jax.models.latent import latent_model
from rnngen_jax.models.latent_networks import Network
from rnngen_jax.shapes import ImageSpec

SMALL = {"cell": "gru", "features": 5, "input_features": 6, "latents": 2}
TOLD = {"decoder": "autoregressive"}


def name_of(value: Any) -> str | None:
    """The id of fields or a spec in test reports."""
    if isinstance(value, ImageSpec):
        return f"{value.height}x{value.width}x{value.channels}"
    return "-".join(map(str, value.values())) if isinstance(value, dict) else None


class Made(NamedTuple):
    """A model with random parameters, and its encoder and decoder."""

    model: Model
    network: Network
    params: dict[str, Any]


def made(fields: dict[str, Any], spec: ImageSpec, seed: int = 0, gain: float = 1.5) -> Made:
    """The autoencoder with random parameters, biases included."""
    networks = []

    def kept(name, spec, conditional, network, *rest):
        networks.append(network)
        return latent_model(name, spec, conditional, network, *rest)

    with mock.patch.object(rnn_autoencoder, "latent_model", kept):
        model = models.build("rnn_autoencoder", SMALL | fields, spec)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.4 if leaf.ndim < 2 else gain / np.sqrt(leaf.shape[-2])
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return Made(model, networks[0], jax.tree.map(draw, shapes))
