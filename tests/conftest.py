"""Sets JAX up for the tests before anything imports it: CPU, eight virtual devices, a cache."""

import os
import pathlib
import tempfile

_CACHE = pathlib.Path(tempfile.gettempdir()) / "rnngen_jax_test_cache"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ["MPLBACKEND"] = "Agg"

# Tests compile far more than they compute, so the compiler's own optimisation does not pay.
_FLAGS = ("--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()
