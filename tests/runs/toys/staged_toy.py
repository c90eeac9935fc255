"""A toy of two stages: a code for each item, from a prior that is learned, then the item given it.

The "tokenizer" is frozen: E_k, a distribution over values for each of K codes, drawn once and kept
in `extra`. An item's code is the likeliest, c = argmax_k log p(x|k); what is trained is p(c), a
softmax. So log p(x) >= log p(c) + log p(x|c), exact for the code that is sent.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax.models.autoregressive import Stage, Steps
from rnngen_jax.models.base import Aux, Inspection, Latent, Model
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config:
    """The toy's only choice, K."""

    codes: int = 5


def build(config, spec):
    code_spec = ImageSpec(1, 1, 1, levels=config.codes)

    def init(key):
        table = 3 * jax.random.normal(key, (config.codes, spec.levels))
        return {"model": {"logits": jnp.zeros(config.codes)}}, {"tokenizer": table}

    def log_p_of(extra, image):
        """log p(x|k) of every code, [B, K]."""
        table = jax.nn.log_softmax(extra["tokenizer"])
        return table[:, image.reshape(image.shape[0], -1)].sum(-1).T

    def log_prob(params, extra, batch, key=None):
        log_p = log_p_of(extra, batch["image"].astype(jnp.int32))
        code = log_p.argmax(-1)
        prior = jax.nn.log_softmax(params["model"]["logits"])
        return prior[code] + jnp.take_along_axis(log_p, code[:, None], -1)[:, 0]

    def loss(params, extra, batch, key, step):
        nats = -log_prob(params, extra, batch).mean()
        return nats, Aux({"nats_per_image": nats}, extra)

    def prior(params, extra, key, num, label=None, temperature=1.0):
        logits = params["model"]["logits"] / temperature
        return jax.random.categorical(key, logits, shape=(num, 1, 1)).astype(jnp.float32)

    def sample(params, extra, key, num, label=None, temperature=1.0):
        from rnngen_jax import keys

        code = prior(params, extra, keys.named(key, "prior"), num, label, temperature)
        logits = extra["tokenizer"][code[:, 0, 0].astype(jnp.int32)][:, None] / temperature
        shape = (num, spec.dims)
        drawn = jax.random.categorical(keys.named(key, "pixels"), logits, shape=shape)
        return drawn.reshape(num, *spec.shape).astype(spec.dtype)

    def encode(params, extra, image, label=None):
        code = log_p_of(extra, image.astype(jnp.int32)).argmax(-1)
        return code[:, None, None].astype(jnp.float32)

    def decode(params, extra, latents, label=None):
        p = jax.nn.softmax(extra["tokenizer"])[latents[:, 0, 0].astype(jnp.int32)]
        mean = p @ jnp.arange(spec.levels) / (spec.levels - 1)
        return jnp.broadcast_to(mean[:, None, None, None], (latents.shape[0], *spec.shape))

    def inspect(params, extra, batch, key):
        code = encode(params, extra, batch["image"])
        kl = -jax.nn.log_softmax(params["model"]["logits"])[code.astype(jnp.int32)]
        log_p = log_prob(params, extra, batch) + kl.sum((1, 2))
        error = jnp.square(decode(params, extra, code) - batch["image"] / (spec.levels - 1))
        return Inspection(log_p, kl, code, error.mean((1, 2, 3)))

    def code_of(params, extra, image, label):
        return encode(params, extra, image).astype(jnp.uint8)[..., None]

    codes = Stage(
        code_spec,
        Steps(
            np.zeros((1, 1, 1), np.int32),
            1,
            lambda params, label: label,
            lambda params, label, t, turn, seen: (
                label,
                jnp.broadcast_to(params["model"]["logits"], (label.shape[0], 1, config.codes)),
            ),
        ),
        jax.nn.log_softmax,
        values=code_of,
    )
    pixels = Stage(
        spec,
        Steps(
            np.arange(spec.dims, dtype=np.int32)[None, :, None],
            1,
            lambda table, label, code: table[code[:, 0, 0, 0].astype(jnp.int32)],
            lambda table, row, t, turn, seen: (row, row[:, None]),
        ),
        jax.nn.log_softmax,
        bind=lambda params, extra: extra["tokenizer"],
    )
    return Model(
        "staged_toy",
        spec,
        False,
        init,
        {"model": loss},
        likelihood="two-stage bound",
        log_prob=log_prob,
        sample=sample,
        stages=(codes, pixels),
        latent=Latent((1, 1), encode, decode, inspect, prior=prior),
    )
