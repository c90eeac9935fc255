"""Image generation with recurrent networks, functionally, in JAX."""

__version__ = "0.1.0"
