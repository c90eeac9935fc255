"""Models, one file each, named after the file."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from rnngen_jax.config import from_mapping, nearest
from rnngen_jax.discovery import defining
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec


def names() -> list[str]:
    """Names of all models: the files that define a `Config` and `build`."""
    return defining(__path__, "Config", "build")


def config_class(name: str) -> type[Any]:
    """The `Config` dataclass of a model.

    Raises:
      UserError: there is no such model.
    """
    if name not in names():
        raise UserError(f"config.model.name={name!r} is not a model; {nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}").Config


def players(name: str) -> Mapping[str, str]:
    """The config section that trains each player of a model, by player.

    The players are the keys of the model's `params` and `losses`, in the order of their updates. A
    `Config` with several players lists them in `PLAYERS`; players may share a section.

    Raises:
      UserError: there is no such model.
    """
    return getattr(config_class(name), "PLAYERS", {"model": "optimizer"})


def tokenizers() -> list[str]:
    """Names of the models whose codes a prior can be trained on."""
    return [name for name in names() if gives_codes(name)]


def gives_codes(name: str) -> bool:
    """Whether a prior can be trained on the codes of the model `name`; not for unknown names."""
    return name in names() and getattr(config_class(name), "CODES", False)


def orders(name: str) -> tuple[str, ...]:
    """The pixel orders that a model supports, values of its field `order`.

    Empty for a model without that field.

    Raises:
      UserError: there is no such model.
    """
    return getattr(config_class(name), "ORDERS", ())


def build(name: str, config: Any, spec: ImageSpec, *others: Any) -> Model:
    """Builds the model `name` for images like `spec`.

    Args:
      name: one of `names()`.
      config: the model's `Config`, or a mapping of its fields, which is checked.
      spec: the images.
      others: what else the model is built from, such as a trained classifier.

    Raises:
      UserError: an unknown model or field, or a value unsuitable for the images.
    """
    if isinstance(config, Mapping):
        config = from_mapping(config_class(name), config, "config.model")
    return importlib.import_module(f"{__name__}.{name}").build(config, spec, *others)


def level_builder(name: str) -> Callable[..., Callable[..., Model]] | None:
    """What builds a model of one of several levels of codes; `None` for models of one grid.

    `build_level(config, spec, coarser=None) -> part` of the model's file, for grids like `spec`
    given those of a coarser level (`models.levels.Coarser`), with `part` as in
    `models.levels.over_levels`.
    """
    return getattr(importlib.import_module(f"{__name__}.{name}"), "build_level", None)
