"""Flax Linen modules: they own parameters and call the pure functions of the floors below."""
