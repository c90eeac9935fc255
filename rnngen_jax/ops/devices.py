"""The platform that a function is compiled for, for choices that depend on it."""

import jax


def compiled_for() -> str:
    """The platform that the function being traced is compiled for, such as "cpu".

    Under `jax.shard_map` and `jax.pmap` it is that of their devices, which need not be present
    (`rnngen compile`); elsewhere it is that of JAX's default device.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform
    default = jax.config.jax_default_device
    if default is None:
        default = jax.local_devices()[0]
    return default if isinstance(default, str) else default.platform
