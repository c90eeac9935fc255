"""Two GANs in plain PyTorch: eager modules, two Adam optimisers, a loop over batches.

They compute the same as `models/mlp_gan.py` and `models/dcgan.py` with the non-saturating loss,
from the same parameters. Torch is imported only inside functions, as in `peers/`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.benchmarks import torch_layers
from rnngen_jax.benchmarks.machine import set_up_torch, wait_for_torch
from rnngen_jax.benchmarks.torch_layers import Correspondence, dense, double, halve, norm
from rnngen_jax.cells.base import Params

SLOPE = 0.2
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)


class Sizes(NamedTuple):
    """B images of S by S pixels, noise vectors of size Z, and F features or units.

    Attributes:
      kind: "mlp_gan" or "dcgan".
    """

    kind: str
    batch: int
    side: int
    noise: int
    features: int


class TorchGan(NamedTuple):
    """The functions of the two players.

    Attributes:
      train: `train(images [K, B, S, S], noise [K, 2, B, Z] = None) -> losses [K, 2]`: K steps of
        the discriminator, then the generator. Noise is drawn if none is given.
      params: the current parameters, in our layout.
    """

    train: Callable[..., Any]
    params: Callable[[], Params]


def torch_gan(params: Params, sizes: Sizes) -> TorchGan:
    """Builds both players from our parameters, `{"generator": ..., "discriminator": ...}`."""
    import torch
    from torch.nn.functional import softplus

    device = set_up_torch()
    players = _players(sizes)
    for player, weights in to_torch(params, sizes).items():
        players[player].load_state_dict(
            {name: torch.tensor(a) for name, a in weights.items()}, strict=False
        )
        players[player] = players[player].to(device).train()
    generator, discriminator = players["generator"], players["discriminator"]
    optimizers = {
        name: torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, betas=BETAS)
        for name, net in players.items()
    }

    def train(images: np.ndarray, noise: np.ndarray | None = None) -> Any:
        losses = []
        given = None if noise is None else torch.tensor(noise, device=device)
        for number, batch in enumerate(torch.tensor(images, device=device)):
            real = (2 * batch - 1).unsqueeze(1)
            drawn = [
                torch.randn(sizes.batch, sizes.noise, device=device)
                if given is None
                else given[number, player]
                for player in range(2)
            ]
            optimizers["discriminator"].zero_grad(set_to_none=True)
            fake = generator(drawn[0]).detach()
            first = softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()
            first.backward()
            optimizers["discriminator"].step()

            optimizers["generator"].zero_grad(set_to_none=True)
            second = softplus(-discriminator(generator(drawn[1]))).mean()
            second.backward()
            optimizers["generator"].step()
            losses.append(torch.stack([first.detach(), second.detach()]))
        wait_for_torch()
        return torch.stack(losses).cpu().numpy()

    def current() -> Params:
        states = {
            player: {name: a.detach().cpu().numpy() for name, a in net.named_parameters()}
            for player, net in players.items()
        }
        return from_torch(states, sizes)

    return TorchGan(train, current)


def to_torch(params: Params, sizes: Sizes) -> dict[str, dict[str, np.ndarray]]:
    """Each player's parameters by torch's names."""
    players = _layers(sizes).items()
    return {player: torch_layers.to_torch(params[player], layers) for player, layers in players}


def from_torch(states: dict[str, dict[str, np.ndarray]], sizes: Sizes) -> Params:
    """Undoes `to_torch`."""
    players = _layers(sizes).items()
    return {player: torch_layers.from_torch(states[player], layers) for player, layers in players}


def _maps(sizes: Sizes) -> tuple[int, list[int]]:
    """The smallest map's side, and the features of the maps from the smallest up."""
    return sizes.side // 4, [2 * sizes.features, sizes.features]


def _players(sizes: Sizes) -> dict[str, Any]:
    """The modules, whose layers are numbered as in `_layers`."""
    from torch import nn

    side, features = sizes.side, sizes.features
    if sizes.kind == "mlp_gan":
        generator = nn.Sequential(
            nn.Linear(sizes.noise, features),
            nn.LeakyReLU(SLOPE),
            nn.Linear(features, features),
            nn.LeakyReLU(SLOPE),
            nn.Linear(features, side * side),
            nn.Tanh(),
            nn.Unflatten(1, (1, side, side)),
        )
        discriminator = nn.Sequential(
            nn.Flatten(),
            nn.Linear(side * side, features),
            nn.LeakyReLU(SLOPE),
            nn.Linear(features, features),
            nn.LeakyReLU(SLOPE),
            nn.Linear(features, 1),
            nn.Flatten(0),
        )
    else:
        small, (wide, narrow) = _maps(sizes)
        generator = nn.Sequential(
            nn.Linear(sizes.noise, small * small * wide),
            nn.Unflatten(1, (wide, small, small)),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(wide, narrow, 4, 2, 1),
            nn.BatchNorm2d(narrow),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(narrow, 1, 4, 2, 1),
            nn.Tanh(),
        )
        discriminator = nn.Sequential(
            nn.Conv2d(1, narrow, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(narrow, wide, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(small * small * wide, 1),
            nn.Flatten(0),
        )
    return {"generator": generator, "discriminator": discriminator}


def _layers(sizes: Sizes) -> dict[str, list[Correspondence]]:
    """The correspondence between our layers and torch's, by player."""
    if sizes.kind == "mlp_gan":
        return {
            "generator": [dense((f"Dense_{n}",), f"{2 * n}") for n in range(3)],
            "discriminator": [
                dense(("body", "Dense_0"), "1"),
                dense(("body", "Dense_1"), "3"),
                dense(("score",), "5"),
            ],
        }
    small, (wide, _) = _maps(sizes)
    return {
        "generator": [
            dense(("Dense_0",), "0", outputs=(small, small, wide)),
            norm(("BatchNorm_0",), "2"),
            double(("Double_0",), "4"),
            norm(("BatchNorm_1",), "5"),
            double(("Double_1",), "7"),
        ],
        "discriminator": [
            halve(("body", "Halve_0"), "0"),
            halve(("body", "Halve_1"), "2"),
            dense(("score",), "5", inputs=(small, small, wide)),
        ],
    }
