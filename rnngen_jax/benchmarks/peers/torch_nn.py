"""PyTorch: `nn.LSTM` and `nn.GRU`, by oneDNN on a CPU and cuDNN on an NVIDIA GPU."""

from typing import Any

from rnngen_jax.benchmarks.contenders import Contender
from rnngen_jax.benchmarks.layouts import narrow, second_bias, widen, with_second_bias
from rnngen_jax.benchmarks.machine import set_up_torch, torch_device, wait_for_torch
from rnngen_jax.benchmarks.peers.base import not_installed
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.cells.base import Params

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def missing() -> str | None:
    """The reason why it cannot run here: it is not installed, or lacks CUDA where JAX has it."""
    absent = not_installed("torch")
    if absent is not None or torch_device() == "cpu":
        return absent
    import torch

    return None if torch.cuda.is_available() else "torch is installed without CUDA"


def contenders(problem: Problem) -> list[Contender]:
    """Torch's layer of the problem's kind, which is time-major."""
    import torch

    device, gates = set_up_torch(), GATES[problem.cell]
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
        wait_for_torch()
        return ys

    def gradient() -> list[Any]:
        layer.zero_grad(set_to_none=True)
        ys, _ = layer(xs)
        (ys * weights).sum().backward()
        wait_for_torch()
        return [parameter.grad for parameter in layer.parameters()]

    def gradients(found: list[Any]) -> Params:
        ih, hh, first, second = (gradient.cpu().numpy().copy() for gradient in found)
        return narrow(with_second_bias(ih.T, hh.T, first, second, len(gates)), gates)

    return [
        Contender(f"torch {name}", forward, gradient, lambda ys: ys.cpu().numpy(), gradients),
    ]
