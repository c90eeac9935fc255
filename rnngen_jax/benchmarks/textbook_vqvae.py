"""A VQ-VAE in plain PyTorch: eager modules, Adam, and the codebook of vector-quantize-pytorch.

It computes the same as `models/vqvae.py` with two halvings and one residual block on either side,
from the same parameters. Torch is imported only inside functions, as in `peers/`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.benchmarks import torch_layers
from rnngen_jax.benchmarks.machine import set_up_torch, wait_for_torch
from rnngen_jax.benchmarks.torch_layers import double, halve, same
from rnngen_jax.cells.base import Params

LEARNING_RATE, BETAS = 2e-3, (0.9, 0.999)
DECAY, BETA = 0.99, 0.25
LAYERS = {
    "encoder": [
        halve(("Halve_0",), "0"),
        halve(("Halve_1",), "2"),
        same(("Same_0",), "3.wide", 3),
        same(("Dense_1",), "3.narrow", 1),
        same(("Dense_0",), "5", 1),
    ],
    "decoder": [
        same(("Same_0",), "0", 3),
        same(("Same_1",), "1.wide", 3),
        same(("Dense_0",), "1.narrow", 1),
        double(("Double_0",), "3"),
        double(("Double_1",), "5"),
    ],
}


class Sizes(NamedTuple):
    """B images of S by S pixels, F features in the largest map, and K codes of D numbers.

    Attributes:
      readout: "bernoulli" or "logistic_mixture".
      levels: grey levels.
      mixtures: components of the mixture.
    """

    readout: str
    levels: int
    batch: int
    side: int
    features: int
    codes: int
    vectors: int
    mixtures: int


class TorchVqvae(NamedTuple):
    """The functions of the model.

    Attributes:
      train: `train(images [K, B, S, S]) -> losses [K]`: K steps; images are int.
      params: the current parameters, in our layout.
      codes: the current codebook, `[K, D]`.
    """

    train: Callable[[np.ndarray], Any]
    params: Callable[[], Params]
    codes: Callable[[], np.ndarray]


def torch_vqvae(params: Params, codebook: np.ndarray, count: float, sizes: Sizes) -> TorchVqvae:
    """Builds the model from our parameters and codes.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      codebook: `[K, D]`.
      count: average number of vectors per batch that each code begins with.
      sizes: of images and networks.
    """
    import torch
    from vector_quantize_pytorch import VectorQuantize

    device = set_up_torch()
    networks = _networks(sizes)
    for name, network in networks.items():
        state = torch_layers.to_torch(params[name], LAYERS[name])
        network.load_state_dict({key: torch.tensor(a) for key, a in state.items()})
    # Of its gradients, our default; and no code is ever dead.
    quantiser = VectorQuantize(
        sizes.vectors,
        sizes.codes,
        decay=DECAY,
        commitment_weight=BETA,
        accept_image_fmap=True,
        rotation_trick=False,
    )
    inner = quantiser._codebook
    inner.embed.copy_(torch.tensor(codebook)[None])
    inner.embed_avg.copy_(count * inner.embed)
    inner.cluster_size.fill_(count)
    encoder, decoder = (networks[name].to(device).train() for name in ("encoder", "decoder"))
    quantiser = quantiser.to(device).train()
    likelihood = {"bernoulli": _bernoulli, "logistic_mixture": _mixture}[sizes.readout](sizes)
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE, betas=BETAS)

    def train(images: np.ndarray) -> Any:
        losses = []
        for batch in torch.tensor(images, device=device):
            values = batch.float()
            optimizer.zero_grad(set_to_none=True)
            z = encoder(2 * values.unsqueeze(1) / (sizes.levels - 1) - 1)
            q, _, commitment = quantiser(z)
            loss = -likelihood(decoder(q), values).mean() + commitment.sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        wait_for_torch()
        return torch.stack(losses).cpu().numpy()

    def current() -> Params:
        found = {}
        for name, network in networks.items():
            state = {key: a.detach().cpu().numpy() for key, a in network.named_parameters()}
            found[name] = torch_layers.from_torch(state, LAYERS[name])
        return found

    return TorchVqvae(train, current, lambda: inner.embed[0].cpu().numpy().copy())


def _networks(sizes: Sizes) -> dict[str, Any]:
    """Encoder and decoder, whose layers are named as in `LAYERS`."""
    import torch
    from torch import nn

    narrow, wide = sizes.features, 2 * sizes.features
    outputs = 1 if sizes.readout == "bernoulli" else 3 * sizes.mixtures

    class Residual(nn.Module):
        """x + W₁ f(W₃ f(x)), with kernels of 3x3 and 1x1."""

        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(wide, wide, 3, padding=1)
            self.narrow = nn.Conv2d(wide, wide, 1)

        def forward(self, x: Any) -> Any:
            elu = torch.nn.functional.elu
            return x + self.narrow(elu(self.wide(elu(x))))

    encoder = nn.Sequential(
        nn.Conv2d(1, narrow, 4, 2, 1),
        nn.ELU(),
        nn.Conv2d(narrow, wide, 4, 2, 1),
        Residual(),
        nn.ELU(),
        nn.Conv2d(wide, sizes.vectors, 1),
    )
    decoder = nn.Sequential(
        nn.Conv2d(sizes.vectors, wide, 3, padding=1),
        Residual(),
        nn.ELU(),
        nn.ConvTranspose2d(wide, narrow, 4, 2, 1),
        nn.ELU(),
        nn.ConvTranspose2d(narrow, outputs, 4, 2, 1),
    )
    return {"encoder": encoder, "decoder": decoder}


def _bernoulli(sizes: Sizes) -> Callable[[Any, Any], Any]:
    """log p of binary pixels `[B, S, S]`, given logits `[B, 1, S, S]`."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    del sizes

    def log_prob(raw: Any, values: Any) -> Any:
        return -binary_cross_entropy_with_logits(raw[:, 0], values, reduction="none")

    return log_prob


def _mixture(sizes: Sizes) -> Callable[[Any, Any], Any]:
    """log p of pixels `[B, S, S]` under a discretised mixture, given `[B, 3·M, S, S]`."""
    import torch
    from torch.nn.functional import log_softmax, logsigmoid

    top, half_bin = sizes.levels - 1, 1 / (sizes.levels - 1)

    def log_prob(raw: Any, values: Any) -> Any:
        logit, mean, log_scale = raw.chunk(3, dim=1)
        value, inverse = values.unsqueeze(1), torch.exp(-log_scale.clamp(min=-7.0))
        centred = 2 * value / top - 1 - mean
        below, above = (centred - half_bin) * inverse, (centred + half_bin) * inverse
        zero = torch.zeros_like(mean)
        upper = torch.where(value == top, zero, logsigmoid(above))
        lower = torch.where(value == 0, zero, logsigmoid(-below))
        inner = (value > 0) & (value < top)
        width = torch.where(inner, torch.log(-torch.expm1(-2 * half_bin * inverse)), zero)
        return torch.logsumexp(log_softmax(logit, dim=1) + upper + lower + width, dim=1)

    return log_prob
