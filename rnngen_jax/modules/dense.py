"""Flax's dense layers, with products in the precision asked for (`ops.precision`)."""

import functools

from flax import linen as nn

from rnngen_jax.ops.precision import dot_general

Dense = functools.partial(nn.Dense, dot_general=dot_general)
DenseGeneral = functools.partial(nn.DenseGeneral, dot_general=dot_general)
