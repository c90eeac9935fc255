"""Toy models, data and runs for the tests of training."""

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax import keys
from rnngen_jax.data.base import Split
from rnngen_jax.data.feed import make_feed
from rnngen_jax.models.base import Aux, Model
from rnngen_jax.ops.batch import mean_over_batch
from rnngen_jax.ops.precision import matmul
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training import sinks
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig
from rnngen_jax.training.loop import train
from rnngen_jax.training.program import batches_per_step

SPEC = ImageSpec(2, 2, 1, 17, 3)
IDENTITY = {"model": {"name": "toy", "features": 5}, "spec": dict(SPEC._asdict())}
NUM = 48


def split(num=NUM):
    """Images whose pixels go together, so that there is something to learn."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 17, (num, 1, 1, 1))
    images = np.clip(base + rng.integers(-2, 3, (num, 2, 2, 1)), 0, 16).astype(np.uint8)
    labels = rng.integers(0, 3, num).astype(np.int32)
    return Split(num, lambda i: (images[i], labels[i]))


def keep(batch, key):
    """No transform."""
    return batch


def jitter(batch, key):
    """Noise of each example, as the real transforms make it."""

    def one(key, image):
        return jnp.clip(image + jax.random.randint(key, image.shape, -1, 2), 0, 16)

    noisy = jax.vmap(one)(keys.per_example(key, batch["index"]), batch["image"].astype(jnp.int32))
    return {**batch, "image": noisy.astype(jnp.uint8)}


def flat(batch):
    image = batch["image"]
    return image.reshape(image.shape[0], -1).astype(jnp.float32) / 16


def autoencoder(features=5, dtype=jnp.float32):
    """A tiny autoencoder with dropout and, in `extra`, a running mean and a count."""

    def init(key):
        k1, k2 = jax.random.split(key)
        params = {
            "encoder": {"kernel": 0.5 * jax.random.normal(k1, (4, features), dtype)},
            "decoder": {
                "kernel": 0.5 * jax.random.normal(k2, (features, 4), dtype),
                "bias": jnp.zeros(4, dtype),
            },
        }
        extra = {"mean": jnp.zeros(4), "seen": jnp.int32(0), "nothing": jnp.zeros((0, 4))}
        return {"model": params}, extra

    def loss(params, extra, batch, key, step):
        own, x = params["model"], flat(batch)
        hidden = jnp.tanh(matmul(x, own["encoder"]["kernel"]))
        example = keys.per_example(keys.named(key, "dropout"), batch["index"])
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 0.8, (features,)))(example)
        y = matmul(hidden * kept, own["decoder"]["kernel"]) + own["decoder"]["bias"]
        value = jnp.mean((y - x) ** 2)
        extra = {
            **extra,
            "mean": 0.9 * extra["mean"] + 0.1 * mean_over_batch(x),
            "seen": extra["seen"] + 1,
        }
        return value, Aux({"brightness": x.mean()}, extra)

    return Model("toy", SPEC, False, init, {"model": loss})


def adversaries():
    """A tiny generator and discriminator; `extra` holds who was the last to move."""

    def init(key):
        k1, k2 = jax.random.split(key)
        generator = {"kernel": 0.3 * jax.random.normal(k1, (3, 4))}
        discriminator = {"kernel": 0.3 * jax.random.normal(k2, (4, 1))}
        params = {"generator": generator, "discriminator": discriminator}
        return params, {"moves": jnp.int32(0), "last": jnp.float32(-1)}

    def generate(params, batch, key):
        example = keys.per_example(key, batch["index"])
        noise = jax.vmap(lambda k: jax.random.normal(k, (3,)))(example)
        return jax.nn.sigmoid(matmul(noise, params["generator"]["kernel"]))

    def logits(params, x):
        return matmul(x, params["discriminator"]["kernel"])[:, 0]

    def discriminator(params, extra, batch, key, step):
        real, fake = logits(params, flat(batch)), logits(params, generate(params, batch, key))
        value = jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))
        extra = {"moves": extra["moves"] + 1, "last": jnp.float32(0)}
        return value, Aux({"gap": jnp.mean(real - fake)}, extra)

    def generator(params, extra, batch, key, step):
        value = jnp.mean(jax.nn.softplus(-logits(params, generate(params, batch, key))))
        metrics = {"came_after": extra["last"]}
        return value, Aux(metrics, {"moves": extra["moves"] + 1, "last": jnp.float32(1)})

    losses = {"discriminator": discriminator, "generator": generator}
    return Model("toy_gan", SPEC, False, init, losses)


def validator(scores=None):
    """A validation that measures the parameters, or that gives the scores one after the other."""
    given = iter(scores or ())

    def validate(params, extra):
        if scores is not None:
            return {"bits_per_dim": next(given)}
        norm = sum(float(jnp.sum(jnp.abs(x))) for x in jax.tree.leaves(params))
        return {"bits_per_dim": norm, "nats_per_image": 2 * norm}

    return validate


def settings(**changes):
    """A short run."""
    defaults = {
        "steps": 20,
        "batch_size": 8,
        "steps_per_call": 5,
        "log_every": 5,
        "validate_every": 0,
        "checkpoint_every": 10,
        "sample_every": 0,
        "keep": 2,
    }
    return TrainingConfig(**{**defaults, **changes})


def run(workdir, model=None, optimizer=None, transform=jitter, placement="device", **changes):
    """Trains a toy; keyword arguments of `train` and fields of its config.

    `optimizer` is the section of all players, or a dict of theirs.
    """
    passed = {
        name: changes.pop(name)
        for name in (
            "validate",
            "draw",
            "devices",
            "identity",
            "interruption",
            "record",
            "announced",
            "peers",
        )
        if name in changes
    }
    config = settings(**changes)
    devices = passed.pop("devices", jax.devices()[:1])
    identity = passed.pop("identity", IDENTITY)
    model = model or autoencoder()
    sections = optimizer or OptimizerConfig(learning_rate=0.05)
    if not isinstance(sections, dict):
        sections = dict.fromkeys(model.losses, sections)
    optimizers = {player: own.resolved(config.steps) for player, own in sections.items()}
    batch_size = config.batch_size * batches_per_step(optimizers)
    return train(
        model,
        make_feed(split(), batch_size, config.seed, placement, config.seeds),
        transform,
        config,
        optimizers,
        workdir,
        identity,
        devices=devices,
        **passed,
    )


def lines(workdir, split="train"):
    """The lines of one split, without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k not in ("images_per_second", "split")}
        for line in sinks.read(workdir / "metrics.jsonl")
        if line["split"] == split
    ]


def final(workdir, model=None, which="latest"):
    """What evaluating needs of a run's last checkpoint, or of another."""
    model = model or autoencoder()
    return open_checkpoints(workdir / "checkpoints").restore_evaluated(which, model, IDENTITY)


def kernel(workdir):
    return final(workdir).params["model"]["encoder"]["kernel"]


def saved(workdir):
    """Steps that have a checkpoint."""
    return open_checkpoints(workdir / "checkpoints").steps()


def numbers(workdir):
    """Every bit of what a run has learned."""
    return kernel(workdir).tobytes()
