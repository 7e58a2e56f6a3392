"""The recurrence of all returns, errors and traces over time: `g_t = step(g_{t+1}, x_t)`.

Time is axis 0, and `step` is affine in `g`. On a CPU, a scan evaluates `step` one time after
another. Nothing is faster there, and the gradient of a scan stores only what `step` needs. On an
accelerator, an associative scan composes the affine maps in a number of rounds that grows with the
logarithm of the time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, same_shape


def wide_floats(**arrays) -> tuple[jnp.dtype, list[jax.Array]]:
    """Promote arrays like `floats`, and then at least to float32, the dtype of an accumulation.

    Returns:
      The dtype before the promotion to float32, and the promoted arrays.
    """
    values = floats(**arrays)
    dtype = values[0].dtype
    return dtype, [value.astype(jnp.promote_types(dtype, jnp.float32)) for value in values]


def over_time(operator_name: str, **arrays) -> tuple[int, ...]:
    """Return the shape `[T, ...]` that all arguments share, unless they are scalars or None.

    Raises:
      ShapeError: if the shapes differ, or all arguments are scalars.
    """
    arrays = {name: value for name, value in arrays.items() if value is not None}
    for value in arrays.values():
        if jnp.ndim(value):
            same_shape(operator_name, jnp.shape(value), **arrays)
            return jnp.shape(value)
    raise ShapeError(
        f"{operator_name}: all of {', '.join(map(repr, arrays))} are scalars. Pass at least one "
        f"array with a time axis."
    )


def shape_before_last_value(operator_name: str, values: ArrayLike) -> tuple[int, ...]:
    """Return the shape `[T, ...]` of the steps between values `[T + 1, ...]`."""
    if jnp.ndim(values) < 1 or not jnp.shape(values)[0]:
        raise ShapeError(
            f"{operator_name}: 'values' has shape {jnp.shape(values)}. Pass an array of shape "
            f"[T + 1, ...]."
        )
    return (jnp.shape(values)[0] - 1, *jnp.shape(values)[1:])


def within_episodes(
    shape: tuple[int, ...], lambda_: jax.Array, last_t, mask, *steps: jax.Array
) -> list[jax.Array]:
    """Stop traces at the ends of episodes.

    Args:
      shape: `[T, ...]`.
      lambda_: scalar or `shape`. It becomes 0 where the step ends an episode, and where this step
        or the next step did not happen.
      last_t: `shape`, true where the step ends an episode; nowhere if None.
      mask: `shape`, true where the step happened; everywhere if None.
      *steps: other inputs, each a scalar or `shape`. They become 0 where the step did not happen,
        even if they were NaN.

    Returns:
      `lambda_` and then `steps`.
    """
    if last_t is not None:
        lambda_ = jnp.where(jnp.asarray(last_t, bool), 0, lambda_)
    if mask is None:
        return [lambda_, *steps]
    mask = jnp.broadcast_to(jnp.asarray(mask, bool), shape)
    next_mask = jnp.concatenate([mask[1:], mask[-1:]])  # mask of step t + 1; the last step is kept
    lambda_ = jnp.where(mask & next_mask, lambda_, 0)
    return [lambda_, *(jnp.where(mask, x, 0) for x in steps)]


def stop_gradient_of_target(errors: jax.Array, prediction: jax.Array) -> jax.Array:
    """Return the errors with the gradient for a constant target, `errors + prediction`."""
    return lax.stop_gradient(errors) + (lax.stop_gradient(prediction) - prediction)


def recurrence(step: Callable, init: jax.Array, *xs: jax.Array, reverse: bool = True) -> jax.Array:
    """Return all `g_t` of the recurrence `g_t = step(g_{t+1}, x_t...)`.

    Without `reverse`, the recurrence is `g_t = step(g_{t-1}, x_t...)`.

    Args:
      step: a function that is element-wise and affine in its first argument. To store less for the
        gradient, multiply the first argument by one input after another instead of by their
        product.
      init: `[...]`, the `g` before the first step.
      *xs: `[T, ...]` inputs, and scalars that are the same at all times.
      reverse: whether to start at the last time.

    Returns:
      `[T, ...]`.
    """
    if jax.default_backend() == "cpu":
        # There is no accelerator, so its branch need not be traced.
        return _scan(step, reverse, init, *xs)

    def scan(*operands):
        return _scan(step, reverse, *operands)

    def associative_scan(*operands):
        return _associative_scan(step, reverse, *operands)

    return lax.platform_dependent(init, *xs, cpu=scan, default=associative_scan)


def _scan(step: Callable, reverse: bool, init: jax.Array, *xs: jax.Array) -> jax.Array:
    """Evaluate the recurrence one time after another."""

    # Only arrays are scanned over. Scalars stay as they are at each time.
    def body(g, arrays_t):
        arrays_t = iter(arrays_t)
        g = step(g, *(next(arrays_t) if x.ndim else x for x in xs))
        return g, g

    return lax.scan(body, init, [x for x in xs if x.ndim], reverse=reverse)[1]


def _associative_scan(step: Callable, reverse: bool, init: jax.Array, *xs: jax.Array) -> jax.Array:
    """Evaluate the recurrence by composing the affine maps of all times."""
    shape = next(x.shape for x in xs if x.ndim)
    # The affine map of a step, `b + a * g`: its value at zero is `b` and its slope is `a`.
    b, a = jax.jvp(
        lambda g: step(g, *xs), (jnp.zeros(shape, init.dtype),), (jnp.ones(shape, init.dtype),)
    )

    def then(first, second):
        (a_1, b_1), (a_2, b_2) = first, second
        return a_2 * a_1, b_2 + a_2 * b_1

    a, b = lax.associative_scan(then, (a, b), reverse=reverse)
    return b + a * init
