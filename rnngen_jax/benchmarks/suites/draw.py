"""DRAW against an implementation in PyTorch: loss and gradient, and sampling.

A shape T,B,I,H is B binary images of I by I pixels, drawn in T steps by LSTMs with H features. The
rest is as in the paper's table 3: 100 latents per step, read windows of 2 by 2 filters and write
windows of 5 by 5, or the image's side if that is smaller. Each shape also runs without attention.
"""

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
from rnngen_jax.benchmarks.problem import Settings, Shape, draw_parameters
from rnngen_jax.benchmarks.report import Record, timed, torch_notes
from rnngen_jax.benchmarks.textbook_draw import Sizes, TorchDraw, torch_draw
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Params
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

TITLE = "DRAW: loss and gradient, and sampling, against PyTorch's eager loop"
COLUMNS = ("ms", "least", "most", "ratio", "images/s")
PLOTTED = "ms"

SHAPES = (Shape(64, 64, 28, 256), Shape(16, 64, 28, 256))
LATENTS = 100
READ, WRITE = 2, 5
KINDS = {"attention": (READ, WRITE), "no attention": (0, 0)}
TORCH = "torch LSTMCell, bmm"


class Ours(NamedTuple):
    """Our model's functions, each compiled at its first call.

    Attributes:
      params: float32 NumPy arrays in our layout.
      images: 0 or 1, uint8 `[B, I, I, 1]`.
      gradient: `gradient(key) -> (nats, gradients)`, the mean negative bound per image and the
        gradient of the training loss, with noise drawn from the key.
      noise: `noise(key) -> [T, B, Z]`, the noise that `gradient` draws from the same key.
      sample: `sample(key) -> uint8 [B, I, I, 1]`.
      decode: `decode(latents [T, B, Z]) -> [B, I, I]`, the expected image.
    """

    params: Params
    images: np.ndarray
    gradient: Callable[[Array], tuple[Array, Params]]
    noise: Callable[[Array], np.ndarray]
    sample: Callable[[Array], Array]
    decode: Callable[[np.ndarray], np.ndarray]


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times a gradient and sampling, after bounds, gradients and expected images agree."""
    for shape in settings.shapes_or(SHAPES):
        for kind in KINDS:
            yield from _case(kind, shape, settings.rounds)


def _case(kind: str, shape: Shape, rounds: int) -> Iterator[Record]:
    size = sizes(kind, shape)
    own, key = ours(size), jax.random.key(0)
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "gradient": {"ours": lambda: own.gradient(key)},
        "sample": {"ours": lambda: own.sample(key)},
    }
    if torch_nn.missing() is None:
        torch = torch_draw(own.params["model"], size, own.images[..., 0])
        check(f"{kind} {shape}", own, torch, key)
        calls["gradient"][TORCH], calls["sample"][TORCH] = torch.gradient, torch.sample
    for work, those in calls.items():
        timings = interleaved(those, rounds)
        yield from timed(f"{kind} {work} {shape}", timings, {"images/s": shape.batch})


def sizes(kind: str, shape: Shape) -> Sizes:
    """The network's sizes for a shape."""
    read, write = (min(size, shape.inputs) for size in KINDS[kind])
    return Sizes(shape.steps, shape.batch, shape.inputs, shape.hidden, LATENTS, read, write)


def check(case: str, own: Ours, torch: TorchDraw, key: Array) -> None:
    """Compares the timed programs, given the same noise and the same latents.

    Raises:
      RunError: bounds, gradients or expected images differ by more than the benchmark's tolerance.
    """
    noise = own.noise(key)
    nats, gradients = own.gradient(key)
    their_nats, their_gradients = torch.gradient(noise)
    require_close(f"{case}: bound of {TORCH}", their_nats.cpu().numpy(), np.asarray(nats))
    found, wanted = torch.gradients(their_gradients), jax.tree.map(np.asarray, gradients["model"])
    require_close(f"{case}: gradients of {TORCH} for ", found, wanted)
    expected = own.decode(noise)
    require_close(f"{case}: expected images of {TORCH}", torch.decode(noise), expected)


def ours(sizes: Sizes) -> Ours:
    """Our model with random parameters and images."""
    fields = {
        "cell": "lstm",
        "features": sizes.features,
        "steps": sizes.steps,
        "latents": sizes.latents,
        "read_size": sizes.read,
        "write_size": sizes.write,
        "readout": "bernoulli",
        "learned_carry": True,
    }
    spec, rng = ImageSpec(sizes.side, sizes.side, levels=2), np.random.default_rng(0)
    model = models.build("draw", fields, spec)
    params = parameters(model, sizes, rng)
    images = rng.integers(0, 2, (sizes.batch, *spec.shape), np.uint8)
    label, index = jnp.zeros(sizes.batch, jnp.int32), jnp.arange(sizes.batch)
    batch = {"image": jnp.asarray(images), "label": label, "index": index}
    on_device = jax.device_put(params)

    @jax.jit
    def gradient(params: Params, batch: dict[str, Array], key: Array) -> tuple[Array, Params]:
        def loss(params: Params) -> tuple[Array, Array]:
            value, aux = model.losses["model"](params, {}, batch, key, jnp.zeros((), jnp.int32))
            return value, aux.metrics["nats_per_image"]

        (_, nats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return nats, gradients

    def noise(key: Array) -> np.ndarray:
        """Repeats the loss's own draws; comparing the bounds verifies this."""
        each = keys.per_example(keys.named(key, "latents"), index)
        drawn = jax.vmap(lambda key: jax.random.normal(key, model.latent.shape))(each)
        return np.ascontiguousarray(np.moveaxis(np.asarray(drawn), 1, 0))

    def decode(latents: np.ndarray) -> np.ndarray:
        expected = jax.jit(model.latent.decode)(on_device, {}, np.moveaxis(latents, 0, 1))
        return np.asarray(expected)[..., 0]

    sample = jax.jit(lambda params, key: model.sample(params, {}, key, sizes.batch))
    return Ours(
        params,
        images,
        lambda key: gradient(on_device, batch, key),
        noise,
        lambda key: sample(on_device, key),
        decode,
    )


def parameters(model: Model, sizes: Sizes, rng: np.random.Generator) -> Params:
    """Random parameters, whose windows cover about the whole image.

    Filters are about half as wide as their distance.
    """
    params = draw_parameters(lambda key: model.init(key)[0], rng, 0.1)
    for name, size in (("read_window", sizes.read), ("write_window", sizes.write)):
        if size:
            part = params["model"][name]
            part["kernel"] *= np.float32(0.1)
            apart = (sizes.side - 1) / max(size - 1, 1)
            part["bias"][2] += 2 * np.log(np.float32(max(apart / 2, 0.5)))  # of the log-variance
    return params


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns, and torch's time over ours for each kind of work."""
    return [
        "ratio: the time divided by ours, so ours is faster above 1. images/s: the batch size "
        "divided by the time.",
        *torch_notes(records, ("gradient", "sample")),
    ]
