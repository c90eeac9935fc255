"""Config files: those that ship, and finding the one that `--config` names."""

import importlib.machinery
import importlib.util
import pathlib
from typing import TYPE_CHECKING

from rnngen_jax.config import closest
from rnngen_jax.discovery import definitions
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def folder() -> pathlib.Path:
    """The folder of the configs that ship: inside the installed package, or beside the source."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Names of the configs that ship."""
    return sorted(path.stem for path in _configs(folder()))


def find(given: str) -> str:
    """The path of the config file that `--config` names, without what follows a colon.

    Args:
      given: a Python file, or the name of a config that ships, such as "pixel_rnn". An existing
        file takes precedence.

    Raises:
      UserError: neither; names the closest of the files beside it and of those that ship.
    """
    path, allowed = pathlib.Path(given), f"give a Python file, or one of {', '.join(names())}."
    if path.is_file():
        if path.suffix in ("", ".py"):
            return given
        raise UserError(f"{given!r} is not a Python file; {allowed}")
    if given in names():
        return str(folder() / f"{given}.py")
    known = {name: name for name in names()}
    known |= {file.stem: str(file) for file in _configs(path.parent)}
    close = closest(path.stem, known)
    hint = f"did you mean {known[close]}?" if close else allowed
    raise UserError(f"there is no file {given!r}; {hint}")


def load(given: str) -> "ConfigDict":
    """The config that `--config=GIVEN` starts from, for `train` in Python.

    Its fields can be set before training: `config.model.cell = "lstm"`.

    Args:
      given: a Python file, or the name of a config that ships, with `:PRESET` if it has any:
        "pixel_rnn", "row_lstm:mnist", "my_config.py".

    Raises:
      UserError: no such file, or none of its presets.
    """
    name, colon, preset = given.partition(":")
    loader = importlib.machinery.SourceFileLoader("rnngen_config", find(name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module.get_config(preset) if colon else module.get_config()


def _configs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The config files in a folder: those that define `get_config`."""
    return [path for path in folder.glob("*.py") if _is_config(path)]


def _is_config(path: pathlib.Path) -> bool:
    try:
        return "get_config" in definitions(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # a user's folder may hold anything
        return False
