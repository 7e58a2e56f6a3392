"""Compilation, type promotion and shape checks, which all operators of `agentzoo.core` share."""

# JAX's own types are partly unknown to pyright.
# pyright: reportUnknownMemberType=false

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Literal, ParamSpec, TypeVar, cast, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Reduction = Literal["mean", "masked_mean", "sum", "none"]


class ShapeError(ValueError, AssertionError):
    """Arguments whose shapes do not fit together.

    The second base is there because RLax raises `AssertionError` in these cases.
    """


@overload
def operator(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]: ...


@overload
def operator(
    *, static: tuple[str, ...]
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]: ...


def operator(
    function: Callable[..., object] | None = None, *, static: tuple[str, ...] = ()
) -> Callable[..., object]:
    """Compile an operator once for each combination of shapes and static arguments.

    An operator that is called inside another compiled function becomes a part of that function.

    Args:
      function: the operator; None makes a decorator.
      static: names of the arguments that must be Python values.

    Returns:
      The compiled operator, with the signature of `function`, or a decorator.
    """
    if function is None:
        return functools.partial(_compile, static=static)
    return _compile(function, static)


def _compile(function: Callable[..., object], static: tuple[str, ...]) -> Callable[..., object]:
    jitted = jax.jit(function, static_argnames=static, inline=True)
    compiled = cast(Callable[..., object], jitted)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        if static:
            bound = signature.bind(*args, **kwargs).arguments
            for name in static:
                value = bound.get(name)
                if isinstance(value, jax.Array) or not isinstance(value, Hashable):
                    raise _no_python_value(function.__name__.lstrip("_"), name, value)
        return compiled(*args, **kwargs)

    return call


def python_values(operator_name: str, **values: object) -> None:
    """Raise a `TypeError` that names the first argument that is not a hashable Python value."""
    for name, value in values.items():
        if isinstance(value, jax.Array) or not isinstance(value, Hashable):
            raise _no_python_value(operator_name, name, value)


def _no_python_value(operator_name: str, name: str, value: object) -> TypeError:
    kind = "a JAX array" if isinstance(value, jax.Array) else repr(type(value).__name__)
    return TypeError(
        f"{operator_name}: {name!r} must be a Python value that is known during compilation, "
        f"not {kind}. Pass a constant, or mark the argument as static in your own jax.jit."
    )


def floats(**arrays: ArrayLike) -> list[jax.Array]:
    """Promote the arguments to their common floating dtype.

    Integers become floats, and mixed floats take the wider dtype.

    Args:
      **arrays: arrays of any shapes.

    Returns:
      The arrays, in the order of the arguments.
    """
    values = [jnp.asarray(array) for array in arrays.values()]
    dtype = jnp.result_type(*values)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.promote_types(dtype, jnp.float32)
    return [value.astype(dtype) for value in values]


def same_shape(operator_name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Raise `ShapeError` for the first argument that is neither of the given shape nor a scalar."""
    expected = f"have shape {shape} or be a scalar" if shape else "be a scalar"
    for name, value in arrays.items():
        if jnp.ndim(value) and jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} must {expected}, but has shape {jnp.shape(value)}."
            )


def actions(operator_name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Check that the arguments hold integer action indices of the given shape.

    Args:
      operator_name: name for the error messages.
      shape: the required shape.
      **arrays: the actions.

    Raises:
      TypeError: if an argument has a dtype that is not integer.
      ShapeError: if an argument has another shape.
    """
    for name, value in arrays.items():
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(
                f"{operator_name}: {name!r} must hold integer action indices, but has dtype "
                f"{dtype}."
            )
        if jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} must have shape {shape}, but has shape "
                f"{jnp.shape(value)}."
            )


def values_of(operator_name: str, **arrays: ArrayLike) -> tuple[int, ...]:
    """Check that all arguments share one shape `[..., A]`, and return its leading axes."""
    first_name, first = next(iter(arrays.items()))
    for name, value in arrays.items():
        if jnp.ndim(value) < 1:
            raise ShapeError(
                f"{operator_name}: {name!r} must hold one value per action on its last axis, but "
                f"is a scalar."
            )
        if jnp.shape(value) != jnp.shape(first):
            raise ShapeError(
                f"{operator_name}: {name!r} must have the shape of {first_name!r}, "
                f"{jnp.shape(first)}, but has {jnp.shape(value)}."
            )
    return jnp.shape(first)[:-1]


def pick(values: jax.Array, indices: ArrayLike) -> jax.Array:
    """Return `values[..., indices]`, or NaN where an index is out of range.

    Integer dtypes have no NaN. There, an index that is out of range gives the smallest value of a
    signed dtype and the largest value of an unsigned one.

    Args:
      values: `[..., A]`.
      indices: `[...]` integers.

    Returns:
      `[...]` values.
    """
    indices = jnp.asarray(indices)
    # An 8-bit integer may be too small for A.
    indices = indices.astype(jnp.promote_types(indices.dtype, jnp.int32))
    # A negative index would count from the end. A itself is out of range, so "fill" makes it NaN.
    inside = jnp.where(indices < 0, values.shape[-1], indices)
    return jnp.take_along_axis(values, inside[..., None], axis=-1, mode="fill")[..., 0]


def stop_gradient_if(stop: bool, x: jax.Array) -> jax.Array:
    """Return `x`, as a constant for the gradient if `stop` is true."""
    return jax.lax.stop_gradient(x) if stop else x


def reduce_loss(
    operator_name: str, loss: jax.Array, weights: ArrayLike | None, reduction: str
) -> jax.Array:
    """Weight a loss and reduce it.

    Args:
      operator_name: name for the error messages.
      loss: `[...]` the loss of each step.
      weights: `[...]` or a scalar; None means 1.
      reduction: "mean" divides by the number of steps, "masked_mean" divides by the sum of the
        weights, "sum" only sums, and "none" keeps the axes.

    Returns:
      A scalar, or `[...]` for "none".

    Raises:
      ShapeError: if the weights have another shape.
      ValueError: if the reduction is unknown.
    """
    weights = jnp.ones((), loss.dtype) if weights is None else jnp.asarray(weights, loss.dtype)
    same_shape(operator_name, loss.shape, w_t=weights)
    # A masked step adds nothing, even if its loss is not finite.
    loss = jnp.where(weights == 0, 0, loss * weights)
    if reduction == "mean":
        return jnp.mean(loss)
    if reduction == "masked_mean":
        total = jnp.sum(jnp.broadcast_to(weights, loss.shape))
        return jnp.sum(loss) / jnp.where(total == 0, 1, total)
    if reduction == "sum":
        return jnp.sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(
        f"{operator_name}: reduction={reduction!r} is unknown. "
        f"Choose 'mean', 'masked_mean', 'sum' or 'none'."
    )
