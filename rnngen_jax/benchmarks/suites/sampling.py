"""Sampling binary pixels one by one with an LSTM: a compiled loop against torch's eager one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.agreement import require_close
from rnngen_jax.benchmarks.layouts import widen
from rnngen_jax.benchmarks.machine import Machine, set_up_torch, wait_for_torch
from rnngen_jax.benchmarks.peers import torch_nn
from rnngen_jax.benchmarks.problem import Settings, Shape, build, draw
from rnngen_jax.benchmarks.report import Record, timed, torch_notes
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Carry, Params, initial_carry
from rnngen_jax.recurrence import generate

TITLE = "sampling T binary pixels one by one with an LSTM"
COLUMNS = ("ms", "least", "most", "ratio")
PLOTTED = "ms"

SHAPES = tuple(Shape(784, batch, 1, hidden) for hidden in (128, 256) for batch in (1, 16, 64))


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times sampling at each shape, after both samplers' logits agree for the same pixels."""
    for shape in settings.shapes_or(SHAPES):
        params = parameters(shape)
        draw_ours, logits_ours = ours(params, shape)
        key = jax.random.key(0)
        calls: dict[str, Callable[[], Any]] = {"ours": lambda: draw_ours(key)}  # noqa: B023
        if torch_nn.missing() is None:
            draw_torch, logits_torch = torch_loop(params, shape)
            fed = np.random.default_rng(1).integers(0, 2, (shape.steps, shape.batch), np.int32)
            given, wanted = logits_torch(fed), np.asarray(logits_ours(fed))
            require_close(f"{shape}: logits of torch LSTMCell", given, wanted)
            calls["torch LSTMCell"] = draw_torch
        yield from timed(f"sample {shape}", interleaved(calls, settings.rounds))


def parameters(shape: Shape, seed: int = 0) -> Params:
    """An embedding of the previous pixel `[2, I]`, an LSTM, and a readout to one logit."""
    rng = np.random.default_rng(seed)
    return {
        "embedding": rng.standard_normal((2, shape.inputs), np.float32),
        "cell": draw("lstm", shape._replace(steps=1), seed).params,
        "readout": rng.standard_normal(shape.hidden, np.float32)
        / np.sqrt(np.float32(shape.hidden)),
    }


def ours(params: Params, shape: Shape) -> tuple[Callable[[Array], Array], Callable[[Any], Array]]:
    """Our sampler, compiled.

    Returns:
      `draw(key) -> pixels [T, B]`, and `logits(pixels [T, B]) -> [T, B]`, which runs the same steps
      on given pixels instead of sampled ones.
    """
    cell = build("lstm", shape.hidden)
    zeros = jnp.zeros((shape.batch,), jnp.int32)
    key = jax.random.key(0)

    def predict(params: Params, carry: Carry, pixel: Array) -> tuple[Carry, Array]:
        z = cell.inputs(params["cell"], params["embedding"][pixel])
        carry, y = cell.step(params["cell"], carry, z)
        return carry, y @ params["readout"]

    def start(params: Params) -> Carry:
        return initial_carry(cell, params["cell"], (shape.batch,), jnp.float32)

    def drawn(params: Params, key: Array) -> Array:
        def step(carry: Carry, pixel: Array, t: Array, key: Array) -> tuple[Carry, Array]:
            carry, logits = predict(params, carry, pixel)
            return carry, jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.int32)

        return generate(step, start(params), zeros, key, shape.steps)[1]

    def fed(params: Params, pixels: Array) -> Array:
        def step(carry: Carry, element: Any, t: Array, key: Array) -> tuple[Carry, Any]:
            carry, logits = predict(params, carry, element[0])
            return carry, (pixels[t], logits)

        return generate(step, start(params), (zeros, zeros * 0.0), key, shape.steps)[1][1]

    params = jax.device_put(params)
    draw_compiled, fed_compiled = jax.jit(drawn), jax.jit(fed)
    return lambda key: draw_compiled(params, key), lambda pixels: fed_compiled(params, pixels)


def torch_loop(
    params: Params, shape: Shape
) -> tuple[Callable[[], Any], Callable[[np.ndarray], np.ndarray]]:
    """The same in torch, as a loop in Python: `draw() -> pixels` and `logits(pixels)`."""
    import torch

    device = set_up_torch()
    wide = widen(params["cell"], torch_nn.GATES["lstm"])
    cell = torch.nn.LSTMCell(shape.inputs, shape.hidden).to(device)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor(wide.input.T))
        cell.weight_hh.copy_(torch.tensor(wide.recurrent.T))
        cell.bias_ih.copy_(torch.tensor(wide.bias))
        cell.bias_hh.zero_()
    embedding = torch.tensor(params["embedding"], device=device)
    readout = torch.tensor(params["readout"], device=device)

    @torch.inference_mode()
    def walk(given: Any) -> tuple[Any, Any]:
        """Runs all steps on given or, for `None`, sampled pixels: pixels and logits `[T, B]`."""
        h = torch.zeros(shape.batch, shape.hidden, device=device)
        c, pixel = torch.zeros_like(h), torch.zeros(shape.batch, dtype=torch.long, device=device)
        pixels, kept = [], []
        for t in range(shape.steps):
            h, c = cell(embedding[pixel], (h, c))
            logits = h @ readout
            if given is None:
                pixel = torch.bernoulli(torch.sigmoid(logits)).long()
            else:
                pixel = given[t]
                kept.append(logits)
            pixels.append(pixel)
        wait_for_torch()
        return torch.stack(pixels), kept

    def logits(pixels: np.ndarray) -> np.ndarray:
        _, kept = walk(torch.tensor(pixels, dtype=torch.long, device=device))
        return torch.stack(kept).cpu().numpy()

    return lambda: walk(None)[0], logits


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the ratio, and torch's time over ours."""
    return [
        "ratio: the time divided by ours, so ours is faster above 1.",
        *torch_notes(records),
    ]
