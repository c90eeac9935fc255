"""Next-frame prediction by stacked ConvLSTMs in plain PyTorch: an eager loop over time, and Adam.

It computes the same as `suites/video.py`'s network from the same parameters. Torch is imported only
inside functions, as in `peers/`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.benchmarks.machine import set_up_torch, wait_for_torch
from rnngen_jax.cells.base import Params

LEARNING_RATE = 1e-3
GATES = ("i", "f", "g", "o")
KERNEL = 3


class TorchVideo(NamedTuple):
    """The functions of the network.

    Attributes:
      train: `train(patches [T, B, H, W, D]) -> loss`: one step.
      params: the current parameters, in our layout.
    """

    train: Callable[[np.ndarray], Any]
    params: Callable[[], Params]


def torch_video(params: Params, channels_last: bool) -> TorchVideo:
    """Builds the network from our parameters.

    Args:
      params: `{"cell": {"0": ..., "1": ...}, "readout": {"kernel", "bias"}}`.
      channels_last: the memory format of maps, instead of channels first.
    """
    import torch
    from torch import nn

    device = set_up_torch()
    form = torch.channels_last if channels_last else torch.contiguous_format
    names = list(params["cell"])
    state = {name: _to_torch(params["cell"][name]) for name in names}
    layers = nn.ModuleList()
    for weight, bias in state.values():
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], KERNEL, padding=KERNEL // 2)
        layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
        layers.append(layer)
    kernel, bias = params["readout"]["kernel"], params["readout"]["bias"]
    readout = nn.Conv2d(*kernel.shape, 1)
    readout.load_state_dict(
        {"weight": torch.tensor(kernel.T[..., None, None]), "bias": torch.tensor(bias)}
    )
    network = nn.ModuleList([layers, readout]).to(device, memory_format=form).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def forward(frames: Any) -> Any:
        size, (height, width) = frames.shape[1], frames.shape[3:]
        states = []
        for layer in layers:
            zeros = torch.zeros(size, layer.out_channels // 4, height, width, device=device)
            zeros = zeros.contiguous(memory_format=form)
            states.append((zeros, zeros))
        logits = []
        for x in frames:
            for n, layer in enumerate(layers):
                h, c = states[n]
                i, f, g, o = layer(torch.cat([x, h], dim=1)).chunk(4, dim=1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                x = torch.sigmoid(o) * torch.tanh(c)
                states[n] = x, c
            logits.append(readout(x))
        return torch.stack(logits)

    def train(patches: np.ndarray) -> Any:
        frames = torch.tensor(patches.transpose(0, 1, 4, 2, 3), device=device)
        frames = torch.stack([x.contiguous(memory_format=form) for x in frames])
        optimizer.zero_grad(set_to_none=True)
        logits = forward(frames[:-1])
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, frames[1:], reduction="sum"
        ) / (frames.shape[1] * logits.shape[0])
        loss.backward()
        optimizer.step()
        wait_for_torch()
        return loss.detach().cpu().numpy()

    def current() -> Params:
        found = {name: _from_torch(layer) for name, layer in zip(names, layers, strict=True)}
        return {
            "cell": found,
            "readout": {
                "kernel": readout.weight.detach().cpu().numpy()[..., 0, 0].T,
                "bias": readout.bias.detach().cpu().numpy(),
            },
        }

    return TorchVideo(train, current)


def _to_torch(params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Our kernels `[K² D, F]` by gate as one of `[4 F, D + F, K, K]`, and the biases."""

    def wide(kernels: dict[str, np.ndarray]) -> np.ndarray:
        kernel = np.concatenate([kernels[gate] for gate in GATES], axis=-1)
        return kernel.reshape(KERNEL, KERNEL, -1, kernel.shape[-1]).transpose(3, 2, 0, 1)

    weight = np.concatenate([wide(params["input"]), wide(params["recurrent"])], axis=1)
    return weight, np.concatenate([params["bias"][gate] for gate in GATES])


def _from_torch(layer: Any) -> Params:
    """Undoes `_to_torch`."""
    weight = layer.weight.detach().cpu().numpy().transpose(2, 3, 1, 0)
    features = weight.shape[-1] // len(GATES)

    def by_gate(array: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(GATES, np.split(array, len(GATES), axis=-1), strict=True))

    cut = weight.shape[2] - features
    return {
        "input": by_gate(weight[:, :, :cut].reshape(-1, weight.shape[-1])),
        "recurrent": by_gate(weight[:, :, cut:].reshape(-1, weight.shape[-1])),
        "bias": by_gate(layer.bias.detach().cpu().numpy()),
    }
