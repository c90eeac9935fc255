"""Quantisers, one kind per file. A quantiser, its file and its function share one name."""

import importlib

from rnngen_jax.config import options, require, require_choice
from rnngen_jax.discovery import modules
from rnngen_jax.modules.quantisers.base import Quantiser
from rnngen_jax.modules.quantisers.composed import grouped, projected, residual


def names() -> list[str]:
    """Names of all quantisers: files that define a function of the same name, `features` first."""
    found = modules(__path__).items()
    return sorted(name for name, file in found if (file.get(name) or ())[:1] == ("features",))


def from_spec(spec: str, features: int) -> Quantiser:
    """Builds the quantiser that a spec string names.

    Args:
      spec: a quantiser's name and, after a colon, its options: `"codebook"`, `"fsq:levels=8x5x5"`,
        `"codebook:codes=256,update=gradient,estimator=rotation"`.
      features: width of the vectors; some quantisers have a width of their own.

    Raises:
      UserError: an unknown quantiser or option, or an option of the wrong type or out of range.
    """
    name, _, text = spec.partition(":")
    require_choice("quantiser", name, names())
    function = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return function(features, **options(function, f"quantiser {name!r}", text))


def build(
    spec: str, features: int, *, depth: int = 1, groups: int = 1, dropout: bool = False
) -> Quantiser:
    """Builds a quantiser of vectors `[..., features]`: groups, each of several depths.

    Vectors of another width than the quantiser's own are projected to it and back.

    Args:
      spec: as for `from_spec`.
      features: D.
      depth: quantisers in depth, each of what the ones before it left.
      groups: parts of the vector with codes of their own.
      dropout: as for `residual`.

    Raises:
      UserError: as for `from_spec`; sizes that do not fit.
    """
    require(depth >= 1, "config.model.depth", depth, "≥ 1")
    fits = groups >= 1 and features % groups == 0
    require(fits, "config.model.groups", groups, f"≥ 1 and a divisor of the width, {features}")

    def one() -> Quantiser:
        if depth == 1:
            return from_spec(spec, features // groups)
        return residual([from_spec(spec, features // groups) for _ in range(depth)], dropout)

    found = one() if groups == 1 else grouped([one() for _ in range(groups)])
    return found if found.features == features else projected(found, features)
