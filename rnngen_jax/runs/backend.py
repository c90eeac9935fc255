"""Starting JAX's devices and processes."""

import os
import re

import jax

from rnngen_jax.config import require
from rnngen_jax.errors import RunError


def start_backend() -> list[jax.Device]:
    """Starts JAX's devices, before files are read, so that a failure is not reported as damage.

    Returns:
      The devices of this process.

    Raises:
      RunError: JAX cannot start the platform of JAX_PLATFORMS, or the one it selects.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        # JAX skips "cuda" on a machine without a GPU, and asserts that a platform is left.
        lines = str(error).splitlines() or ["this machine has no such device"]
        why = re.sub(r" \((set|you may) .*", "", lines[0]).rstrip(".")
        asked = jax.config.jax_platforms
        if asked:
            todo = f"JAX_PLATFORMS={asked} cannot be used: {why}; unset it, or set it to cpu."
        else:
            todo = f"JAX cannot start its devices: {why}; set JAX_PLATFORMS=cpu to use the CPU."
        raise RunError(todo) from None


def join_hosts() -> None:
    """Joins the processes of a run on several hosts, if JAX_COORDINATOR_ADDRESS is set.

    Raises:
      UserError: JAX_NUM_PROCESSES or JAX_PROCESS_ID is not an integer ≥ 0.
      RunError: the other processes cannot be reached.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address:
        return
    count, number = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", number)):
        require(value is None or value.isdecimal(), name, value, "an integer ≥ 0")
    try:
        jax.distributed.initialize(
            address,
            num_processes=None if count is None else int(count),
            process_id=None if number is None else int(number),
        )
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise RunError(f"the processes at {address} could not be joined: {line}") from None
