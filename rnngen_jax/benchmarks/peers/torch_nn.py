"""PyTorch: `nn.LSTM` and `nn.GRU`, through oneDNN on a CPU and cuDNN on an NVIDIA GPU."""

from typing import Any

from rnngen_jax.benchmarks.contenders import Contender
from rnngen_jax.benchmarks.layouts import narrow, second_bias, widen, with_second_bias
from rnngen_jax.benchmarks.machine import cores, torch_device
from rnngen_jax.benchmarks.peers.base import not_installed
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.cells.base import Params

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def missing() -> str | None:
    """Not installed, or without the GPU that JAX has."""
    absent = not_installed("torch")
    if absent is not None or torch_device() == "cpu":
        return absent
    import torch

    return None if torch.cuda.is_available() else "torch is installed without CUDA"


def contenders(problem: Problem) -> list[Contender]:
    """The layer of the problem's kind, time-major, with as many threads as JAX has."""
    import torch

    device, gates = torch_device(), GATES[problem.cell]
    torch.set_num_threads(cores())
    torch.backends.cudnn.allow_tf32 = False  # float32 like the others

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    name = {"lstm": "LSTM", "gru": "GRU"}[problem.cell]
    layer = getattr(torch.nn, name)(problem.shape.inputs, problem.shape.hidden)
    wide = widen(problem.params, gates)
    arrays = (wide.input.T, wide.recurrent.T, wide.bias, second_bias(wide))
    parameters = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    with torch.no_grad():
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.copy_(torch.tensor(array))
    layer = layer.to(device)
    xs = torch.tensor(problem.xs, device=device)
    weights = torch.tensor(problem.weights, device=device)

    def forward() -> Any:
        with torch.inference_mode():
            ys, _ = layer(xs)
        wait()
        return ys

    def gradient() -> list[Any]:
        layer.zero_grad(set_to_none=True)
        ys, _ = layer(xs)
        (ys * weights).sum().backward()
        wait()
        return [parameter.grad for parameter in layer.parameters()]

    def gradients(found: list[Any]) -> Params:
        ih, hh, first, second = (gradient.cpu().numpy().copy() for gradient in found)
        return narrow(with_second_bias(ih.T, hh.T, first, second, len(gates)), gates)

    return [
        Contender(f"torch {name}", forward, gradient, lambda ys: ys.cpu().numpy(), gradients),
    ]
