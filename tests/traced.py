"""Looks into traced programs: their products, and what holds bfloat16 in them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# What may hold rounded operands beside products: it moves them, or has a program of its own within.
MOVES = {
    "broadcast_in_dim",
    "checkpoint",
    "concatenate",
    "cond",
    "convert_element_type",
    "custom_jvp_call",
    "custom_vjp_call",
    "dynamic_slice",
    "dynamic_update_slice",
    "jit",
    "reshape",
    "scan",
    "slice",
    "squeeze",
    "transpose",
    "while",
}


class Product(NamedTuple):
    """The types of a product's operands and result, and whether its precision is the highest."""

    left: str
    right: str
    result: str
    highest: bool


ROUNDED = Product("bfloat16", "bfloat16", "float32", False)
EXACT = Product("float32", "float32", "float32", True)
PLAIN = Product("float32", "float32", "float32", False)


def equations(function, *given):
    """All equations of a traced function, those of inner programs included."""

    def of(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from of(inner)

    return list(of(jax.make_jaxpr(function)(*given).jaxpr))


def products(found):
    """The products and convolutions among equations."""
    highest = jax.lax.Precision.HIGHEST
    return [
        Product(
            *(str(x.aval.dtype) for x in (*one.invars[:2], one.outvars[0])),
            one.params["precision"] == (highest, highest),
        )
        for one in found
        if one.primitive.name in ("dot_general", "conv_general_dilated")
    ]


def holders(found):
    """The names of all operations that take or give bfloat16."""

    def rounded(x):
        return getattr(x.aval, "dtype", None) == jnp.bfloat16

    return {one.primitive.name for one in found if any(map(rounded, [*one.invars, *one.outvars]))}


def carries(found):
    """The types of all that loops carry from step to step."""
    kept = []
    for one in found:
        if one.primitive.name == "scan":
            kept += one.outvars[: one.params["num_carry"]]
        elif one.primitive.name == "while":
            kept += one.outvars
    return {str(x.aval.dtype) for x in kept}


def narrowed(found):
    """How many values were rounded and went on in float32, as no operand does."""
    return sum(
        one.primitive.name == "reduce_precision"
        or (
            one.primitive.name == "convert_element_type"
            and one.invars[0].aval.dtype == jnp.bfloat16
            and one.outvars[0].aval.dtype != jnp.bfloat16
        )
        for one in found
    )
