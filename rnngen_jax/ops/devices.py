"""The platform that a function is compiled for, where the faster of two programs depends on it."""

import jax


def compiled_for() -> str:
    """Platform of the devices that the function being traced is compiled for, such as "cpu".

    Under `jax.shard_map` and `jax.pmap` that is the platform of their devices, which may be those
    of a machine that is not there (`rnngen compile`); elsewhere, of the device that JAX uses by
    default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform
    default = jax.config.jax_default_device
    if default is None:
        default = jax.local_devices()[0]
    return default if isinstance(default, str) else default.platform
