"""What every operator of `agentzoo.core` shares: compilation, promotion and shape checks."""

import functools
import inspect
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class ShapeError(ValueError, AssertionError):
    """Arguments whose shapes do not fit together.

    RLax raises `AssertionError` in these cases, hence the second base.
    """


def operator(function: Callable | None = None, *, static: tuple[str, ...] = ()) -> Callable:
    """Compiles an operator, cached once per shape; inside another compiled function it is inlined.

    Args:
      function: the operator.
      static: names of arguments that must be Python values.
    """
    if function is None:
        return functools.partial(operator, static=static)
    compiled = jax.jit(function, static_argnames=static, inline=True)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if static:
            bound = signature.bind(*args, **kwargs).arguments
            for name in static:
                value = bound.get(name)
                if isinstance(value, jax.Array) or not isinstance(value, Hashable):
                    raise _no_python_value(function.__name__.lstrip("_"), name, value)
        return compiled(*args, **kwargs)

    return call


def python_values(operator_name: str, **values) -> None:
    """Raises an error naming the first argument that is no Python value, known when a program is compiled."""
    for name, value in values.items():
        if isinstance(value, jax.Array) or not isinstance(value, Hashable):
            raise _no_python_value(operator_name, name, value)


def _no_python_value(operator_name: str, name: str, value) -> TypeError:
    return TypeError(
        f"{operator_name}: {name!r} must be a Python value that is known when the function is compiled, "
        f"not {'a JAX array' if isinstance(value, jax.Array) else repr(type(value).__name__)}; "
        f"pass it as a constant or mark it as static in your own jax.jit."
    )


def floats(**arrays) -> list[jax.Array]:
    """Promotes the arguments to their common floating dtype: integers become float, mixed floats the wider one."""
    values = {name: jnp.asarray(value) for name, value in arrays.items()}
    dtype = jnp.result_type(*values.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.promote_types(dtype, jnp.float32)
    return [value.astype(dtype) for value in values.values()]


def same_shape(operator_name: str, shape: tuple[int, ...], **arrays) -> None:
    """Raises `ShapeError` naming the first argument that is neither of the given shape nor a scalar."""
    expected = f"have shape {shape} or be a scalar" if shape else "be a scalar"
    for name, value in arrays.items():
        if jnp.ndim(value) and jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} must {expected}, but has shape {jnp.shape(value)}."
            )


def actions(operator_name: str, shape: tuple[int, ...], **arrays) -> None:
    """Raises an error naming the first argument that does not hold integer action indices of the given shape."""
    for name, value in arrays.items():
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(
                f"{operator_name}: {name!r} must hold integer action indices, but has dtype {jnp.result_type(value)}."
            )
        if jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} must have shape {shape}, but has shape {jnp.shape(value)}."
            )


def values_of(operator_name: str, **arrays) -> tuple[int, ...]:
    """Checks that all arguments share one shape `[..., A]`, and returns its leading axes."""
    first_name, first = next(iter(arrays.items()))
    for name, value in arrays.items():
        if jnp.ndim(value) < 1:
            raise ShapeError(
                f"{operator_name}: {name!r} must hold one value per action on its last axis, but is a scalar."
            )
        if jnp.shape(value) != jnp.shape(first):
            raise ShapeError(
                f"{operator_name}: {name!r} must have the shape of {first_name!r}, {jnp.shape(first)}, but has {jnp.shape(value)}."
            )
    return jnp.shape(first)[:-1]


def pick(values: jax.Array, indices: ArrayLike) -> jax.Array:
    """`values[..., indices]` for values `[..., A]` and indices `[...]`; NaN where an index is out of range.

    Integer values have no NaN: signed ones are then the least there is, unsigned ones the greatest.
    """
    indices = jnp.asarray(indices)
    indices = indices.astype(
        jnp.promote_types(indices.dtype, jnp.int32)
    )  # which holds A, where 8 bits may not
    inside = jnp.where(
        indices < 0, values.shape[-1], indices
    )  # a negative index would count from the end
    return jnp.take_along_axis(values, inside[..., None], axis=-1, mode="fill")[..., 0]


def stop_gradient_if(stop: bool, x: jax.Array) -> jax.Array:
    """`x`, through which no gradient passes if `stop`."""
    return jax.lax.stop_gradient(x) if stop else x


def reduce_loss(
    operator_name: str, loss: jax.Array, weights: ArrayLike | None, reduction: str
) -> jax.Array:
    """Weighs a loss `[...]` and reduces it.

    Args:
      operator_name: for messages.
      loss: the loss of each step.
      weights: of the same shape or scalar; None for ones.
      reduction: "mean" divides by the number of steps, "masked_mean" by the sum of the weights,
        "sum" and "none" by nothing.
    """
    weights = jnp.ones((), loss.dtype) if weights is None else jnp.asarray(weights, loss.dtype)
    same_shape(operator_name, loss.shape, w_t=weights)
    loss = jnp.where(
        weights == 0, 0, loss * weights
    )  # a masked step adds nothing, also where its loss is not finite
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
        f"{operator_name}: reduction={reduction!r} is unknown; choose 'mean', 'masked_mean', 'sum' or 'none'."
    )
