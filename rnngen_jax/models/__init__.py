"""Models, one file each, named after the file."""

import importlib
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


def players(name: str) -> tuple[str, ...]:
    """The players of a model in the order of their updates: the keys of `params` and `losses`.

    Raises:
      UserError: there is no such model.
    """
    return getattr(config_class(name), "PLAYERS", ("model",))


def orders(name: str) -> tuple[str, ...]:
    """The pixel orders that a model supports, values of its field `order`.

    Empty for a model without that field.

    Raises:
      UserError: there is no such model.
    """
    return getattr(config_class(name), "ORDERS", ())


def build(name: str, fields: dict[str, Any], spec: ImageSpec) -> Model:
    """Builds the model `name` for images like `spec`.

    Args:
      name: one of `names()`.
      fields: values of the model's `Config` by name, without `name`.
      spec: the images.

    Raises:
      UserError: an unknown model or field, or a value unsuitable for the images.
    """
    config = from_mapping(config_class(name), fields, "config.model")
    return importlib.import_module(f"{__name__}.{name}").build(config, spec)
