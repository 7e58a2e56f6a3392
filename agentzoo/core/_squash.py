"""Squashing of Gaussian actions into bounds by tanh, without loss of precision near the bounds."""

import math
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def tanh(x: jax.Array) -> jax.Array:
    """Return `tanh(x)`, with a derivative that is precise where the function is nearly flat."""
    return jnp.tanh(x)


@tanh.defjvp
def _tanh_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    (x,), (tangent,) = primals, tangents
    small = jnp.exp(-2 * jnp.abs(x))  # JAX uses `1 - tanh(x)^2`, which cancels
    return tanh(x), tangent * (4 * small / jnp.square(1 + small))


def squash(u: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Map real values into `[low, high]`, `low + (high - low) * (tanh(u) + 1) / 2`."""
    return jnp.clip(low + 0.5 * (high - low) * (tanh(u) + 1), low, high)


def unsquash(action: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the real value of an action, the inverse of `squash`.

    An action at or beyond a bound gives the value of the nearest number inside the bounds, with
    gradient zero.
    """
    smallest = 0.5 * float(jnp.finfo(action.dtype).epsneg) * (high - low)
    # atanh from the distances to the bounds, which are exact near a bound. There, 1 - |action| has
    # lost its precision.
    return 0.5 * (
        jnp.log(jnp.maximum(action - low, smallest)) - jnp.log(jnp.maximum(high - action, smallest))
    )


def log_slope(u: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Return `log(d squash / d u)`, which is finite for every finite `u`."""
    return jnp.log(0.5 * (high - low)) + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
