"""A generator of random numbers whose programs compile faster than those of JAX's own.

Nearly all programs draw, and most of all those that make a model's first parameters: with it they
compile in about half of the time that Threefry takes. Nothing but the numbers drawn depends on it.
Keys and counters go through a 32-bit hash that makes each bit of what it gives depend on each bit
of what it is given: C. Wellons, Prospecting for Hash Functions, 2018, `lowbias32`.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

ODD = 0x9E3779B1


def mixed(x):
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def counted(shape, start):
    """Hashes of as many counters as a shape has numbers."""
    counters = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return mixed(counters + jnp.uint32(start))


def seed(number):
    return mixed(jnp.asarray(number).astype(jnp.uint32) + jnp.uint32(ODD))[None]


def split(key, shape):
    return mixed(key[0] * jnp.uint32(ODD) + counted(shape, 1))[..., None]


def fold_in(key, number):
    number = jnp.asarray(number).astype(jnp.uint32)
    return mixed(key * jnp.uint32(ODD) + mixed(number + jnp.uint32(2**31)))


def random_bits(key, width, shape):
    if width == 64:
        high, low = (random_bits(fold_in(key, n), 32, shape).astype(jnp.uint64) for n in (0, 1))
        return (high << 32) | low
    found = mixed(key[0] + counted(shape, 3))
    return (found >> (32 - width)).astype(f"uint{width}")


IMPLEMENTATION = define_prng_impl(
    key_shape=(1,),
    seed=seed,
    split=split,
    random_bits=random_bits,
    fold_in=fold_in,
    name="quick",
    tag="quick",
)
