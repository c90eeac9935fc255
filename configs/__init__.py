"""The configs that ship, one file each; an installation has them as rnngen_jax.configs."""
