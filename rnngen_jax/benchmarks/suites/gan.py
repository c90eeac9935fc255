"""GANs against the same in PyTorch: whole steps of training, both players' updates included.

A shape T,B,I,H is T steps in one call, each of B images of I by I pixels, with H units a layer of
the MLP GAN; DCGAN has H / 4 features in its largest map. Noise vectors have 100 numbers.
"""

import statistics
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
from rnngen_jax.benchmarks.report import Record, compare, number
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
WAY = 0.02


class Ours(NamedTuple):
    """Our side: the trainer's own step.

    Attributes:
      params: the parameters before the first step, NumPy.
      images: `[K, B, I, I]` in [0, 1].
      train: `train() -> (losses [K, 2], parameters after)`, always from the first parameters.
      noise: what these steps draw, `[K, 2, B, Z]`.
    """

    params: Params
    images: np.ndarray
    train: Callable[[], tuple[Array, Params]]
    noise: Callable[[], np.ndarray]


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times calls of some steps, after losses and trained parameters agree."""
    for shape in settings.shapes_or(SHAPES):
        for kind in KINDS:
            yield from _case(kind, shape, settings.rounds)


def _case(kind: str, shape: Shape, rounds: int) -> Iterator[Record]:
    sizes = sizes_of(kind, shape)
    us = ours(sizes, shape.steps)
    calls: dict[str, Callable[[], Any]] = {"ours": us.train}
    if torch_nn.missing() is None:
        check(f"{kind} {shape}", us, sizes)
        torch = torch_gan(us.params, sizes)
        calls[TORCH] = lambda: torch.train(us.images)
    timings = interleaved(calls, rounds)
    for name, timing in timings.items():
        values = {
            **timing.milliseconds(),
            "ratio": timing.median / timings["ours"].median,
            "steps/s": shape.steps / timing.median,
        }
        yield Record(f"{kind} {shape}", name, values)


def sizes_of(kind: str, shape: Shape) -> Sizes:
    """The networks of a shape."""
    features = shape.hidden if kind == "mlp_gan" else max(shape.hidden // 4, 1)
    return Sizes(kind, shape.batch, shape.inputs, NOISE, features)


def check(case: str, us: Ours, sizes: Sizes) -> None:
    """Compares the losses of some steps, and where these lead, from the same noise.

    Raises:
      RunError: they differ by more than the bench allows.
    """
    torch = torch_gan(us.params, sizes)
    losses, after = us.train()
    found = torch.train(us.images, us.noise())
    require_close(f"{case}: losses of {TORCH}", found, np.asarray(losses))
    # Adam's first steps have the size of the learning rate however small a gradient is, so that a
    # rounding error may turn one round: the way of all parameters is compared, not each one's.
    ways = [_way(params, us.params) for params in (torch.params(), after)]
    apart = np.linalg.norm(ways[0] - ways[1]) / np.linalg.norm(ways[1])
    if not apart < WAY:
        raise RunError(f"{case}: after these steps {TORCH} is {apart:.1g} of the way from ours.")


def _way(after: Params, before: Params) -> np.ndarray:
    """How far all parameters came, flat."""
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    return np.concatenate([np.ravel(np.asarray(a) - b) for a, b in pairs])


def ours(sizes: Sizes, steps: int) -> Ours:
    """Our model, its trainer's step, and images drawn from a seed."""
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
        """As the losses draw it; that it is the same is seen when losses are compared."""

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
    """Torch's time over ours."""
    lines = ["ratio: the time divided by ours, above 1 where ours is faster."]
    if torch := compare(records, "ratio", ("torch",)):
        median, lowest = number(statistics.median(torch)), number(min(torch))
        lines.append(f"torch / ours: median {median}, lowest {lowest}")
    return lines
