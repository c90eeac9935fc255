"""Contenders: a layer's forward pass and parameter gradient, ours or another library's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.problem import Problem, build
from rnngen_jax.cells.base import Params
from rnngen_jax.recurrence import unroll


class Contender(NamedTuple):
    """A layer that solves a problem.

    Attributes:
      name: the library's name, then the layer's.
      forward: computes the outputs, compiled in advance and keeping nothing for a gradient.
      gradient: computes the gradient of `sum(ys * weights)` with respect to all parameters.
      outputs: converts the result of `forward` to `[T, B, H]`.
      gradients: converts the result of `gradient` to our parameter layout.
    """

    name: str
    forward: Callable[[], Any]
    gradient: Callable[[], Any]
    outputs: Callable[[Any], np.ndarray]
    gradients: Callable[[Any], Params]


class Layer(NamedTuple):
    """A contender written in JAX, not yet compiled.

    Attributes:
      name: as in `Contender`.
      apply: `apply(params, xs) -> ys`, in the library's own layout.
      params: the problem's parameters in that layout.
      xs: the problem's inputs in that layout.
      weights: the weights of the loss in that layout.
      outputs: converts ys to `[T, B, H]`.
      gradients: converts a gradient with respect to `params` to our layout.
    """

    name: str
    apply: Callable[[Any, Array], Array]
    params: Any
    xs: Array
    weights: Array
    outputs: Callable[[Any], np.ndarray]
    gradients: Callable[[Any], Params]


class Case(NamedTuple):
    """Layers that do the same work, to be compiled side by side.

    Attributes:
      name: the work and its shape, with one of these words in it.
      work: "forward" or "gradient".
      layers: ours first.
    """

    name: str
    work: str
    layers: list[Layer]


def lower_forward(layer: Layer) -> jax.stages.Lowered:
    """Traces the forward pass as a program of `(params, xs)`."""
    return jax.jit(layer.apply).lower(layer.params, layer.xs)


def lower_gradient(layer: Layer) -> jax.stages.Lowered:
    """Traces the parameter gradient as a program of `(params, xs, weights)`."""
    return jax.jit(gradient_of(layer)).lower(layer.params, layer.xs, layer.weights)


def gradient_of(layer: Layer) -> Callable[[Any, Array, Array], Any]:
    """`gradient(params, xs, weights)` of the weighted sum of a layer's outputs."""

    def loss(params: Any, xs: Array, weights: Array) -> Array:
        return (layer.apply(params, xs) * weights).sum()

    return jax.grad(loss)


def lower_for(device: jax.Device, layer: Layer, work: str) -> jax.stages.Lowered:
    """Traces a pass for a device that need not be here.

    Args:
      device: the device, which `compiled_for` then sees.
      layer: the layer.
      work: "forward" or "gradient".
    """
    mesh = jax.sharding.Mesh(np.array([device]), ("one",))
    given: tuple[Any, ...] = (layer.params, layer.xs)
    function: Callable[..., Any] = layer.apply
    if work == "gradient":
        given, function = (*given, layer.weights), gradient_of(layer)
    spec = jax.P()
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    here = jax.sharding.NamedSharding(mesh, spec)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), given)
    return jax.jit(mapped).lower(*shapes)


def contender(layer: Layer) -> Contender:
    """Turns a layer into a contender: arrays on the device, passes compiled at their first call."""
    layer = layer._replace(
        params=jax.device_put(layer.params),
        xs=jax.device_put(layer.xs),
        weights=jax.device_put(layer.weights),
    )
    forward = functools.cache(lambda: lower_forward(layer).compile())
    gradient = functools.cache(lambda: lower_gradient(layer).compile())
    return Contender(
        layer.name,
        lambda: forward()(layer.params, layer.xs),
        lambda: gradient()(layer.params, layer.xs, layer.weights),
        layer.outputs,
        layer.gradients,
    )


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes that a program needs besides its arguments: planned temporaries and its results."""
    plan = compiled.memory_analysis()
    return plan.temp_size_in_bytes + plan.output_size_in_bytes


def ours(problem: Problem, strategy: str, name: str = "ours", remat: int | None = None) -> Layer:
    """Our cell, run by a strategy; `remat` as in `unroll`."""
    cell = build(problem.cell, problem.shape.hidden)

    def apply(params: Params, xs: Array) -> Array:
        return unroll(cell, params, xs, strategy=strategy, remat=remat)[1]

    return Layer(
        name,
        apply,
        problem.params,
        problem.xs,
        problem.weights,
        np.asarray,
        lambda gradient: jax.tree.map(np.asarray, gradient),
    )
