"""What every operator of `agentzoo.core` shares: compilation, promotion and shape checks."""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp


class ShapeError(ValueError, AssertionError):
    """Arguments whose shapes do not fit together. RLax raises `AssertionError` in these cases, hence the second base."""


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
                if isinstance(bound.get(name), jax.Array):
                    raise TypeError(
                        f"{function.__name__}: {name!r} must be a Python value that is known when the function is compiled, "
                        f"not a JAX array; pass it as a constant or mark it as static in your own jax.jit."
                    )
        return compiled(*args, **kwargs)

    return call


def floats(**arrays) -> list[jax.Array]:
    """Promotes the arguments to their common floating dtype: integers become float, mixed floats the wider one."""
    values = {name: jnp.asarray(value) for name, value in arrays.items()}
    dtype = jnp.result_type(*values.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.promote_types(dtype, jnp.float32)
    return [value.astype(dtype) for value in values.values()]


def same_shape(operator_name: str, shape: tuple[int, ...], **arrays) -> None:
    """Raises `ShapeError` naming the first argument that is neither of the given shape nor a scalar."""
    for name, value in arrays.items():
        if jnp.ndim(value) and jnp.shape(value) != shape:
            raise ShapeError(f"{operator_name}: {name!r} must have shape {shape} or be a scalar, but has shape {jnp.shape(value)}.")


def actions(operator_name: str, shape: tuple[int, ...], **arrays) -> None:
    """Raises an error naming the first argument that does not hold integer action indices of the given shape."""
    for name, value in arrays.items():
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(f"{operator_name}: {name!r} must hold integer action indices, but has dtype {jnp.result_type(value)}.")
        if jnp.shape(value) != shape:
            raise ShapeError(f"{operator_name}: {name!r} must have shape {shape}, but has shape {jnp.shape(value)}.")
