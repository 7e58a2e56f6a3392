"""Generalised advantage estimation.

Time is axis 0: arguments are `[T]`, or `[T, B]` for a batch of trajectories, all with the same
shape. Rewards, discounts and lambdas may also be scalars. Results are constants for the gradient
unless `stop_target_gradients=False`. See `agentzoo.core.returns` for the meaning of `discount_t`,
`last_t` and `mask`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import operator, same_shape, stop_gradient_if
from agentzoo.core._recurrence import (
    over_time,
    recurrence,
    shape_before_last_value,
    wide_floats,
    within_episodes,
)

__all__ = ["generalized_advantage_estimation", "truncated_generalized_advantage_estimation"]


@operator(static=("stop_target_gradients",))
def truncated_generalized_advantage_estimation(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    lambda_: ArrayLike,
    values: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return generalised advantages along a single row of values.

    `adv_t = delta_t + discount_t * lambda_t * adv_{t+1}` with
    `delta_t = r_t + discount_t * values[t + 1] - values[t]`, truncated at the end of the
    trajectory. See "Proximal Policy Optimization Algorithms" by Schulman et al.
    (https://arxiv.org/abs/1707.06347, equation 11). A single row of values cannot hold both the
    last state of an episode and the first state of the next. If episodes are truncated within a
    trajectory, use `generalized_advantage_estimation`.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      lambda_: `[T, ...]` or scalar mixing parameters.
      values: `[T + 1, ...]` values of all states.
      stop_target_gradients: whether to treat the advantages as constants.

    Returns:
      `[T, ...]` advantages.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "truncated_generalized_advantage_estimation"
    shape = shape_before_last_value(name, values)
    same_shape(name, shape, r_t=r_t, discount_t=discount_t, lambda_=lambda_)
    dtype, (r_t, discount_t, lambda_, values) = wide_floats(
        r_t=r_t, discount_t=discount_t, lambda_=lambda_, values=values
    )
    delta_t = r_t + discount_t * values[1:] - values[:-1]
    advantages = _advantages(delta_t, discount_t, lambda_)
    return stop_gradient_if(stop_target_gradients, advantages.astype(dtype))


@operator(static=("stop_target_gradients",))
def generalized_advantage_estimation(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_tm1: ArrayLike,
    v_t: ArrayLike,
    last_t: ArrayLike,
    lambda_: ArrayLike,
    mask: ArrayLike | None = None,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return generalised advantages along a trajectory in which episodes may end.

    `adv_t = delta_t + discount_t * lambda_t * (1 - last_t) * adv_{t+1}` with
    `delta_t = r_t + discount_t * v_t - v_tm1`. The corresponding returns are `adv_t + v_tm1`. See
    "High-Dimensional Continuous Control Using Generalized Advantage Estimation" by Schulman et al.
    (https://arxiv.org/abs/1506.02438, equation 16), and "Time Limits in Reinforcement Learning" by
    Pardo et al. (https://arxiv.org/abs/1712.00378) for the bootstrapping at truncations.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination, but not at a truncation.
      v_tm1: `[T, ...]` values of the states in which the steps start.
      v_t: `[T, ...]` values of the true successors, also at a truncation.
      last_t: `[T, ...]` true where the step ends an episode, by termination or by truncation.
      lambda_: `[T, ...]` or scalar mixing parameters.
      mask: `[T, ...]` true where the step happened. Elsewhere the advantage is 0.
      stop_target_gradients: whether to treat the advantages as constants.

    Returns:
      `[T, ...]` advantages.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    shape = over_time(
        "generalized_advantage_estimation",
        r_t=r_t,
        discount_t=discount_t,
        v_tm1=v_tm1,
        v_t=v_t,
        last_t=last_t,
        lambda_=lambda_,
        mask=mask,
    )
    floating = wide_floats(r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, lambda_=lambda_)
    dtype, (r_t, discount_t, v_tm1, v_t, lambda_) = floating
    lambda_, r_t, discount_t, v_tm1, v_t = within_episodes(
        shape, lambda_, last_t, mask, r_t, discount_t, v_tm1, v_t
    )
    delta_t = jnp.broadcast_to(r_t + discount_t * v_t - v_tm1, shape)
    advantages = _advantages(delta_t, discount_t, lambda_)
    return stop_gradient_if(stop_target_gradients, advantages.astype(dtype))


def _advantages(delta_t: jax.Array, discount_t: jax.Array, lambda_: jax.Array) -> jax.Array:
    """Return the discounted sums `[T, ...]` of errors, starting from 0 behind the last step."""

    def step(advantage, delta, discount, lam):
        return delta + discount * (lam * advantage)

    behind_the_end = jnp.zeros(delta_t.shape[1:], delta_t.dtype)
    return recurrence(step, behind_the_end, delta_t, discount_t, lambda_)
