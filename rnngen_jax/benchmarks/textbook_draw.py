"""DRAW in PyTorch, a direct implementation of the paper (Gregor et al. 2015), step by step.

It computes the same as `models/draw.py` with LSTMs and binary pixels, from the same parameters.
Equations have the paper's numbers. Torch is imported only inside functions, as in `peers/`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.benchmarks.layouts import Wide, narrow, widen
from rnngen_jax.benchmarks.machine import set_up_torch, wait_for_torch
from rnngen_jax.benchmarks.peers.torch_nn import GATES
from rnngen_jax.cells.base import Params
from rnngen_jax.modules.draw import BLANK_SCALE

# Our dense layers, which have the same names as torch's modules.
DENSE = ("posterior", "write", "read_window", "write_window")


class Sizes(NamedTuple):
    """T steps, B images of S by S pixels, F features, and Z latents per step.

    Attributes:
      read, write: filters N per side of the attention windows; 0 for no attention.
    """

    steps: int
    batch: int
    side: int
    features: int
    latents: int
    read: int
    write: int


class TorchDraw(NamedTuple):
    """The functions of a network.

    Attributes:
      gradient: `gradient(noise [T, B, Z] = None) -> (nats, gradients)`, the mean negative bound per
        image and, by parameter name, the gradient of the bound divided by the number of pixels.
        Noise is drawn if none is given.
      sample: `sample() -> [B, S, S]`, binary images sampled from the prior.
      decode: `decode(latents [T, B, Z]) -> [B, S, S]`, the expected image.
      gradients: converts the gradients from `gradient` to our parameter layout.
    """

    gradient: Callable[..., tuple[Any, dict[str, Any]]]
    sample: Callable[[], Any]
    decode: Callable[[np.ndarray], np.ndarray]
    gradients: Callable[[dict[str, Any]], Params]


def torch_draw(params: Params, sizes: Sizes, images: np.ndarray) -> TorchDraw:
    """Builds the network with our parameters.

    Args:
      params: `params["model"]` of our model, with LSTMs and learned initial carries.
      sizes: the network's sizes.
      images: the training batch, 0 or 1, `[B, S, S]`.
    """
    import torch

    device = set_up_torch()
    net = _modules(sizes)
    net.load_state_dict({name: torch.tensor(a) for name, a in to_torch(params).items()})
    net = net.to(device)
    images = torch.tensor(images, dtype=torch.float32, device=device)
    noise_size = (sizes.steps, sizes.batch, sizes.latents)

    def gradient(noise: np.ndarray | None = None) -> tuple[Any, dict[str, Any]]:
        net.zero_grad(set_to_none=True)
        noise = torch.randn(noise_size, device=device) if noise is None else given(noise)
        nats = _nats(net, sizes, images, noise)
        (nats / sizes.side**2).backward()
        wait_for_torch()
        return nats.detach(), {name: p.grad for name, p in net.named_parameters()}

    def given(array: np.ndarray) -> Any:
        return torch.tensor(array, device=device)

    @torch.no_grad()
    def sample() -> Any:
        latents = torch.randn(noise_size, device=device)
        drawn = torch.bernoulli(_decoded(net, sizes, latents))
        wait_for_torch()
        return drawn

    @torch.no_grad()
    def decode(latents: np.ndarray) -> np.ndarray:
        return _decoded(net, sizes, given(latents)).cpu().numpy()

    def gradients(found: dict[str, Any]) -> Params:
        return from_torch({name: g.cpu().numpy().copy() for name, g in found.items()})

    return TorchDraw(gradient, sample, decode, gradients)


def _modules(sizes: Sizes) -> Any:
    """The modules and parameters, by name."""
    import torch
    from torch import nn

    def first(*size: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(size))

    features, pixels = sizes.features, sizes.side**2
    states = ("seen", "encoder_h", "encoder_c", "decoder_h", "decoder_c")
    modules = {
        "first": nn.ParameterDict(
            {"blank": first(sizes.side, sizes.side), **{name: first(features) for name in states}}
        ),
        "encoder": nn.LSTMCell(2 * (sizes.read**2 or pixels) + features, features),
        "decoder": nn.LSTMCell(sizes.latents, features),
        "posterior": nn.Linear(features, 2 * sizes.latents),
        "write": nn.Linear(features, sizes.write**2 or pixels),
    }
    if sizes.read:
        modules["read_window"] = nn.Linear(features, 5)
    if sizes.write:
        modules["write_window"] = nn.Linear(features, 5)
    return nn.ModuleDict(modules)


def _nats(net: Any, sizes: Sizes, images: Any, noise: Any) -> Any:
    """The negative bound, mean over images (eqs. 3-12)."""
    import torch

    canvas, seen, encoder, decoder = _start(net, sizes.batch)
    kl = 0.0
    for epsilon in noise:
        error = images - torch.sigmoid(canvas)  # (3)
        patch = _read(net, sizes, seen, images, error)  # (4)
        encoder = net["encoder"](torch.cat([patch, seen], 1), encoder)  # (5)
        mean, log_scale = net["posterior"](encoder[0]).chunk(2, 1)  # (1), (2)
        scale = torch.exp(log_scale)
        kl = kl + (0.5 * (mean**2 + scale**2 - 1) - log_scale).sum()  # (10)
        decoder = net["decoder"](mean + scale * epsilon, decoder)  # (6), (7)
        seen = decoder[0]
        canvas = canvas + _write(net, sizes, seen)  # (8)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(canvas, images, reduction="sum")
    return (bce + kl) / sizes.batch  # (12)


def _decoded(net: Any, sizes: Sizes, latents: Any) -> Any:
    """The expected image, given the latents of all steps (eqs. 13-15)."""
    import torch

    canvas, _, _, decoder = _start(net, sizes.batch)
    for z in latents:
        decoder = net["decoder"](z, decoder)
        canvas = canvas + _write(net, sizes, decoder[0])
    return torch.sigmoid(canvas)


def _start(net: Any, batch: int) -> tuple[Any, Any, Any, Any]:
    """The initial canvas `[B, S, S]`, decoder output, and `(h, c)` of encoder and decoder."""
    first = {name: p.expand(batch, *p.shape) for name, p in net["first"].items()}
    encoder, decoder = ((first[f"{name}_h"], first[f"{name}_c"]) for name in ("encoder", "decoder"))
    return BLANK_SCALE * first["blank"], first["seen"], encoder, decoder


def _read(net: Any, sizes: Sizes, seen: Any, images: Any, error: Any) -> Any:
    """Patches of the image and of the error, `[B, 2 N N]` (eqs. 17 and 27)."""
    import torch

    if sizes.read:
        rows, columns, intensity = _banks(net["read_window"](seen), sizes.side, sizes.read)
        columns = columns.transpose(1, 2)
        images, error = (
            intensity * torch.bmm(torch.bmm(rows, x), columns) for x in (images, error)
        )
    return torch.cat([images.flatten(1), error.flatten(1)], 1)


def _write(net: Any, sizes: Sizes, h: Any) -> Any:
    """The addition to the canvas, `[B, S, S]` (eqs. 18 and 29)."""
    import torch

    if not sizes.write:
        return net["write"](h).unflatten(1, (sizes.side, sizes.side))
    patch = net["write"](h).unflatten(1, (sizes.write, sizes.write))
    rows, columns, intensity = _banks(net["write_window"](h), sizes.side, sizes.write)
    return torch.bmm(torch.bmm(rows.transpose(1, 2), patch), columns) / intensity


def _banks(raw: Any, side: int, size: int) -> tuple[Any, Any, Any]:
    """F_Y and F_X `[B, N, S]`, and γ `[B, 1, 1]` (eqs. 19-26)."""
    import torch

    g_x, g_y, log_variance, log_stride, log_gamma = raw[..., None].unbind(1)
    number = torch.arange(1, size + 1, device=raw.device) - size / 2 - 0.5
    pixels = torch.arange(1, side + 1, device=raw.device)
    stride = (side - 1) / max(size - 1, 1) * torch.exp(log_stride)

    def bank(raw_centre: Any) -> Any:
        centres = (side + 1) / 2 * (raw_centre + 1) + number * stride
        away = pixels - centres[..., None]
        return torch.softmax(-(away**2) / (2 * torch.exp(log_variance)[..., None]), -1)

    return bank(g_y), bank(g_x), torch.exp(log_gamma)[..., None]


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Our parameters by torch's names; our biases are the first of torch's two."""
    found = {"first.blank": params["blank"][..., 0], "first.seen": params["seen"]}
    for name in ("encoder", "decoder"):
        wide = widen(params[name]["cell"], GATES["lstm"])
        found |= {
            f"{name}.weight_ih": wide.input.T,
            f"{name}.weight_hh": wide.recurrent.T,
            f"{name}.bias_ih": wide.bias,
            f"{name}.bias_hh": np.zeros_like(wide.bias),
            f"first.{name}_h": params[name]["carry"]["0"],
            f"first.{name}_c": params[name]["carry"]["1"],
        }
    for name in (name for name in DENSE if name in params):
        found |= {f"{name}.weight": params[name]["kernel"].T, f"{name}.bias": params[name]["bias"]}
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def from_torch(found: dict[str, np.ndarray]) -> Params:
    """Undoes `to_torch`."""
    params: Params = {"blank": found["first.blank"][..., None], "seen": found["first.seen"]}
    for name in ("encoder", "decoder"):
        ih, hh = found[f"{name}.weight_ih"].T, found[f"{name}.weight_hh"].T
        wide = Wide(ih, hh, found[f"{name}.bias_ih"])
        carry = {str(n): found[f"first.{name}_{part}"] for n, part in enumerate("hc")}
        params[name] = {"cell": narrow(wide, GATES["lstm"]), "carry": carry}
    for name in (name for name in DENSE if f"{name}.weight" in found):
        params[name] = {"kernel": found[f"{name}.weight"].T, "bias": found[f"{name}.bias"]}
    return params
