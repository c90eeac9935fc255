"""Helpers shared by the notebooks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rnngen_jax import models
from rnngen_jax.data import load
from rnngen_jax.data.base import DataConfig


def digits(binarisation="none"):
    """The embedded 8×8 digits: the data set, and the images `[N, 8, 8, 1]` of each split."""
    dataset = load(DataConfig(binarisation=binarisation))
    splits = dataset.splits.items()
    return dataset, {name: split.read(np.arange(split.num))[0] for name, split in splits}


def batch_of(image, index=None):
    """A model's batch from images `[B, H, W, C]`, all of class 0."""
    num = len(image)
    index = np.arange(num, dtype=np.int32) if index is None else index
    return {"image": image, "label": np.zeros(num, np.int32), "index": index}


def sigma(a):
    """The logistic function."""
    return 1 / (1 + np.exp(-a))


def drawn(init, *arguments):
    """Normal parameters in the shapes that `init` makes, including biases.

    Their scale is 0.5; they are float64 if JAX enables it, otherwise float32.
    """
    rng = np.random.default_rng(1)
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    shapes = jax.eval_shape(lambda key: init(key, *arguments), jax.random.key(0))
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(dtype), shapes)


def distance(expected, given):
    """The largest difference between two trees of arrays, relative for arrays that exceed 1."""
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(given), strict=True)
    return max(np.abs(a - b).max() / max(1, np.abs(a).max()) for a, b in pairs)


def agree(name, expected, given, tolerance=1e-10):
    """Asserts that two trees of float64 arrays are equal, and prints their distance."""
    worst = distance(expected, given)
    print(f"{name:48} {worst:.0e}")
    assert worst <= tolerance, (name, worst)


def agree_in_both_precisions(name, expected, function, *arguments, tolerance=1e-6):
    """Asserts that `function(*arguments)` equals `expected` in float64 and in float32.

    All results must have the precision of their arguments.
    """
    worst = {}
    for dtype in ("float64", "float32"):
        cast = jax.tree.map(functools.partial(np.asarray, dtype=dtype), arguments)
        given = jax.tree.map(np.asarray, jax.jit(function)(*cast))
        assert all(array.dtype == dtype for array in jax.tree.leaves(given))
        worst[dtype] = distance(expected, given)
        assert worst[dtype] <= tolerance, (name, worst)
    print(f"{name:32} float64 {worst['float64']:.0e}   float32 {worst['float32']:.0e}")


def last_pixel_rnn(cell, features, spec):
    """A pixel RNN whose only input is the previous pixel; earlier ones must be remembered."""
    choices = {"cell": cell, "features": features, "input_features": features}
    choices |= {"previous": 1, "above": 0, "position": False}
    return models.build("pixel_rnn", choices, spec)


@functools.partial(jax.jit, static_argnames=("cell", "features", "spec", "steps"))
def train_last_pixel_rnn(params, images, seed, *, cell, features, spec, steps=150):
    """Trains by Adam on batches of 32 images: parameters, and bits per dimension of each step."""
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    gradient = jax.grad(last_pixel_rnn(cell, features, spec).losses["model"], has_aux=True)

    def step(state, t):
        params, moments = state
        key = jax.random.fold_in(jax.random.key(seed), t)
        chosen = images[jax.random.randint(key, (32,), 0, len(images))]
        slope, aux = gradient(params, {}, batch_of(chosen), key, t)
        updates, moments = optimiser.update(slope, moments, params)
        return (optax.apply_updates(params, updates), moments), aux.metrics["bits_per_dim"]

    (params, _), bits = jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(steps))
    return params, bits
