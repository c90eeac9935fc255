"""Small models of frames with random parameters, for tests."""

import itertools

import jax
import numpy as np

from rnngen_jax import models

SMALL = {"features": 6, "input_features": 5, "encoder": "convolutions:features=4,kernel=2"}


def built(fields, spec, seed=0):
    """The model with random parameters, biases included."""
    model = models.build("video_rnn", SMALL | fields, spec)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.4 if leaf.ndim < 2 else 1.5 / np.sqrt(leaf.shape[-2])
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return model, jax.tree.map(draw, shapes), extra


def batch_of(frames, label=0):
    """A batch of sequences that all have the same label."""
    num = len(frames)
    return {
        "frames": frames,
        "label": np.full(num, label, np.int32),
        "index": np.arange(num, dtype=np.int32),
    }


def random_frames(spec, num=6, seed=1):
    return np.random.default_rng(seed).integers(0, spec.levels, (num, *spec.shape), spec.dtype)


def every_sequence(spec):
    values = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(values), spec.dtype).reshape(-1, *spec.shape)


def digits_of(frames, spec):
    """The number of each sequence in the order of `every_sequence`."""
    base = spec.levels ** np.arange(spec.dims)[::-1]
    return np.asarray(frames).reshape(len(frames), -1) @ base
