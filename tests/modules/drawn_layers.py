"""Layers with random parameters in float64, for tests against equations written out in NumPy."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn


def applied(layer: nn.Module, *inputs: Any) -> tuple[dict, Any]:
    """Random parameters, and the module's outputs with them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *inputs))["params"]
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) / 2, shapes)
    with jax.enable_x64(True):
        outputs = jax.jit(lambda p, inputs: layer.apply({"params": p}, *inputs))(params, inputs)
    return params, outputs
