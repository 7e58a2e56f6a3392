"""The one recurrence behind every return, error and trace over time: `g_t = step(g_{t+1}, x_t)`, with `step` affine in `g`.

Time is axis 0. On a CPU a scan evaluates `step` as it is written, one time after another: nothing
is faster there, and its gradient keeps only what `step` needs. On an accelerator the affine maps
are composed by an associative scan, in a number of rounds that grows with the logarithm of the
time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from agentzoo.core._operator import ShapeError, floats, same_shape


def wide_floats(**arrays) -> tuple[jnp.dtype, list[jax.Array]]:
    """Promotes as `floats` does, then to float32 at least: what an accumulation is carried in.

    Also returns the dtype before that.
    """
    values = floats(**arrays)
    dtype = values[0].dtype
    return dtype, [value.astype(jnp.promote_types(dtype, jnp.float32)) for value in values]


def over_time(operator_name: str, **arrays) -> tuple[int, ...]:
    """Checks that all arguments share one shape `[T, ...]`, are scalars or None, and returns that shape."""
    arrays = {name: value for name, value in arrays.items() if value is not None}
    for value in arrays.values():
        if jnp.ndim(value):
            same_shape(operator_name, jnp.shape(value), **arrays)
            return jnp.shape(value)
    raise ShapeError(
        f"{operator_name}: one of {', '.join(map(repr, arrays))} must have a time axis, but all are scalars."
    )


def within_episodes(
    shape: tuple[int, ...], lambda_: jax.Array, last_t, mask, *steps: jax.Array
) -> list[jax.Array]:
    """Ends traces where episodes end.

    Args:
      shape: `[T, ...]`.
      lambda_: scalar or of that shape; becomes 0 where the episode ends with the step, and where
        this or the next step did not happen.
      last_t: of that shape, whether an episode ends with the step; None for nowhere.
      mask: of that shape, whether the step happened; None for everywhere.
      *steps: what else a step has, each a scalar or of that shape; they become 0 where the step did
        not happen, NaN as well.

    Returns:
      `lambda_` and then `steps`.
    """
    if last_t is not None:
        lambda_ = jnp.where(jnp.asarray(last_t, bool), 0, lambda_)
    if mask is None:
        return [lambda_, *steps]
    mask = jnp.broadcast_to(jnp.asarray(mask, bool), shape)
    lambda_ = jnp.where(mask & jnp.concatenate([mask[1:], mask[-1:]]), lambda_, 0)
    return [lambda_, *(jnp.where(mask, x, 0) for x in steps)]


def stop_gradient_of_target(errors: jax.Array, prediction: jax.Array) -> jax.Array:
    """The errors, with the gradient that they have if `errors + prediction`, their target, is a constant."""
    return lax.stop_gradient(errors) + (lax.stop_gradient(prediction) - prediction)


def recurrence(step: Callable, init: jax.Array, *xs: jax.Array, reverse: bool = True) -> jax.Array:
    """All `g_t` of `g_t = step(g_{t+1}, x_t...)`, or of `g_t = step(g_{t-1}, x_t...)` if not `reverse`.

    Args:
      step: affine in its first argument and element-wise; multiplying that by one input after
        another, rather than by their product, leaves nothing to be stored for the gradient.
      init: `[...]`, the `g` before the first step that is taken.
      *xs: `[T, ...]` inputs, and scalars that hold at all times.
      reverse: whether time runs backwards.

    Returns:
      `[T, ...]`.
    """
    if jax.default_backend() == "cpu":  # spares the trace of a branch that no device here could run
        return _scan(step, reverse, init, *xs)

    def scan(*operands):
        return _scan(step, reverse, *operands)

    def associative_scan(*operands):
        return _associative_scan(step, reverse, *operands)

    return lax.platform_dependent(init, *xs, cpu=scan, default=associative_scan)


def _scan(step: Callable, reverse: bool, init: jax.Array, *xs: jax.Array) -> jax.Array:
    in_time = [x.ndim > 0 for x in xs]

    def body(g, x_t):
        x_t = iter(x_t)
        g = step(g, *(next(x_t) if timed else x for timed, x in zip(in_time, xs, strict=True)))
        return g, g

    return lax.scan(
        body, init, [x for timed, x in zip(in_time, xs, strict=True) if timed], reverse=reverse
    )[1]


def _associative_scan(step: Callable, reverse: bool, init: jax.Array, *xs: jax.Array) -> jax.Array:
    shape = next(x.shape for x in xs if x.ndim)
    # The affine map of a step, `b + a * g`: its value at zero and its slope.
    b, a = jax.jvp(
        lambda g: step(g, *xs), (jnp.zeros(shape, init.dtype),), (jnp.ones(shape, init.dtype),)
    )

    def then(first, second):
        (a_1, b_1), (a_2, b_2) = first, second
        return a_2 * a_1, b_2 + a_2 * b_1

    a, b = lax.associative_scan(then, (a, b), reverse=reverse)
    return b + a * init
