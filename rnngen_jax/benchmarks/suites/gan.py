"""GANs against implementations in PyTorch: whole training steps, with both players' updates.

A shape T,B,I,H is T steps in one call, each of B images of I by I pixels. The MLP GAN has H units
per layer, DCGAN H / 4 features in its largest map. Noise vectors have 100 values.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys, models
from rnngen_jax.benchmarks.agreement import require_close
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.peers import torch_nn
from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.report import Record, timed, torch_notes
from rnngen_jax.benchmarks.textbook_gan import BETAS, LEARNING_RATE, SLOPE, Sizes, torch_gan
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Params
from rnngen_jax.errors import RunError
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.state import create
from rnngen_jax.training.step import many_steps, train_step

TITLE = "GANs: training steps of both players, against PyTorch's eager loop"
COLUMNS = ("ms", "least", "most", "ratio", "steps/s")
PLOTTED = "ms"

SHAPES = (Shape(10, 64, 28, 256),)
KINDS = ("mlp_gan", "dcgan")
NOISE = 100
TORCH = "torch eager"
SEED = 0
# Allowed difference of the parameters' total displacement, relative to its length.
DISPLACEMENT_TOLERANCE = 0.02
# DCGAN's bias that batch normalisation cancels: its gradient is rounding noise, scaled up by Adam.
CANCELLED = "['generator']['Double_0']['bias']"


class Ours(NamedTuple):
    """Our model, trained by the trainer's own step.

    Attributes:
      params: the initial parameters, NumPy.
      images: `[K, B, I, I]` in [0, 1].
      train: `train() -> (losses [K, 2], final parameters)`, always from `params`.
      noise: `noise() -> [K, 2, B, Z]`, the noise that these steps draw.
    """

    params: Params
    images: np.ndarray
    train: Callable[[], tuple[Array, Params]]
    noise: Callable[[], np.ndarray]


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times a few training steps per call, after losses and trained parameters agree."""
    for shape, kind in itertools.product(settings.shapes_or(SHAPES), KINDS):
        yield from _case(kind, shape, settings.rounds)


def _case(kind: str, shape: Shape, rounds: int) -> Iterator[Record]:
    sizes = sizes_of(kind, shape)
    own = ours(sizes, shape.steps)
    calls: dict[str, Callable[[], Any]] = {"ours": own.train}
    if torch_nn.missing() is None:
        check(f"{kind} {shape}", own, sizes)
        torch = torch_gan(own.params, sizes)
        calls[TORCH] = lambda: torch.train(own.images)
    timings = interleaved(calls, rounds)
    yield from timed(f"{kind} {shape}", timings, {"steps/s": shape.steps})


def sizes_of(kind: str, shape: Shape) -> Sizes:
    """The networks' sizes for a shape."""
    features = shape.hidden if kind == "mlp_gan" else max(shape.hidden // 4, 1)
    return Sizes(kind, shape.batch, shape.inputs, NOISE, features)


def check(case: str, own: Ours, sizes: Sizes) -> None:
    """Compares the losses of the training steps and the final parameters, given the same noise.

    Raises:
      RunError: they differ by more than the benchmark's tolerance.
    """
    torch = torch_gan(own.params, sizes)
    losses, after = own.train()
    found = torch.train(own.images, own.noise())
    require_close(f"{case}: losses of {TORCH}", found, np.asarray(losses))
    # Adam's first updates have the size of the learning rate however small a gradient is, so a
    # rounding error may flip the sign of one: only the displacement of all parameters is compared.
    theirs, wanted = (_displacement(params, own.params) for params in (torch.params(), after))
    size = np.linalg.norm(theirs - wanted) / np.linalg.norm(wanted)
    if not size < DISPLACEMENT_TOLERANCE:
        raise RunError(
            f"{case}: parameter displacement of {TORCH} differs from ours by {size:.1g} of its "
            f"length; allowed: {DISPLACEMENT_TOLERANCE:g}. Nothing was timed."
        )


def _displacement(after: Params, before: Params) -> np.ndarray:
    """The change of all parameters but `CANCELLED`, as one vector."""
    pairs = zip(jax.tree.leaves_with_path(after), jax.tree.leaves(before), strict=True)
    changes = {jax.tree_util.keystr(path): np.ravel(np.asarray(a) - b) for (path, a), b in pairs}
    return np.concatenate([change for path, change in changes.items() if path != CANCELLED])


def ours(sizes: Sizes, steps: int) -> Ours:
    """Our model, its training steps, and random images."""
    size = {"hidden": sizes.features} if sizes.kind == "mlp_gan" else {"features": sizes.features}
    fields = {"noise": sizes.noise, "slope": SLOPE, **size}
    spec, rng = ImageSpec(sizes.side, sizes.side, levels=256), np.random.default_rng(SEED)
    if sizes.kind == "dcgan":
        fields["stages"] = 2
    model = models.build(sizes.kind, fields, spec)
    adam = OptimizerConfig(learning_rate=LEARNING_RATE, b1=BETAS[0], b2=BETAS[1])
    optimizers = {player: make_optimizer(adam) for player in model.losses}
    state = jax.jit(lambda: create(model, optimizers, SEED))()
    images = rng.integers(0, 256, (steps, sizes.batch, *spec.shape), np.uint8)
    index = np.arange(steps * sizes.batch, dtype=np.int32).reshape(steps, sizes.batch)
    chunk = {"image": images, "label": np.zeros_like(index), "index": index}
    step = train_step(model, optimizers, 0.0, lambda batch, key: batch)
    call = jax.jit(many_steps(step, lambda resident, item: item, SEED))
    placed = jax.device_put(chunk)

    def train() -> tuple[Array, Params]:
        after, metrics = call(state, None, placed)
        losses = [metrics["loss/discriminator"], metrics["loss/generator"]]
        return jnp.stack(losses, axis=-1), after.params

    def noise() -> np.ndarray:
        """Repeats the losses' own draws; comparing the losses verifies this."""

        def one(number: Array, own: Array) -> Array:
            key = jax.random.fold_in(jax.random.key(SEED), number)
            of_players = []
            for player in ("discriminator", "generator"):
                of_player = keys.named(keys.named(key, f"loss/{player}"), "noise")
                each = keys.per_example(of_player, own)
                each = jax.vmap(lambda k: keys.named(k, "noise"))(each)
                shape = (sizes.noise,)
                draw = jax.vmap(lambda k, s=shape: jax.random.normal(k, (1, *s))[0])
                of_players.append(draw(each))
            return jnp.stack(of_players)

        return np.asarray(jax.vmap(one)(jnp.arange(steps), jnp.asarray(index)))

    params = jax.tree.map(np.asarray, state.params)
    return Ours(params, images[..., 0] / np.float32(255), train, noise)


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the ratio, and torch's time over ours."""
    return [
        "ratio: the time divided by ours, so ours is faster above 1.",
        *torch_notes(records),
    ]
