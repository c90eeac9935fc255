"""Lower bounds on the mutual information of a code and the image generated from it (InfoGAN).

`I(c; G(z, c)) >= E[log Q(c|x)] + H(c)` (Chen et al. 2016, eqs. 4 and 5), here per image and
including the prior's entropy, so the mean over images is a bound in nats. Generator and Q maximise
it.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops import gaussians
from rnngen_jax.ops.gaussians import Gaussian


def categorical_bound(logits: Array, code: Array) -> Array:
    """`log Q(c|x) + log K`, `[B]` nats, of codes that are uniform over K classes.

    At most log K, where Q is certain and right; 0 where Q is uniform.

    Args:
      logits: Q's, `[B, K]`.
      code: int `[B]` in `[0, K)`.
    """
    log_q = jnp.take_along_axis(jax.nn.log_softmax(logits), code[:, None], axis=-1)[:, 0]
    return log_q + math.log(logits.shape[-1])


def gaussian_bound(mean: Array, log_scale: Array, code: Array) -> Array:
    """`Σ log Q(c_n|x) + N log 2`, `[B]` nats, of N codes, each uniform in [-1, 1].

    Q is a diagonal Gaussian density over all reals, so this still bounds the information about a
    code confined to [-1, 1]; it has no maximum, as a Q that is right may be arbitrarily narrow.

    Args:
      mean: `[B, N]`.
      log_scale: logarithm of the standard deviation, `[B, N]`.
      code: `[B, N]`.
    """
    log_q = gaussians.log_density(Gaussian(mean, log_scale), code).sum(-1)
    return log_q + code.shape[-1] * math.log(2.0)
