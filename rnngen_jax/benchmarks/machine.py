"""What the machine can do at best, measured in the same run as the contenders."""

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
_SIDE = 1024  # of the square matrices whose product shows the peak
_BIG = 2**27  # bytes: more than any cache holds
_SMALL = 2**16  # bytes: below, a copy's time is its call's


class Machine(NamedTuple):
    """The machine's limits.

    Attributes:
      device: the device's kind.
      platform: "cpu", "gpu" or "tpu".
      cores: CPU cores that JAX and torch may use.
      flops: float32 operations a second of the better of XLA's and torch's 1024³ product.
      bandwidth: bytes a second of a pass through the device's memory, read and written.
      versions: of the packages that are there.
      environment: variables that change how threads run or how XLA compiles.
    """

    device: str
    platform: str
    cores: int
    flops: float
    bandwidth: float
    versions: dict[str, str]
    environment: dict[str, str]

    def describe(self) -> str:
        """One line for people."""
        told = [f"{name} {version}" for name, version in self.versions.items()]
        told += [f"{name}={value}" for name, value in self.environment.items()]
        return (
            f"{self.device} ({self.platform}); CPU cores and torch threads: {self.cores}; float32 "
            f"products {self.flops / 1e9:.0f} GFLOP/s, memory {self.bandwidth / 1e9:.0f} GB/s; "
            f"Python {platform.python_version()}, {', '.join(told)}"
        )


def cores() -> int:
    """CPU cores that this process may use, which is also the number of XLA's threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_device() -> str:
    """The torch device that stands beside JAX's own."""
    return "cuda" if compiled_for() == "gpu" else "cpu"


def measure() -> Machine:
    """Measures, in about two seconds."""
    device = jax.devices()[0]
    flops = max(_product_flops(), _torch_product_flops())
    return Machine(
        device=device.device_kind,
        platform=device.platform,
        cores=cores(),
        flops=flops,
        bandwidth=_copy_bandwidth(),
        versions=_versions(),
        environment={n: v for n, v in os.environ.items() if n.startswith(_VARIABLES)},
    )


def cache_bandwidth(size: int) -> float:
    """Bytes a second at which the CPU's cores together read an array of `size` bytes.

    It is the rate of one core's copies, read and written, times the number of cores: more than they
    reach together, so that a roofline made of it stays a lower bound.
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
    """The same in torch, 0 where it is not installed or cannot use the device."""
    if importlib.util.find_spec("torch") is None:
        return 0.0
    import torch

    device = torch_device()
    if device == "cuda" and not torch.cuda.is_available():
        return 0.0
    if device == "cpu":
        torch.set_num_threads(cores())
    a = torch.ones((_SIDE, _SIDE), device=device)

    def product() -> None:
        torch.matmul(a, a)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * _SIDE**3 / _best(product)


def _copy_bandwidth() -> float:
    # In place: memory that is fresh from the system costs more than the copy.
    negated = jax.jit(jnp.negative, donate_argnums=0)
    arrays = [jnp.ones(_BIG // 4, jnp.float32)]

    def negate() -> Array:
        arrays.append(negated(arrays.pop()))
        return arrays[0]

    return 2 * _BIG / _best(negate)


def _best(call: Callable[[], Any], seconds: float = 0.4) -> float:
    """The least seconds of one call, over several, after one that is not timed."""
    once(call)
    until, found = time.perf_counter() + seconds, [once(call)]
    while time.perf_counter() < until:
        found.append(once(call))
    return min(found)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
