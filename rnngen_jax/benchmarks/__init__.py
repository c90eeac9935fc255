"""Benchmarks: each suite times this library against alternatives, after checking that they agree.

The entry point is `runner.run`, called by `rnngen bench`. docs/benchmarks.md describes each suite.
"""
