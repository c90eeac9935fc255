"""Benchmarks: each suite times ours against what else can be used, once all agree in numbers.

`runner.run` is the way in, which `rnngen bench` calls. docs/benchmarks.md says what each suite
measures.
"""
