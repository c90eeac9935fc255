"""The machine's peak rates, measured in the same run as the contenders, and torch's settings."""

import importlib.util
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.timing import once
from rnngen_jax.ops.devices import compiled_for

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "torch", "keras", "equinox")

_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "XLA_FLAGS")
_SIDE = 1024  # side of the square matrices whose product measures the peak
_BIG = 2**27  # bytes: more than any cache holds
_SMALL = 2**16  # bytes: below this, a copy takes as long as its call


class Machine(NamedTuple):
    """The machine's peak rates and the software on it.

    Attributes:
      device: the device's kind.
      platform: "cpu", "gpu" or "tpu".
      cores: CPU cores that JAX and torch may use.
      flops: float32 operations per second of the faster of XLA's and torch's 1024³ product.
      bandwidth: bytes per second, read plus written, of a pass through the device's memory.
      versions: those of the installed packages.
      environment: variables that affect threads or XLA's compilation.
    """

    device: str
    platform: str
    cores: int
    flops: float
    bandwidth: float
    versions: dict[str, str]
    environment: dict[str, str]

    def describe(self) -> str:
        """A one-line summary."""
        software = [f"{name} {version}" for name, version in self.versions.items()]
        software += [f"{name}={value}" for name, value in self.environment.items()]
        return (
            f"{self.device} ({self.platform}); CPU cores and torch threads: {self.cores}; float32 "
            f"products {self.flops / 1e9:.0f} GFLOP/s, memory {self.bandwidth / 1e9:.0f} GB/s; "
            f"Python {platform.python_version()}, {', '.join(software)}"
        )


def cores() -> int:
    """Number of CPU cores available to this process, and so of XLA's threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_device() -> str:
    """The torch device that corresponds to JAX's."""
    return "cuda" if compiled_for() == "gpu" else "cpu"


def set_up_torch() -> str:
    """Gives torch as many threads as JAX has, and full float32 products; returns the device."""
    import torch

    torch.set_num_threads(cores())
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch_device()


def wait_for_torch() -> None:
    """Waits until torch's device has finished; on a CPU, calls return only then."""
    if torch_device() == "cuda":
        import torch

        torch.cuda.synchronize()


def measure() -> Machine:
    """Measures the machine in about two seconds."""
    device = jax.devices()[0]
    flops = max(_product_flops(), _torch_product_flops())
    return Machine(
        device=device.device_kind,
        platform=device.platform,
        cores=cores(),
        flops=flops,
        bandwidth=_copy_bandwidth(),
        versions=versions(),
        environment={n: v for n, v in os.environ.items() if n.startswith(_VARIABLES)},
    )


def cache_bandwidth(size: int) -> float:
    """Bytes per second at which the CPU's cores together read an array of `size` bytes.

    This is the rate of one core's copies, read plus written, times the number of cores: more than
    the cores reach together, so a roofline based on it remains a lower bound on the time.
    """
    size = max(size, _SMALL)
    source = np.ones(size // 4, np.float32)
    target = np.zeros_like(source)
    repeats = max(1, 2**24 // size)

    def copies() -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    return cores() * 2 * source.nbytes * repeats / _best(copies)


def _product_flops() -> float:
    a = jnp.ones((_SIDE, _SIDE), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * _SIDE**3 / _best(lambda: product(a, a))


def _torch_product_flops() -> float:
    """The same in torch; 0 if torch is not installed or cannot use the device."""
    if importlib.util.find_spec("torch") is None:
        return 0.0
    import torch

    device = set_up_torch()
    if device == "cuda" and not torch.cuda.is_available():
        return 0.0
    a = torch.ones((_SIDE, _SIDE), device=device)

    def product() -> None:
        torch.matmul(a, a)
        wait_for_torch()

    return 2 * _SIDE**3 / _best(product)


def _copy_bandwidth() -> float:
    # In place: newly allocated memory costs more than the copy.
    negated = jax.jit(jnp.negative, donate_argnums=0)
    arrays = [jnp.ones(_BIG // 4, jnp.float32)]

    def negate() -> Array:
        arrays.append(negated(arrays.pop()))
        return arrays[0]

    return 2 * _BIG / _best(negate)


def _best(call: Callable[[], Any], seconds: float = 0.4) -> float:
    """The shortest time of one call in seconds, over several after an untimed one."""
    once(call)
    until, found = time.perf_counter() + seconds, [once(call)]
    while time.perf_counter() < until:
        found.append(once(call))
    return min(found)


def versions(*others: str) -> dict[str, str]:
    """Versions of those of `PACKAGES`, and of others, that are installed."""
    found = {}
    for name in (*PACKAGES, *others):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
