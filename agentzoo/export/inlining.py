"""Programs in the form that the ONNX converter understands."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from agentzoo.types import Array

_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
"""Primitives that only call another program."""


def inline(program: ClosedJaxpr) -> Callable[..., list[Array]]:
    """Return a traced program as a function of few primitives, of the program's inputs.

    The converter replaces functions of `jax.numpy` while it traces, which breaks code that looks at
    shapes. So the program is traced before, and the converter only sees primitives.
    """
    return lambda *arguments: evaluate(program.jaxpr, program.consts, arguments)


def evaluate(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Array]:
    """Evaluate a program. Programs that it calls are inlined, and padding is replaced."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _INLINED:
            inner = equation.params.get("jaxpr") or equation.params["call_jaxpr"]
            outputs = evaluate(inner.jaxpr, inner.consts, inputs)
        elif equation.primitive is lax.pad_p:
            x, value = inputs
            outputs = [_pad(x, value, equation.params["padding_config"])]
        elif equation.primitive is lax.reduce_window_max_p:
            outputs = [_max_pool(*inputs, **equation.params)]
        else:
            outputs = _bind(jaxpr, equation, values)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(jaxpr: Jaxpr, equation: Any, values: dict[Any, Any]) -> list[Array]:
    """Evaluate one equation of a program."""
    needed = dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, Literal))
    # JAX offers no stable way to evaluate an equation, but one to evaluate a program.
    program = jaxpr.replace(
        constvars=[],
        invars=[*needed],
        outvars=equation.outvars,
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return jaxpr_as_fun(ClosedJaxpr(program, []))(*(values[atom] for atom in needed))


def _pad(x: Array, value: Any, widths: Sequence[tuple[int, int, int]]) -> Array:
    """Pad an array by concatenation.

    The converter (jax2onnx 0.17) cannot pad arrays whose batch size is symbolic.
    """
    for axis, (before, after, between) in enumerate(widths):
        if between or before < 0 or after < 0:
            return lax.pad(x, value, widths)
        margins = [
            # The converter replaces `jnp.full`, but not functions of `lax`.
            [lax.broadcast_in_dim(value, (*x.shape[:axis], width, *x.shape[axis + 1 :]), ())]
            if width
            else []
            for width in (before, after)
        ]
        if before or after:
            x = lax.concatenate([*margins[0], x, *margins[1]], axis)
    return x


def _max_pool(
    x: Array,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **dilations: Any,
) -> Array:
    """Pool the maximum along each axis, as a maximum of slices.

    The converter makes a node of a shape that onnxruntime does not support.
    """
    if any(size != 1 for sizes in dilations.values() for size in sizes):
        raise NotImplementedError("pooling with dilation")
    lowest = lax.full((), -jnp.inf, x.dtype)
    x = _pad(x, lowest, [(before, after, 0) for before, after in padding])
    for axis, (size, stride) in enumerate(zip(window_dimensions, window_strides, strict=True)):
        if size == stride == 1:
            continue
        last = x.shape[axis] - size
        slices = [
            lax.slice_in_dim(x, start, last + start + 1, stride, axis) for start in range(size)
        ]
        x = functools.reduce(lax.max, slices)
    return x
