"""The networks and quantisers of a VQ-VAE, of one level of codes or two."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.base import Extra, Params
from rnngen_jax.models.levels import NAMES, Grids
from rnngen_jax.modules.quantisers import Quantiser
from rnngen_jax.modules.quantisers.base import Alternatives, Assigned, Quantised, Train
from rnngen_jax.modules.vqvae import (
    BottomEncoder,
    CodeDecoder,
    CodeEncoder,
    CodeFeatures,
    LevelsDecoder,
    TopEncoder,
    sizes,
)
from rnngen_jax.shapes import ImageSpec


class CodeNetworks(NamedTuple):
    """Encoder, quantisers and decoder as functions of the parameters of the player "model".

    Vectors, indices and codes are those of one grid, or of several levels a tuple of grids.

    Attributes:
      specs: the grids of codes of each level, the coarsest first.
      init: `init(key) -> (params, extra)`.
      quantise: `quantise(params, extra, image, train) -> Quantised`, of an image's vectors.
      alternatives: `alternatives(params, extra, image, count)`, the `Alternatives` of each level's
        vectors; those of a level are for the own codes of the coarser ones.
      vectors: `vectors(params, extra, codes)`, the vectors of codes.
      decode: `decode(params, extra, vectors) -> raw [B, H, W, C, P]`.
    """

    specs: tuple[ImageSpec, ...]
    init: Callable[[Array], tuple[Params, Extra]]
    quantise: Callable[[Params, Extra, Array, Train], Quantised]
    alternatives: Callable[[Params, Extra, Array, int], tuple[Alternatives, ...]]
    vectors: Callable[[Params, Extra, Grids], Any]
    decode: Callable[[Params, Extra, Any], Array]


def one_level(shared: dict[str, Any], quantiser: Quantiser, width: int, size: int) -> CodeNetworks:
    """An encoder to one grid (van den Oord et al. 2017).

    Args:
      shared: the fields of a `modules.vqvae.CodeNetwork`.
      quantiser: of vectors of the width.
      width: D.
      size: raw outputs P per value.
    """
    spec = shared["spec"]
    encoder = CodeEncoder(vectors=width, **shared)
    decoder = CodeDecoder(size=size, **shared)
    height, columns = sizes(spec.height, spec.width, shared["stages"])[-1]

    def init(key: Array) -> tuple[Params, Extra]:
        image = jnp.zeros((1, *spec.shape), jnp.int32)
        vectors = jnp.zeros((1, height, columns, width))
        own, extra = quantiser.init(keys.named(key, "quantiser"))
        params = {
            "encoder": encoder.init(keys.named(key, "encoder"), image)["params"],
            "quantiser": own,
            "decoder": decoder.init(keys.named(key, "decoder"), vectors)["params"],
        }
        return {"model": params}, {"quantiser": extra}

    def encoded(params: Params, image: Array) -> Array:
        return encoder.apply({"params": params["model"]["encoder"]}, image.astype(jnp.int32))

    def quantise(params: Params, extra: Extra, image: Array, train: Train = None) -> Quantised:
        own = params["model"]["quantiser"], extra["quantiser"]
        return quantiser.quantise(*own, encoded(params, image), train)

    def alternatives(
        params: Params, extra: Extra, image: Array, count: int
    ) -> tuple[Alternatives, ...]:
        own, z = (params["model"]["quantiser"], extra["quantiser"]), encoded(params, image)
        found = quantiser.quantise(*own, z).indices
        return (quantiser.alternatives(*own, z, found, count),)

    def vectors_of(params: Params, extra: Extra, codes: Array) -> Array:
        own = params["model"]["quantiser"], extra["quantiser"]
        return quantiser.decode(*own, codes.astype(jnp.int32))

    def decode(params: Params, extra: Extra, vectors: Array) -> Array:
        del extra
        return decoder.apply({"params": params["model"]["decoder"]}, vectors)

    grid = ImageSpec(height, columns, quantiser.depth, quantiser.codes, spec.classes)
    return CodeNetworks((grid,), init, quantise, alternatives, vectors_of, decode)


def two_levels(shared: dict[str, Any], quantiser: Quantiser, width: int, size: int) -> CodeNetworks:
    """An encoder to two grids, the top half the size of the bottom (Razavi et al. 2019, alg. 1).

    The top is quantised first; the bottom's vectors are those of its features and of the quantised
    top, and the decoder sees both. Each level has quantisers of its own.

    Args:
      shared, quantiser, width, size: as for `one_level`.
    """
    spec = shared["spec"]
    names = NAMES[2]
    networks = {
        "features": CodeFeatures(**shared),
        "top": TopEncoder(vectors=width, **shared),
        "bottom": BottomEncoder(vectors=width, **shared),
        "decoder": LevelsDecoder(size=size, **shared),
    }
    bottom = sizes(spec.height, spec.width, shared["stages"])[-1]
    top = tuple(-(-side // 2) for side in bottom)
    deep = (quantiser.depth, quantiser.codes, spec.classes)
    specs = ImageSpec(*top, *deep), ImageSpec(*bottom, *deep)

    def init(key: Array) -> tuple[Params, Extra]:
        params: Params = {}

        def run(name: str, *inputs: Any) -> Array:
            found, variables = networks[name].init_with_output(keys.named(key, name), *inputs)
            params[name] = variables["params"]
            return found

        features = run("features", jnp.zeros((1, *spec.shape), jnp.int32))
        z = run("top", features)
        run("decoder", (z, run("bottom", features, z)))
        each = {name: quantiser.init(keys.named(key, f"{name} quantiser")) for name in names}
        params["quantiser"] = {name: own for name, (own, _) in each.items()}
        return {"model": params}, {"quantiser": {name: extra for name, (_, extra) in each.items()}}

    def apply(params: Params, name: str, *inputs: Any) -> Array:
        return networks[name].apply({"params": params["model"][name]}, *inputs)

    def assigned(
        params: Params, extra: Extra, image: Array, train: Train
    ) -> tuple[list[Array], list[Assigned]]:
        """The vectors of each level, and what its quantiser makes of them."""
        own, state = params["model"]["quantiser"], extra["quantiser"]

        def assign(name: str, z: Array) -> Assigned:
            noise = None if train is None else (keys.named(train[0], name), train[1])
            return quantiser.assign(own[name], state[name], z, noise, None)

        features = apply(params, "features", image.astype(jnp.int32))
        top = apply(params, "top", features)
        of_top = assign("top", top)
        bottom = apply(params, "bottom", features, of_top.values)
        return [top, bottom], [of_top, assign("bottom", bottom)]

    def quantise(params: Params, extra: Extra, image: Array, train: Train = None) -> Quantised:
        own, state = params["model"]["quantiser"], extra["quantiser"]
        _, found = assigned(params, extra, image, train)
        if train is not None:
            moved = quantiser.moved([own[name] for name in names], found)
            state = dict(zip(names, moved, strict=True))
        losses = {
            f"{name}/{loss}": value
            for name, one in zip(names, found, strict=True)
            for loss, value in one.losses.items()
        }
        values, indices = (
            tuple(getattr(one, part) for one in found) for part in ("values", "indices")
        )
        return Quantised(values, indices, losses, jax.lax.stop_gradient(state))

    def alternatives(
        params: Params, extra: Extra, image: Array, count: int
    ) -> tuple[Alternatives, ...]:
        own, state = params["model"]["quantiser"], extra["quantiser"]
        each = zip(names, *assigned(params, extra, image, None), strict=True)
        return tuple(
            quantiser.alternatives(own[name], state[name], z, found.indices, count)
            for name, z, found in each
        )

    def vectors_of(params: Params, extra: Extra, codes: tuple[Array, ...]) -> tuple[Array, ...]:
        own, state = params["model"]["quantiser"], extra["quantiser"]
        each = zip(names, codes, strict=True)
        return tuple(quantiser.decode(own[n], state[n], c.astype(jnp.int32)) for n, c in each)

    def decode(params: Params, extra: Extra, vectors: tuple[Array, ...]) -> Array:
        del extra
        return apply(params, "decoder", vectors)

    return CodeNetworks(specs, init, quantise, alternatives, vectors_of, decode)
