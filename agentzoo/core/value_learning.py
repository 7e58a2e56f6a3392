"""Temporal-difference errors of action values.

Every operator works on a single transition, with action values `[A]` and scalar actions, rewards and discounts, and on any
leading axes that all arguments share: `q_tm1` of `[B, A]` with `a_tm1` of `[B]`. An error is `target - prediction`. Actions are
indices in `[0, A)`. As under any `jax.jit`, an index out of range raises nothing: its error is NaN.
"""

import jax
import jax.numpy as jnp

from agentzoo.core._operator import actions, floats, operator, pick, same_shape, stop_gradient_if, values_of


@operator(static=("stop_target_gradients",))
def q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Q-learning error, `r_t + discount_t * max_a q_t[a] - q_tm1[a_tm1]`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, equation 6.8.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    leading = values_of("q_learning", q_tm1=q_tm1, q_t=q_t)
    actions("q_learning", leading, a_tm1=a_tm1)
    same_shape("q_learning", leading, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t)
    target_tm1 = r_t + discount_t * jnp.max(q_t, axis=-1)
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def double_q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t_value: jax.Array,
    q_t_selector: jax.Array,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Double Q-learning error, `r_t + discount_t * q_t_value[argmax_a q_t_selector[a]] - q_tm1[a_tm1]`.

    See "Double Q-learning" by van Hasselt (2010, https://papers.nips.cc/paper/3964-double-q-learning), and "Deep Reinforcement
    Learning with Double Q-learning" (2015, https://arxiv.org/abs/1509.06461, equation 4) where the selector is the online network.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t_value: `[..., A]` action values at the destination that the chosen action is valued by.
      q_t_selector: `[..., A]` action values at the destination that the action is chosen by.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    leading = values_of("double_q_learning", q_tm1=q_tm1, q_t_value=q_t_value, q_t_selector=q_t_selector)
    actions("double_q_learning", leading, a_tm1=a_tm1)
    same_shape("double_q_learning", leading, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t_value = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t_value=q_t_value)
    target_tm1 = r_t + discount_t * pick(q_t_value, jnp.argmax(q_t_selector, axis=-1))
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)
