"""Benchmarks: each suite times ours against what else can be used, once all agree in numbers.

`runner.run` is the way in, which `rnngen bench` calls. README.md says what each suite measures.
"""
