"""Squashing of Gaussian actions into bounds by tanh, without the loss of digits near the bounds."""

import math

import jax
import jax.numpy as jnp


@jax.custom_jvp
def tanh(x: jax.Array) -> jax.Array:
    """`tanh(x)`, whose slope keeps its digits where the function is nearly flat."""
    return jnp.tanh(x)


@tanh.defjvp
def _tanh_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (tangent,) = primals, tangents
    small = jnp.exp(-2 * jnp.abs(x))  # JAX has `1 - tanh(x)^2`, which cancels
    return tanh(x), tangent * (4 * small / jnp.square(1 + small))


def squash(u: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The action in `[low, high]` of a real value, `low + (high - low) * (tanh(u) + 1) / 2`."""
    return jnp.clip(low + 0.5 * (high - low) * (tanh(u) + 1), low, high)


def unsquash(action: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The real value of an action; at or beyond a bound, that of the nearest number below 1, with gradient zero."""
    smallest = 0.5 * float(jnp.finfo(action.dtype).epsneg) * (high - low)
    # atanh by the distances from the bounds: near a bound they are exact, where 1 - |action| has
    # lost its digits.
    return 0.5 * (
        jnp.log(jnp.maximum(action - low, smallest)) - jnp.log(jnp.maximum(high - action, smallest))
    )


def log_slope(u: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """`log(d squash / d u)`, finite for every finite `u`."""
    return jnp.log(0.5 * (high - low)) + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
