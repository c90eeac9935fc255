"""Starting JAX's devices."""

import re

import jax

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
