"""Flax Linen modules, which own parameters and call the pure functions of the layers below."""
