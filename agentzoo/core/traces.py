"""Errors over a trajectory with multi-step targets: TD(lambda), SARSA(lambda), Q(lambda), Retrace.

Time is axis 0: rewards are `[T]`, or `[T, B]` for a batch of trajectories, and action values are
`[T, A]` or `[T, B, A]`. Rewards, discounts and lambdas may also be scalars. An error is
`target - prediction`. Set lambda to 0 where an episode ends. Actions are indices in `[0, A)`. An
index out of range raises no error, because the operators are compiled, but it gives NaN.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import actions, floats, operator, pick, same_shape, values_of
from agentzoo.core._recurrence import over_time, wide_floats
from agentzoo.core.returns import (
    general_off_policy_returns_from_action_values,
    general_off_policy_returns_from_q_and_v,
    lambda_returns,
)

__all__ = [
    "eligibility_trace",
    "q_lambda",
    "retrace",
    "retrace_continuous",
    "sarsa_lambda",
    "td_lambda",
    "watkins_lambda",
]


@operator(static=("stop_target_gradients",))
def td_lambda(
    v_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    lambda_: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return TD(lambda) errors, `g_t - v_tm1` with the returns of `lambda_returns`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, section 12.1 (forward view).

    Args:
      v_tm1: `[T, ...]` values at the source.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` values at the destination.
      lambda_: `[T, ...]` or scalar mixing parameters; 0 where an episode ends.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    over_time("td_lambda", v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t, lambda_=lambda_)
    floating = wide_floats(v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t, lambda_=lambda_)
    dtype, (v_tm1, r_t, discount_t, v_t, lambda_) = floating
    g_t = lambda_returns(r_t, discount_t, v_t, lambda_, stop_target_gradients)
    return (g_t - v_tm1).astype(dtype)


@operator(static=("stop_target_gradients",))
def sarsa_lambda(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    a_t: ArrayLike,
    lambda_: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return SARSA(lambda) errors, `g_t - q_tm1[a_tm1]`.

    The returns `g_t` are the `lambda_returns` of the values `q_t[a_t]`. See "Reinforcement
    Learning: An Introduction" by Sutton and Barto, section 12.7.

    Args:
      q_tm1: `[T, ..., A]` action values at the source.
      a_tm1: `[T, ...]` action indices.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      q_t: `[T, ..., A]` action values at the destination.
      a_t: `[T, ...]` action indices at the destination.
      lambda_: `[T, ...]` or scalar mixing parameters; 0 where an episode ends.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("sarsa_lambda", q_tm1=q_tm1, q_t=q_t)
    actions("sarsa_lambda", leading, a_tm1=a_tm1, a_t=a_t)
    over_time("sarsa_lambda", a_tm1=a_tm1, r_t=r_t, discount_t=discount_t, lambda_=lambda_)
    floating = wide_floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, lambda_=lambda_)
    dtype, (q_tm1, r_t, discount_t, q_t, lambda_) = floating
    g_t = lambda_returns(r_t, discount_t, pick(q_t, a_t), lambda_, stop_target_gradients)
    return (g_t - pick(q_tm1, a_tm1)).astype(dtype)


@operator(static=("stop_target_gradients",))
def q_lambda(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    lambda_: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return Q(lambda) errors, `g_t - q_tm1[a_tm1]`.

    The returns `g_t` are the `lambda_returns` of the values `max_a q_t[a]`. With a constant lambda
    this is Peng's Q(lambda), and with the lambdas of `watkins_lambda` it is Watkins's Q(lambda).
    See "Reinforcement Learning: An Introduction" by Sutton and Barto, section 12.10.

    Args:
      q_tm1: `[T, ..., A]` action values at the source.
      a_tm1: `[T, ...]` action indices.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      q_t: `[T, ..., A]` action values at the destination.
      lambda_: `[T, ...]` or scalar mixing parameters; 0 where an episode ends.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("q_lambda", q_tm1=q_tm1, q_t=q_t)
    actions("q_lambda", leading, a_tm1=a_tm1)
    over_time("q_lambda", a_tm1=a_tm1, r_t=r_t, discount_t=discount_t, lambda_=lambda_)
    floating = wide_floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, lambda_=lambda_)
    dtype, (q_tm1, r_t, discount_t, q_t, lambda_) = floating
    g_t = lambda_returns(r_t, discount_t, jnp.max(q_t, axis=-1), lambda_, stop_target_gradients)
    return (g_t - pick(q_tm1, a_tm1)).astype(dtype)


@operator(static=("stop_target_gradients",))
def retrace(
    q_tm1: ArrayLike,
    q_t: ArrayLike,
    a_tm1: ArrayLike,
    a_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    pi_t: ArrayLike,
    mu_t: ArrayLike,
    lambda_: ArrayLike,
    eps: ArrayLike = 1e-8,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return Retrace(lambda) errors for discrete actions, `g_t - q_tm1[a_tm1]`.

    The returns `g_t` are `general_off_policy_returns_from_action_values` with the trace
    coefficients `c_t = lambda_t * min(1, pi_t[a_t] / mu_t)`. See "Safe and Efficient Off-Policy
    Reinforcement Learning" by Munos et al. (https://arxiv.org/abs/1606.02647).

    Args:
      q_tm1: `[T, ..., A]` action values at the source.
      q_t: `[T, ..., A]` action values at the destination.
      a_tm1: `[T, ...]` action indices.
      a_t: `[T, ...]` action indices at the destination.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      pi_t: `[T, ..., A]` probabilities of the target policy at the destination.
      mu_t: `[T, ...]` probabilities with which the behaviour policy took `a_t`.
      lambda_: `[T, ...]` or scalar mixing parameters; 0 where an episode ends.
      eps: scalar added to `mu_t` to avoid a division by zero.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("retrace", q_tm1=q_tm1, q_t=q_t, pi_t=pi_t)
    actions("retrace", leading, a_tm1=a_tm1, a_t=a_t)
    same_shape("retrace", (), eps=eps)
    over_time("retrace", a_t=a_t, r_t=r_t, discount_t=discount_t, mu_t=mu_t, lambda_=lambda_)
    floating = wide_floats(
        q_tm1=q_tm1, q_t=q_t, r_t=r_t, discount_t=discount_t, pi_t=pi_t, mu_t=mu_t, lambda_=lambda_
    )
    dtype, (q_tm1, q_t, r_t, discount_t, pi_t, mu_t, lambda_) = floating
    c_t = lambda_ * jnp.minimum(1, pick(pi_t, a_t) / (mu_t + eps))
    g_t = general_off_policy_returns_from_action_values(
        q_t, a_t, r_t, discount_t, c_t, pi_t, stop_target_gradients
    )
    return (g_t - pick(q_tm1, a_tm1)).astype(dtype)


@operator(static=("stop_target_gradients",))
def retrace_continuous(
    q_tm1: ArrayLike,
    q_t: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    log_rhos: ArrayLike,
    lambda_: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return Retrace(lambda) errors for any actions, `g_t - q_tm1`.

    The returns `g_t` are `general_off_policy_returns_from_q_and_v` with the trace coefficients
    `c_t = lambda_t * min(1, exp(log_rhos))`. See "Safe and Efficient Off-Policy Reinforcement
    Learning" by Munos et al. (https://arxiv.org/abs/1606.02647).

    Args:
      q_tm1: `[T, ...]` values of the action taken at the source.
      q_t: `[T - 1, ...]` values of the action taken at the destination. The last step needs none.
      v_t: `[T, ...]` values of the destination under the target policy.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      log_rhos: `[T - 1, ...]` log-ratios of target to behaviour probability of that action.
      lambda_: `[T - 1, ...]` or scalar mixing parameters; 0 where an episode ends.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    shape = over_time("retrace_continuous", q_tm1=q_tm1, v_t=v_t, r_t=r_t, discount_t=discount_t)
    same_shape(
        "retrace_continuous",
        (max(shape[0] - 1, 0), *shape[1:]),
        q_t=q_t,
        log_rhos=log_rhos,
        lambda_=lambda_,
    )
    floating = wide_floats(
        q_tm1=q_tm1,
        q_t=q_t,
        v_t=v_t,
        r_t=r_t,
        discount_t=discount_t,
        log_rhos=log_rhos,
        lambda_=lambda_,
    )
    dtype, (q_tm1, q_t, v_t, r_t, discount_t, log_rhos, lambda_) = floating
    c_t = lambda_ * jnp.exp(jnp.minimum(0, log_rhos))
    g_t = general_off_policy_returns_from_q_and_v(
        q_t, v_t, r_t, discount_t, c_t, stop_target_gradients
    )
    return (g_t - q_tm1).astype(dtype)


@operator
def watkins_lambda(q_t: ArrayLike, a_t: ArrayLike, lambda_: ArrayLike = 1.0) -> jax.Array:
    """Return lambdas that stop the trace before an action that is not greedy.

    They are `lambda_` where `q_t[a_t] = max_a q_t[a]`, and 0 elsewhere. With these lambdas,
    `q_lambda` is Watkins's Q(lambda). See "Reinforcement Learning: An Introduction" by Sutton and
    Barto, section 12.10.

    Args:
      q_t: `[..., A]` action values at the destination.
      a_t: `[...]` indices of the action taken at the destination.
      lambda_: `[...]` or scalar mixing parameters.

    Returns:
      `[...]` mixing parameters.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("watkins_lambda", q_t=q_t)
    actions("watkins_lambda", leading, a_t=a_t)
    same_shape("watkins_lambda", leading, lambda_=lambda_)
    q_t, lambda_ = floats(q_t=q_t, lambda_=lambda_)
    return jnp.where(pick(q_t, a_t) < jnp.max(q_t, axis=-1), 0, lambda_)


@operator(static=("replacing",))
def eligibility_trace(
    trace: Any, gradient: Any, discount_t: ArrayLike, lambda_: ArrayLike, replacing: bool = False
) -> Any:
    """Return the next eligibility trace of online TD(lambda).

    The trace is `discount_t * lambda_ * trace + gradient`. Each step of learning then changes the
    parameters by `step_size * error * trace`. See "Reinforcement Learning: An Introduction" by
    Sutton and Barto, equation 12.5, and "Reinforcement Learning with Replacing Eligibility Traces"
    by Singh and Sutton (1996).

    Args:
      trace: a tree of arrays; zeros at the start of an episode.
      gradient: the gradient of the prediction at the source, a tree like `trace`.
      discount_t: scalar, the discount of the previous step.
      lambda_: scalar.
      replacing: whether a non-zero gradient replaces the trace instead of adding to it, which suits
        binary features.

    Returns:
      A tree like `trace`.

    Raises:
      ShapeError: if `discount_t` or `lambda_` is not a scalar, or the shapes of an array of
        `gradient` and its trace differ.
      ValueError: if the trees differ.
    """
    same_shape("eligibility_trace", (), discount_t=discount_t, lambda_=lambda_)

    def next_trace(e, g):
        same_shape("eligibility_trace", jnp.shape(e), gradient=g)
        e, g, discount, lam = floats(trace=e, gradient=g, discount_t=discount_t, lambda_=lambda_)
        e = discount * lam * e
        return jnp.where(g != 0, g, e) if replacing else e + g

    return jax.tree.map(next_trace, trace, gradient)
