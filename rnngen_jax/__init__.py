"""Image generation with recurrent networks, functionally, in JAX.

`load`, `train` and `evaluate` are those of `rnngen_jax.runs`, `load_config` gives a config that
ships; they are imported when they are first asked for, since a command such as `rnngen --help` does
not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnngen_jax.config_files import load as load_config
    from rnngen_jax.runs import Run, evaluate, load, train

__version__ = "0.1.0"
__all__ = ["Run", "evaluate", "load", "load_config", "train"]


def __getattr__(name: str) -> Any:
    """One of the public functions, imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "load_config":
        return importlib.import_module("rnngen_jax.config_files").load
    return getattr(importlib.import_module("rnngen_jax.runs"), name)
