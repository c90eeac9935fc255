"""Lower bounds of the mutual information of a code and the image made from it (InfoGAN).

`I(c; G(z, c)) >= E[log Q(c|x)] + H(c)` (Chen et al. 2016, eqs. 4 and 5), here for each image and
with the prior's entropy, so that the mean over images is a bound in nats. It is what a generator
and Q maximise.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops import gaussians
from rnngen_jax.ops.gaussians import Gaussian


def categorical_bound(logits: Array, code: Array) -> Array:
    """`log Q(c|x) + log K`, `[B]` nats, of codes that are uniform over K classes.

    At most log K, which is reached where Q is sure and right; 0 where Q knows nothing.

    Args:
      logits: Q's, `[B, K]`.
      code: int `[B]` in `[0, K)`.
    """
    log_q = jnp.take_along_axis(jax.nn.log_softmax(logits), code[:, None], axis=-1)[:, 0]
    return log_q + math.log(logits.shape[-1])


def gaussian_bound(mean: Array, log_scale: Array, code: Array) -> Array:
    """`Σ log Q(c_n|x) + N log 2`, `[B]` nats, of N codes, each uniform in [-1, 1].

    Q is a diagonal Gaussian's density over all reals, so a bound of the information about a code
    that is never outside [-1, 1]; where Q is narrow and right there is no greatest value.

    Args:
      mean: `[B, N]`.
      log_scale: logarithm of the standard deviation, `[B, N]`.
      code: `[B, N]`.
    """
    log_q = gaussians.log_density(Gaussian(mean, log_scale), code).sum(-1)
    return log_q + code.shape[-1] * math.log(2.0)
