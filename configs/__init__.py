"""The shipped configs, one file each; installed as rnngen_jax.configs."""
