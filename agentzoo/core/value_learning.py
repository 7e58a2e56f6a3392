"""Temporal-difference errors of one step, for state values and action values.

Every operator works on a single transition, with action values `[A]` and scalar actions, rewards
and discounts, and on any leading axes that all arguments share, such as `q_tm1` `[B, A]` with
`a_tm1` `[B]`. An error is `target - prediction`. Actions are indices in `[0, A)`. An index out of
range raises no error, because the operators are compiled, but its TD error is NaN.
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
    """Return the TD(0) error, `r_t + discount_t * v_t - v_tm1`.

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
    """Return the SARSA error, `r_t + discount_t * q_t[a_t] - q_tm1[a_tm1]`.

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
    """Return the expected SARSA error, `r_t + discount_t * v_t - q_tm1[a_tm1]`.

    The value of the destination is `v_t = sum_a probs_a_t[a] q_t[a]`. See "A Theoretical and
    Empirical Analysis of Expected Sarsa" by van Seijen et al. (2009).

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
    """Return the Q-learning error, `r_t + discount_t * max_a q_t[a] - q_tm1[a_tm1]`.

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
    """Return the double Q-learning error, `r_t + discount_t * q_t_value[a_t] - q_tm1[a_tm1]`.

    The selector chooses the action at the destination, `a_t = argmax_a q_t_selector[a]`. See
    "Double Q-learning" by van Hasselt (2010, https://papers.nips.cc/paper/3964-double-q-learning),
    and "Deep Reinforcement Learning with Double Q-learning" by van Hasselt et al. (2015,
    https://arxiv.org/abs/1509.06461, equation 4), where the selector is the online network.

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t_value: `[..., A]` action values at the destination that evaluate the selected action.
      q_t_selector: `[..., A]` action values at the destination that select the action.
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
    a_t = jnp.argmax(q_t_selector, axis=-1)
    target_tm1 = r_t + discount_t * pick(q_t_value, a_t)
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
    """Return the Q-learning error with a target that mixes in the value of repeating the action.

    The error is `r_t + discount_t * ((1 - s) * max_a q_t[a] + s * q_t[a_tm1]) - q_tm1[a_tm1]`,
    where `s` is `action_gap_scale`. The mixture widens the gap between the actions. See "Increasing
    the Action Gap: New Operators for Reinforcement Learning" by Bellemare et al.
    (https://arxiv.org/abs/1512.04860).

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
    scalars = {"r_t": r_t, "discount_t": discount_t, "action_gap_scale": action_gap_scale}
    same_shape("persistent_q_learning", leading, **scalars)
    q_tm1, q_t, r_t, discount_t, scale = floats(q_tm1=q_tm1, q_t=q_t, **scalars)
    v_t = (1 - scale) * jnp.max(q_t, axis=-1) + scale * pick(q_t, a_tm1)
    target_tm1 = r_t + discount_t * v_t
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
    """Return the Munchausen Q-learning error: soft Q-learning with a bonus for the log-policy.

    With the policy `pi = softmax(q / temperature)` of the target network, the target is
    `r_t + bonus + discount_t * sum_a pi_t[a] (q_t[a] - temperature * log pi_t[a])`, where
    `bonus = munchausen_scale * clip(temperature * log pi_tm1[a_tm1], log_policy_min, 0)`. See
    "Munchausen Reinforcement Learning" by Vieillard et al. (https://arxiv.org/abs/2007.14430).

    Args:
      q_tm1: `[..., A]` action values at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t: `[..., A]` action values of the target network at the destination.
      q_target_tm1: `[..., A]` action values of the target network at the source.
      munchausen_scale: scalar weight of the bonus.
      temperature: positive scalar, in units of value.
      log_policy_min: scalar lower bound of `temperature * log pi`.
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
    q_tm1, r_t, discount_t, q_t, q_target_tm1, *scalars = floating
    munchausen_scale, temperature, log_policy_min = scalars

    def soft_value(q):
        """Return the value with entropy, `sum_a pi[a] (q[a] - temperature * log pi[a])`."""
        scale = jnp.broadcast_to(temperature, leading)[..., None]
        return temperature * jax.nn.logsumexp(q / scale, axis=-1)

    # The policy does not change if its largest value is subtracted, but the rounding errors do.
    q_target_tm1, _ = below_largest(q_target_tm1)
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
    """Return the QV-learning error, `r_t + discount_t * v_t - q_tm1[a_tm1]`.

    Action values learn from state values. See "Two Novel On-policy Reinforcement Learning
    Algorithms based on TD(lambda)-methods" by Wiering and van Hasselt (2007).

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
    """Return the QVMAX error, `r_t + discount_t * max_a q_t[a] - v_tm1`.

    State values learn from action values. See "The QV Family Compared to Other Reinforcement
    Learning Algorithms" by Wiering and van Hasselt (2009).

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
    target_tm1 = r_t + discount_t * jnp.max(q_t, axis=-1)
    return stop_gradient_if(stop_target_gradients, target_tm1) - v_tm1


@operator(static=("stop_target_gradients",))
def expectile_td_loss(
    v_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    expectile: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the asymmetric squared TD(0) error, whose minimum is an expectile of the target.

    The loss is `|expectile - (error < 0)| * error^2` with `error = r_t + discount_t * v_t - v_tm1`.
    With expectile 0.5 the minimum is the mean. Unlike the other operators, this returns a loss,
    because no squared error has this gradient. See "Statistics and Samples in Distributional
    Reinforcement Learning" by Rowland et al. (https://arxiv.org/abs/1902.08102), and "Offline
    Reinforcement Learning with Implicit Q-Learning" by Kostrikov et al.
    (https://arxiv.org/abs/2110.06169, equation 5).

    Args:
      v_tm1: `[...]` values at the source.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      v_t: `[...]` values at the destination.
      expectile: `[...]` or scalar, in `(0, 1)`. Above 0.5, better outcomes weigh more.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    others = {"r_t": r_t, "discount_t": discount_t, "v_t": v_t, "expectile": expectile}
    same_shape("expectile_td_loss", jnp.shape(v_tm1), **others)
    v_tm1, r_t, discount_t, v_t, expectile = floats(v_tm1=v_tm1, **others)
    target_tm1 = stop_gradient_if(stop_target_gradients, r_t + discount_t * v_t)
    return expectile_loss(v_tm1, target_tm1, expectile)
