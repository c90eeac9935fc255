"""Data sources, one per file and named after it; the text after ":" is a source's argument.

To add a source, add a file with `load_source(argument, config) -> Source`; nothing else changes.
Where the argument is a path, `canonical(argument)` normalises it; where it leaves the version
open, `continued(argument, begun)` takes the one that a run began with.
"""

import importlib
from types import ModuleType

from rnngen_jax.config import nearest, refuse_unread
from rnngen_jax.data.base import DataConfig, Dataset
from rnngen_jax.discovery import defining
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import spec_of


def names() -> list[str]:
    """Names of all sources: files that define `load_source`."""
    return defining(__path__, "load_source")


def canonical(name: str) -> str:
    """A source's name with its path resolved: equal for names of the same data.

    `name` itself if the source is unknown or takes no path.
    """
    kind, colon, argument = name.partition(":")
    resolve = getattr(_module(kind), "canonical", None) if kind in names() else None
    return f"{kind}{colon}{resolve(argument)}" if resolve and argument else name


def continued(name: str, begun: str) -> str:
    """The name of the data that a run goes on with, given the one that it began with.

    `begun`, if that says more exactly which data `name` names; otherwise `name`.
    """
    kind, colon, argument = name.partition(":")
    before, _, other = begun.partition(":")
    if kind != before or kind not in names():
        return name
    settle = getattr(_module(kind), "continued", None)
    return f"{kind}{colon}{settle(argument, other)}" if settle and argument else name


def load(config: DataConfig) -> Dataset:
    """Opens a data set with its three splits, binarised as configured.

    A source's own splits are kept. A missing test split is the last `validation_fraction` of
    train; a missing validation split is the `validation_fraction` before that, or the last one
    if the source has a test split. Static and threshold binarisation happen in `read`.

    Args:
      config: the source, its binarisation and `validation_fraction`.

    Returns:
      The data set; `spec` has 2 levels under any binarisation.

    Raises:
      UserError: an unknown source, missing or invalid files, more classes than
        `source.MOST_CLASSES`, or fields of sequences for still images.
    """
    # Imported here: configs import this package for `DataConfig` and should load fast.
    from rnngen_jax.data import binarise, source

    name, _, argument = config.name.partition(":")
    if name not in names():
        raise UserError(
            f"config.data.name={config.name!r} is not a data source; {nearest(name, names())}"
        )
    found = _module(name).load_source(argument, config)
    source.check_classes(found.classes, config.name)
    for field in ("context", "horizon") if len(found.shape) == 3 else ():
        refuse_unread(config, "config.data", field, ["name"], ", whose items are still images")
    # Before the split, as a static draw is keyed by an image's index in the source.
    splits = {
        split: binarise.binarised(split, images, config.binarisation, found.levels)
        for split, images in found.splits.items()
    }
    splits = source.cut(splits, config.validation_fraction, config.name)
    fixed = config.binarisation in ("static", "threshold")
    if config.binarisation != "none" and found.levels > 256:
        raise UserError(
            f"config.data.binarisation must be 'none' for the {found.levels} codes of "
            f"{config.name}, got {config.binarisation!r}."
        )
    levels = found.levels if config.binarisation == "none" else 2
    return Dataset(
        name=config.name,
        spec=spec_of(found.shape, levels, found.classes),
        splits=splits,
        binarisation=config.binarisation,
        raw_levels=2 if fixed else found.levels,
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
