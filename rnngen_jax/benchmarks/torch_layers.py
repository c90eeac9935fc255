"""Correspondence between our layers' parameters and those of torch's, in both directions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.cells.base import Params

State = Mapping[str, np.ndarray]  # torch's parameters by name


class Correspondence(NamedTuple):
    """A layer that both sides have.

    Attributes:
      ours: its path in our parameters.
      theirs: its name in torch's module, as in a state dict.
      to_torch: from our parameters of the layer to torch's by name.
      from_torch: the inverse.
    """

    ours: tuple[str, ...]
    theirs: str
    to_torch: Callable[[Params], dict[str, np.ndarray]]
    from_torch: Callable[[State], Params]


def to_torch(params: Params, layers: Sequence[Correspondence]) -> dict[str, np.ndarray]:
    """Our parameters of some layers as a state dict."""
    found = {}
    for layer in layers:
        own = params
        for part in layer.ours:
            own = own[part]
        for name, theirs in layer.to_torch(own).items():
            found[f"{layer.theirs}.{name}"] = np.ascontiguousarray(theirs)
    return found


def from_torch(state: State, layers: Sequence[Correspondence]) -> Params:
    """Undoes `to_torch`."""
    found: Params = {}
    for layer in layers:
        prefix = f"{layer.theirs}."
        own = {name.removeprefix(prefix): a for name, a in state.items() if name.startswith(prefix)}
        inside = found
        for part in layer.ours[:-1]:
            inside = inside.setdefault(part, {})
        inside[layer.ours[-1]] = layer.from_torch(own)
    return found


def dense(
    ours: tuple[str, ...],
    theirs: str,
    inputs: tuple[int, ...] | None = None,
    outputs: tuple[int, ...] | None = None,
) -> Correspondence:
    """A dense layer, whose `inputs` or `outputs` may be maps `(H, W, F)`; torch has F first."""

    def turned(kernel: np.ndarray, axis: int, shape: tuple[int, ...] | None, back: bool) -> Any:
        if shape is None:
            return kernel
        height, width, features = shape
        cut = (features, height, width) if back else shape
        order = (1, 2, 0) if back else (2, 0, 1)
        whole = np.moveaxis(kernel, axis, -1).reshape(-1, *cut)
        whole = whole.transpose(0, *(1 + place for place in order)).reshape(len(whole), -1)
        rest = np.delete(kernel.shape, axis)
        return np.moveaxis(whole.reshape(*rest, -1), -1, axis)

    def there(own: Params) -> dict[str, np.ndarray]:
        kernel = turned(turned(own["kernel"], 0, inputs, False), 1, outputs, False)
        return {"weight": kernel.T, "bias": turned(own["bias"], 0, outputs, False)}

    def back(own: State) -> Params:
        kernel = turned(turned(own["weight"].T, 0, inputs, True), 1, outputs, True)
        return {"kernel": kernel, "bias": turned(own["bias"], 0, outputs, True)}

    return Correspondence(ours, theirs, there, back)


def norm(ours: tuple[str, ...], theirs: str) -> Correspondence:
    """Batch normalisation."""
    return Correspondence(
        ours,
        theirs,
        lambda own: {"weight": own["scale"], "bias": own["bias"]},
        lambda own: {"scale": own["weight"], "bias": own["bias"]},
    )


def same(ours: tuple[str, ...], theirs: str, side: int) -> Correspondence:
    """A convolution of stride 1; of side 1 it is our dense layer over a map."""

    def there(own: Params) -> dict[str, np.ndarray]:
        kernel = own["kernel"].reshape(side, side, -1, own["kernel"].shape[-1])
        return {"weight": kernel.transpose(3, 2, 0, 1), "bias": own["bias"]}

    def back(own: State) -> Params:
        kernel = own["weight"].transpose(2, 3, 1, 0)
        return {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": own["bias"]}

    return Correspondence(ours, theirs, there, back)


def halve(ours: tuple[str, ...], theirs: str) -> Correspondence:
    """A 4x4 convolution of stride 2."""

    def there(own: Params) -> dict[str, np.ndarray]:
        kernel = own["kernel"]
        kernel = kernel.reshape(2, 2, 2, 2, -1, kernel.shape[-1]).swapaxes(1, 2)
        kernel = kernel.reshape(4, 4, *kernel.shape[-2:])
        return {"weight": kernel.transpose(3, 2, 0, 1), "bias": own["bias"]}

    def back(own: State) -> Params:
        kernel = own["weight"].transpose(2, 3, 1, 0)
        kernel = kernel.reshape(2, 2, 2, 2, *kernel.shape[-2:]).swapaxes(1, 2)
        return {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": own["bias"]}

    return Correspondence(ours, theirs, there, back)


def double(ours: tuple[str, ...], theirs: str) -> Correspondence:
    """A transposed 4x4 convolution of stride 2."""

    def there(own: Params) -> dict[str, np.ndarray]:
        kernel = own["kernel"].reshape(len(own["kernel"]), 4, 4, -1)
        return {"weight": kernel.transpose(0, 3, 1, 2), "bias": own["bias"]}

    def back(own: State) -> Params:
        kernel = own["weight"].transpose(0, 2, 3, 1)
        return {"kernel": kernel.reshape(len(kernel), -1), "bias": own["bias"]}

    return Correspondence(ours, theirs, there, back)
