"""Temporal-difference errors of one step, for state and action values.

Every operator works on a single transition, with action values `[A]` and scalar actions, rewards
and discounts, and on any leading axes that all arguments share: `q_tm1` of `[B, A]` with `a_tm1` of
`[B]`. An error is `target - prediction`. Actions are indices in `[0, A)`. As under any `jax.jit`,
an index out of range raises nothing: its error is NaN.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    actions,
    floats,
    operator,
    pick,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._support import below_largest
from agentzoo.core.losses import expectile_loss

__all__ = [
    "double_q_learning",
    "expected_sarsa",
    "expectile_td_loss",
    "munchausen_q_learning",
    "persistent_q_learning",
    "q_learning",
    "qv_learning",
    "qv_max",
    "sarsa",
    "td_learning",
]


@operator(static=("stop_target_gradients",))
def td_learning(
    v_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """TD(0) error, `r_t + discount_t * v_t - v_tm1`.

    See "Learning to Predict by the Methods of Temporal Differences" by Sutton (1988).

    Args:
      v_tm1: `[...]` values at the source.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      v_t: `[...]` values at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    same_shape("td_learning", jnp.shape(v_tm1), r_t=r_t, discount_t=discount_t, v_t=v_t)
    v_tm1, r_t, discount_t, v_t = floats(v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t)
    return stop_gradient_if(stop_target_gradients, r_t + discount_t * v_t) - v_tm1


@operator(static=("stop_target_gradients",))
def sarsa(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    a_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """SARSA error, `r_t + discount_t * q_t[a_t] - q_tm1[a_tm1]`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, equation 6.7.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      a_t: `[...]` action indices at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("sarsa", q_tm1=q_tm1, q_t=q_t)
    actions("sarsa", leading, a_tm1=a_tm1, a_t=a_t)
    same_shape("sarsa", leading, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t)
    target_tm1 = r_t + discount_t * pick(q_t, a_t)
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def expected_sarsa(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    probs_a_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Expected SARSA error, `r_t + discount_t * sum_a probs_a_t[a] q_t[a] - q_tm1[a_tm1]`.

    See "A Theoretical and Empirical Analysis of Expected Sarsa" by van Seijen et al. (2009).

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      probs_a_t: `[..., A]` probabilities of the actions at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("expected_sarsa", q_tm1=q_tm1, q_t=q_t, probs_a_t=probs_a_t)
    actions("expected_sarsa", leading, a_tm1=a_tm1)
    same_shape("expected_sarsa", leading, r_t=r_t, discount_t=discount_t)
    floating = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, probs_a_t=probs_a_t)
    q_tm1, r_t, discount_t, q_t, probs_a_t = floating
    target_tm1 = r_t + discount_t * jnp.sum(probs_a_t * q_t, axis=-1)
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def q_learning(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Q-learning error, `r_t + discount_t * max_a q_t[a] - q_tm1[a_tm1]`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, equation 6.8.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
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
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t_value: ArrayLike,
    q_t_selector: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Double Q-learning error, `r_t + discount_t * q_t_value[argmax_a q_t_selector[a]] - q_tm1[a_tm1]`.

    See "Double Q-learning" by van Hasselt (2010,
    https://papers.nips.cc/paper/3964-double-q-learning), and "Deep Reinforcement Learning with
    Double Q-learning" (2015, https://arxiv.org/abs/1509.06461, equation 4) where the selector is
    the online network.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t_value: `[..., A]` action values at the destination that the chosen action is valued by.
      q_t_selector: `[..., A]` action values at the destination that the action is chosen by.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of(
        "double_q_learning", q_tm1=q_tm1, q_t_value=q_t_value, q_t_selector=q_t_selector
    )
    actions("double_q_learning", leading, a_tm1=a_tm1)
    same_shape("double_q_learning", leading, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t_value = floats(
        q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t_value=q_t_value
    )
    target_tm1 = r_t + discount_t * pick(q_t_value, jnp.argmax(q_t_selector, axis=-1))
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def persistent_q_learning(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    action_gap_scale: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Q-learning error whose target mixes in the value of taking the same action again, which widens the gap between actions.

    `r_t + discount_t * ((1 - action_gap_scale) * max_a q_t[a] + action_gap_scale * q_t[a_tm1]) -
    q_tm1[a_tm1]`. See "Increasing the Action Gap: New Operators for Reinforcement Learning" by
    Bellemare et al. (https://arxiv.org/abs/1512.04860).

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      action_gap_scale: `[...]` or scalar weight of the repeated action, in `[0, 1]`.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("persistent_q_learning", q_tm1=q_tm1, q_t=q_t)
    actions("persistent_q_learning", leading, a_tm1=a_tm1)
    same_shape(
        "persistent_q_learning",
        leading,
        r_t=r_t,
        discount_t=discount_t,
        action_gap_scale=action_gap_scale,
    )
    floating = floats(
        q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, action_gap_scale=action_gap_scale
    )
    q_tm1, r_t, discount_t, q_t, scale = floating
    target_tm1 = r_t + discount_t * ((1 - scale) * jnp.max(q_t, axis=-1) + scale * pick(q_t, a_tm1))
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def munchausen_q_learning(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    q_target_tm1: ArrayLike,
    munchausen_scale: ArrayLike = 0.9,
    temperature: ArrayLike = 0.03,
    log_policy_min: ArrayLike = -1.0,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Munchausen Q-learning error: soft Q-learning whose reward also counts how likely the policy found the action.

    With the policy `pi = softmax(q / temperature)` of the target network, at the source and at the
    destination, the target is `r_t + munchausen_scale * clip(temperature * log pi_tm1[a_tm1],
    log_policy_min, 0) + discount_t * sum_a pi_t[a] (q_t[a] - temperature * log pi_t[a])`. See
    "Munchausen Reinforcement Learning" by Vieillard et al. (https://arxiv.org/abs/2007.14430).

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination, of the target network.
      q_target_tm1: `[..., A]` action values at the source, of the target network.
      munchausen_scale: scalar, how much of the log-policy is added to the reward.
      temperature: positive scalar, in units of value.
      log_policy_min: scalar, the least that `temperature * log pi` counts as.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("munchausen_q_learning", q_tm1=q_tm1, q_t=q_t, q_target_tm1=q_target_tm1)
    actions("munchausen_q_learning", leading, a_tm1=a_tm1)
    options = {
        "munchausen_scale": munchausen_scale,
        "temperature": temperature,
        "log_policy_min": log_policy_min,
    }
    same_shape("munchausen_q_learning", leading, r_t=r_t, discount_t=discount_t, **options)
    floating = floats(
        q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, q_target_tm1=q_target_tm1, **options
    )
    q_tm1, r_t, discount_t, q_t, q_target_tm1, munchausen_scale, temperature, log_policy_min = (
        floating
    )

    def soft_value(
        q,
    ):  # of the policy, its entropy included: sum_a pi[a] (q[a] - temperature * log pi[a])
        return temperature * jax.nn.logsumexp(
            q / jnp.broadcast_to(temperature, leading)[..., None], axis=-1
        )

    q_target_tm1, _ = below_largest(
        q_target_tm1
    )  # a policy does not depend on what its values have in common
    log_policy = pick(q_target_tm1, a_tm1) - soft_value(q_target_tm1)  # times the temperature
    bonus = munchausen_scale * jnp.clip(log_policy, log_policy_min, 0)
    target_tm1 = r_t + bonus + discount_t * soft_value(q_t)
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def qv_learning(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """QV-learning error, `r_t + discount_t * v_t - q_tm1[a_tm1]`: action values learn from state values.

    See "Two Novel On-policy Reinforcement Learning Algorithms based on TD(lambda)-methods" by
    Wiering and van Hasselt (2007).

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      v_t: `[...]` values at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("qv_learning", q_tm1=q_tm1)
    actions("qv_learning", leading, a_tm1=a_tm1)
    same_shape("qv_learning", leading, r_t=r_t, discount_t=discount_t, v_t=v_t)
    q_tm1, r_t, discount_t, v_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t)
    return stop_gradient_if(stop_target_gradients, r_t + discount_t * v_t) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients",))
def qv_max(
    v_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """QVMAX error, `r_t + discount_t * max_a q_t[a] - v_tm1`: state values learn from action values.

    See "The QV Family Compared to Other Reinforcement Learning Algorithms" by Wiering and van
    Hasselt (2009).

    Args:
      v_tm1: `[...]` values at the source.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    same_shape("qv_max", values_of("qv_max", q_t=q_t), v_tm1=v_tm1, r_t=r_t, discount_t=discount_t)
    v_tm1, r_t, discount_t, q_t = floats(v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t)
    return stop_gradient_if(stop_target_gradients, r_t + discount_t * jnp.max(q_t, axis=-1)) - v_tm1


@operator(static=("stop_target_gradients",))
def expectile_td_loss(
    v_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    expectile: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Asymmetric squared TD(0) error, `|expectile - (error < 0)| * error^2` with `error = r_t + discount_t * v_t - v_tm1`.

    Its minimum is the expectile of the target instead of the mean, which 0.5 gives; unlike the
    other operators it returns the loss, for no squared error has this gradient. See "Statistics and
    Samples in Distributional Reinforcement Learning" by Rowland et al.
    (https://arxiv.org/abs/1902.08102), and "Offline Reinforcement Learning with Implicit
    Q-Learning" by Kostrikov et al. (https://arxiv.org/abs/2110.06169, equation 5).

    Args:
      v_tm1: `[...]` values at the source.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      v_t: `[...]` values at the destination.
      expectile: `[...]` or scalar, in `(0, 1)`; above 0.5 the value leans towards the better
        outcomes.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    same_shape(
        "expectile_td_loss",
        jnp.shape(v_tm1),
        r_t=r_t,
        discount_t=discount_t,
        v_t=v_t,
        expectile=expectile,
    )
    floating = floats(v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t, expectile=expectile)
    v_tm1, r_t, discount_t, v_t, expectile = floating
    return expectile_loss(
        v_tm1, stop_gradient_if(stop_target_gradients, r_t + discount_t * v_t), expectile
    )
