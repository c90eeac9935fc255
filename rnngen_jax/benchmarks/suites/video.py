"""Next-frame prediction by stacked ConvLSTMs: a training step, against PyTorch's eager loop.

A shape T,B,I,H is B binary sequences of T frames of I by I pixels, in patches of 4 by 4 if that
divides I, and two layers of H features with kernels of 3 by 3. A step is the loss, its gradient and
Adam's update. The memory of a step is also planned for longer sequences, with and without
rematerialisation over time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import cells
from rnngen_jax.benchmarks.agreement import require_close
from rnngen_jax.benchmarks.contenders import peak_bytes
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.peers import torch_nn
from rnngen_jax.benchmarks.problem import Settings, Shape, draw_parameters
from rnngen_jax.benchmarks.report import Record, timed, torch_notes
from rnngen_jax.benchmarks.textbook_conv_lstm import KERNEL, LEARNING_RATE, torch_video
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Params
from rnngen_jax.errors import RunError
from rnngen_jax.ops.patches import space_to_depth
from rnngen_jax.ops.products import product
from rnngen_jax.recurrence import unroll
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer

TITLE = "ConvLSTM: a training step against PyTorch's eager loop, and its memory over time"
COLUMNS = ("ms", "least", "most", "core ms", "ratio", "frames/s", "MB")
PLOTTED = "ms"

SHAPES = (Shape(20, 8, 64, 32), Shape(20, 16, 16, 32))
LENGTHS = (20, 50, 100, 200)  # of the sequences whose memory is planned
PATCH, LAYERS = 4, 2
TORCH = {"torch eager": False, "torch eager, channels last": True}  # and whether channels are last
SEED = 0
OFFSET = 0.1
CHECKED = 3  # training steps after which parameters are compared
# Allowed differences of trained parameters, as in `gan`: Adam divides by gradients' own size.
DISPLACEMENT_TOLERANCE = 0.02


class Ours(NamedTuple):
    """Our network.

    Attributes:
      params: the initial parameters, NumPy.
      patches: values 0 and 1, float32 `[T, B, H, W, D]`.
      state: parameters and the optimiser's state at the start.
      step: `step(state, patches) -> (state, loss)`, compiled; the loss is in nats per frame.
    """

    params: Params
    patches: np.ndarray
    state: Any
    step: Callable[[Any, Any], tuple[Any, Array]]


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times training steps, after losses and trained parameters agree, and plans their memory."""
    for shape in settings.shapes_or(SHAPES):
        frames = shape.batch * (shape.steps - 1)
        timings = interleaved(_calls(shape), settings.rounds)
        yield from timed(f"train {shape}", timings, {"frames/s": frames})
    for shape in settings.shapes_or(SHAPES[:1]):
        for length in LENGTHS:
            longer = shape._replace(steps=length)
            for name, remat in (("ours", None), ("ours, remat", _root(length))):
                yield Record(f"memory {longer}", name, {"MB": planned(longer, remat) / 1e6})


def _calls(shape: Shape) -> dict[str, Callable[[], Any]]:
    """A training step of each contender, always from the start for ours."""
    own, rooted = ours(shape), ours(shape, _root(shape.steps))
    patches = jax.device_put(own.patches)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: own.step(own.state, patches),
        "ours, remat": lambda: rooted.step(rooted.state, patches),
    }
    if torch_nn.missing() is None:
        for name, channels_last in TORCH.items():
            check(f"train {shape}", name, own, channels_last)
            network = torch_video(own.params, channels_last)
            calls[name] = lambda network=network: network.train(own.patches)
    return calls


def _root(length: int) -> int:
    """The number of steps between kept carries that needs about the least memory."""
    return max(math.isqrt(length), 1)


def ours(shape: Shape, remat: int | None = None) -> Ours:
    """Our network, its training step, and random binary frames.

    Args:
      shape: the sizes.
      remat: as in `unroll`.
    """
    patch = PATCH if shape.inputs % PATCH == 0 else 1
    cell = cells.build_maps("conv_lstm", shape.hidden, KERNEL, layers=LAYERS)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE))

    def init(key: Array) -> Params:
        return {
            "cell": cell.init(key, patch**2),
            "readout": {
                "kernel": jnp.zeros((shape.hidden, patch**2)),
                "bias": jnp.zeros(patch**2),
            },
        }

    def loss(params: Params, patches: Array) -> Array:
        _, ys = unroll(cell, params["cell"], patches[:-1], remat=remat)
        logits = product(ys, params["readout"]["kernel"]) + params["readout"]["bias"]
        nats = jax.nn.softplus(logits) - patches[1:] * logits
        return nats.sum() / (nats.shape[0] * nats.shape[1])

    @jax.jit
    def step(state: Any, patches: Array) -> tuple[Any, Array]:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, patches)
        updates, moments = optimizer.update(gradient, moments, params)
        return (jax.tree.map(jnp.add, params, updates), moments), value

    rng = np.random.default_rng(SEED)
    params = draw_parameters(init, rng, OFFSET)
    frames = rng.integers(0, 2, (*shape[:2], shape.inputs, shape.inputs, 1)).astype(np.float32)
    patches = np.asarray(space_to_depth(frames, patch))
    placed = jax.device_put(params)
    return Ours(params, patches, (placed, optimizer.init(placed)), step)


def planned(shape: Shape, remat: int | None) -> int:
    """Bytes that the compiled training step needs besides its arguments."""
    own = ours(shape._replace(steps=2), remat)
    patches = jax.ShapeDtypeStruct((shape.steps, *own.patches.shape[1:]), np.float32)
    return peak_bytes(own.step.lower(own.state, patches).compile())


def check(case: str, name: str, own: Ours, channels_last: bool) -> None:
    """Compares losses and parameters over a few training steps.

    Raises:
      RunError: they differ by more than the benchmark's tolerance.
    """
    network, state = torch_video(own.params, channels_last), own.state
    for _ in range(CHECKED):
        state, value = own.step(state, own.patches)
        require_close(f"{case}: loss of {name}", network.train(own.patches), np.asarray(value))
    found, wanted = (_displacement(end, own.params) for end in (network.params(), state[0]))
    size = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    if not size < DISPLACEMENT_TOLERANCE:
        raise RunError(
            f"{case}: parameter displacement of {name} differs from ours by {size:.1g} of its "
            f"length; allowed: {DISPLACEMENT_TOLERANCE:g}. Nothing was timed."
        )


def _displacement(after: Any, before: Any) -> np.ndarray:
    """The change of all arrays as one vector."""
    changes = jax.tree.map(lambda a, b: np.ravel(np.asarray(a) - np.asarray(b)), after, before)
    return np.concatenate(jax.tree.leaves(changes))


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns, and others' times over ours."""
    lines = [
        "ratio: the time divided by ours, so ours is faster above 1. MB: the compiler's planned "
        "memory of a step, temporaries and results. remat: every √T-th carry is kept."
    ]
    return [*lines, *torch_notes(records)]
