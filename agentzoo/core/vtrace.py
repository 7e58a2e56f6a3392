"""V-trace: errors of state values, and advantages, from data that an older policy collected.

Time is axis 0: arguments are `[T]`, or `[T, B]` for a batch of trajectories, and all have the same
shape. Rewards, discounts, ratios and lambdas may also be scalars. Targets are constants for the
gradient unless `stop_target_gradients=False`.

`sample_mask` is False for a step that never happened. All results of that step are 0, and the step
before it bootstraps from its own `v_t`, so nothing flows through a masked step. Where an episode is
truncated within a trajectory, `v_t` must be the value of the true successor, and lambda must be 0.

See "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures" by
Espeholt et al. (2018, https://arxiv.org/abs/1802.01561). The leaky form is from "A Self-Tuning
Actor-Critic Algorithm" by Zahavy et al. (2020, https://arxiv.org/abs/2002.12928).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import operator, same_shape, stop_gradient_if
from agentzoo.core._recurrence import (
    over_time,
    recurrence,
    stop_gradient_of_target,
    wide_floats,
    within_episodes,
)

__all__ = [
    "VTraceOutput",
    "leaky_vtrace",
    "leaky_vtrace_td_error_and_advantage",
    "vtrace",
    "vtrace_td_error_and_advantage",
]


class VTraceOutput(NamedTuple):
    """Targets of a V-trace actor-critic, each `[T, ...]`.

    Attributes:
      errors: errors of the values, for the loss of the critic.
      pg_advantage: advantages, for the policy gradient.
      q_estimate: estimated values of the actions taken.
    """

    errors: jax.Array
    pg_advantage: jax.Array
    q_estimate: jax.Array


@operator(static=("stop_target_gradients",))
def leaky_vtrace(
    v_tm1: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    alpha_: ArrayLike = 1.0,
    lambda_: ArrayLike = 1.0,
    clip_rho_threshold: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
    sample_mask: ArrayLike | None = None,
    *,
    alpha: ArrayLike | None = None,
) -> jax.Array:
    """Return V-trace errors with weights between clipped and plain importance ratios.

    The errors are computed backwards in time::

        delta_t = r_t + discount_t * v_t - v_tm1
        rho_t = alpha * min(clip_rho_threshold, rho_tm1) + (1 - alpha) * rho_tm1
        c_t = alpha * min(1, rho_tm1) + (1 - alpha) * rho_tm1
        error_t = rho_t * delta_t + discount_t * lambda_t * c_t * error_{t+1}

    See Zahavy et al., section 3 ("leaky V-trace").

    Args:
      v_tm1: `[T, ...]` values of the states in which the steps start.
      v_t: `[T, ...]` values of the successor states.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, or 0 at a termination.
      rho_tm1: `[T, ...]` ratios of the probabilities of the actions taken under the target policy
        and the behaviour policy.
      alpha_: scalar. 1 gives V-trace, and 0 gives plain importance sampling.
      lambda_: `[T, ...]` or scalar mixing parameters.
      clip_rho_threshold: largest `rho_t`, a scalar.
      stop_target_gradients: whether the targets, `error + v_tm1`, are constants for the
        gradient.
      sample_mask: `[T, ...]` whether the step happened; None if all steps happened.
      alpha: another name for `alpha_`.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = {
        "v_tm1": v_tm1,
        "v_t": v_t,
        "r_t": r_t,
        "discount_t": discount_t,
        "rho_tm1": rho_tm1,
        "lambda_": lambda_,
    }
    options = {
        "clip_rho_threshold": clip_rho_threshold,
        "alpha": alpha_ if alpha is None else alpha,
    }
    return _vtrace("leaky_vtrace", steps, sample_mask, stop_target_gradients, **options).errors


@operator(static=("stop_target_gradients",))
def vtrace(
    v_tm1: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    lambda_: ArrayLike = 1.0,
    clip_rho_threshold: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
    sample_mask: ArrayLike | None = None,
) -> jax.Array:
    """Return V-trace errors, `rho_t * delta_t + discount_t * lambda_t * c_t * error_{t+1}`.

    Here::

        delta_t = r_t + discount_t * v_t - v_tm1
        rho_t = min(clip_rho_threshold, rho_tm1)
        c_t = min(1, rho_tm1)

    See Espeholt et al., section 4.1 (remark 2 for lambda).

    Args:
      v_tm1: `[T, ...]` values of the states in which the steps start.
      v_t: `[T, ...]` values of the successor states.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, or 0 at a termination.
      rho_tm1: `[T, ...]` ratios of the probabilities of the actions taken under the target policy
        and the behaviour policy.
      lambda_: `[T, ...]` or scalar mixing parameters.
      clip_rho_threshold: largest `rho_t`, a scalar.
      stop_target_gradients: whether the targets, `error + v_tm1`, are constants for the
        gradient.
      sample_mask: `[T, ...]` whether the step happened; None if all steps happened.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = {
        "v_tm1": v_tm1,
        "v_t": v_t,
        "r_t": r_t,
        "discount_t": discount_t,
        "rho_tm1": rho_tm1,
        "lambda_": lambda_,
    }
    return _vtrace(
        "vtrace", steps, sample_mask, stop_target_gradients, clip_rho_threshold=clip_rho_threshold
    ).errors


@operator(static=("stop_target_gradients",))
def leaky_vtrace_td_error_and_advantage(
    v_tm1: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    alpha: ArrayLike = 1.0,
    lambda_: ArrayLike = 1.0,
    clip_rho_threshold: ArrayLike = 1.0,
    clip_pg_rho_threshold: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
    sample_mask: ArrayLike | None = None,
    *,
    alpha_: ArrayLike | None = None,
) -> VTraceOutput:
    """Return the errors of `leaky_vtrace` and the advantages of its policy gradient.

    The advantages are `rho_t * (q_t - v_tm1)`, with::

        target_t = v_tm1 + error_t
        q_t = r_t + discount_t * ((1 - lambda_t) * v_t + lambda_t * target_{t+1})

    At the last step, `v_t` replaces the target. `rho_t` is clipped as in `leaky_vtrace`, at
    `clip_pg_rho_threshold`. See Espeholt et al., section 4.2.

    Args:
      v_tm1: `[T, ...]` values of the states in which the steps start.
      v_t: `[T, ...]` values of the successor states.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, or 0 at a termination.
      rho_tm1: `[T, ...]` ratios of the probabilities of the actions taken under the target policy
        and the behaviour policy.
      alpha: scalar. 1 gives V-trace, and 0 gives plain importance sampling.
      lambda_: `[T, ...]` or scalar mixing parameters.
      clip_rho_threshold: largest `rho_t` in the errors, a scalar.
      clip_pg_rho_threshold: largest `rho_t` in the advantages, a scalar.
      stop_target_gradients: whether targets, advantages and action values are constants for
        the gradient.
      sample_mask: `[T, ...]` whether the step happened; None if all steps happened.
      alpha_: another name for `alpha`.

    Returns:
      Errors, advantages and estimated action values.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = {
        "v_tm1": v_tm1,
        "v_t": v_t,
        "r_t": r_t,
        "discount_t": discount_t,
        "rho_tm1": rho_tm1,
        "lambda_": lambda_,
    }
    options = {
        "clip_rho_threshold": clip_rho_threshold,
        "clip_pg_rho_threshold": clip_pg_rho_threshold,
        "alpha": alpha if alpha_ is None else alpha_,
    }
    return _vtrace(
        "leaky_vtrace_td_error_and_advantage", steps, sample_mask, stop_target_gradients, **options
    )


@operator(static=("stop_target_gradients",))
def vtrace_td_error_and_advantage(
    v_tm1: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    lambda_: ArrayLike = 1.0,
    clip_rho_threshold: ArrayLike = 1.0,
    clip_pg_rho_threshold: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
    sample_mask: ArrayLike | None = None,
) -> VTraceOutput:
    """Return the errors of `vtrace` and the advantages of its policy gradient.

    The advantages are `rho_t * (q_t - v_tm1)`, with::

        rho_t = min(clip_pg_rho_threshold, rho_tm1)
        target_t = v_tm1 + error_t
        q_t = r_t + discount_t * ((1 - lambda_t) * v_t + lambda_t * target_{t+1})

    At the last step, `v_t` replaces the target. See Espeholt et al., section 4.2.

    Args:
      v_tm1: `[T, ...]` values of the states in which the steps start.
      v_t: `[T, ...]` values of the successor states.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, or 0 at a termination.
      rho_tm1: `[T, ...]` ratios of the probabilities of the actions taken under the target policy
        and the behaviour policy.
      lambda_: `[T, ...]` or scalar mixing parameters.
      clip_rho_threshold: largest `rho_t` in the errors, a scalar.
      clip_pg_rho_threshold: largest `rho_t` in the advantages, a scalar.
      stop_target_gradients: whether targets, advantages and action values are constants for
        the gradient.
      sample_mask: `[T, ...]` whether the step happened; None if all steps happened.

    Returns:
      Errors, advantages and estimated action values.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = {
        "v_tm1": v_tm1,
        "v_t": v_t,
        "r_t": r_t,
        "discount_t": discount_t,
        "rho_tm1": rho_tm1,
        "lambda_": lambda_,
    }
    options = {
        "clip_rho_threshold": clip_rho_threshold,
        "clip_pg_rho_threshold": clip_pg_rho_threshold,
    }
    return _vtrace(
        "vtrace_td_error_and_advantage", steps, sample_mask, stop_target_gradients, **options
    )


def _vtrace(
    operator_name: str,
    steps: dict[str, ArrayLike],
    sample_mask: ArrayLike | None,
    stop: bool,
    clip_rho_threshold: ArrayLike,
    clip_pg_rho_threshold: ArrayLike = 1.0,
    alpha: ArrayLike | None = None,
) -> VTraceOutput:
    """Compute all outputs.

    Args:
      operator_name: name for the error messages.
      steps: arguments `[T, ...]` or scalars, in the order `v_tm1`, `v_t`, `r_t`, `discount_t`,
        `rho_tm1`, `lambda_`.
      sample_mask: `[T, ...]` or None.
      stop: whether the targets are constants for the gradient.
      clip_rho_threshold: scalar.
      clip_pg_rho_threshold: scalar.
      alpha: scalar; None means 1.
    """
    shape = over_time(operator_name, **steps, sample_mask=sample_mask)
    thresholds = {
        "clip_rho_threshold": clip_rho_threshold,
        "clip_pg_rho_threshold": clip_pg_rho_threshold,
    }
    same_shape(operator_name, (), **thresholds, alpha=1.0 if alpha is None else alpha)
    dtype, (v_tm1, v_t, r_t, discount_t, rho_tm1, lambda_) = wide_floats(**steps)
    lambda_, *values = within_episodes(
        shape, lambda_, None, sample_mask, v_tm1, v_t, r_t, discount_t, rho_tm1
    )
    v_tm1, v_t, r_t, discount_t, rho_tm1 = values

    def weight(threshold):
        clipped = jnp.minimum(threshold, rho_tm1)
        return clipped if alpha is None else jnp.asarray(alpha * clipped + (1 - alpha) * rho_tm1)

    def step(error, delta, discount, c):
        return delta + discount * (c * error)

    delta_t = jnp.broadcast_to(weight(clip_rho_threshold) * (r_t + discount_t * v_t - v_tm1), shape)
    errors = recurrence(
        step, jnp.zeros(shape[1:], delta_t.dtype), delta_t, discount_t, lambda_ * weight(1.0)
    )

    # Each step needs the target of the next step. The last step has only its successor's value.
    v_t = jnp.broadcast_to(v_t, shape)
    target_t = jnp.concatenate([(errors + v_tm1)[1:], v_t[-1:]])
    q_estimate = r_t + discount_t * ((1 - lambda_) * v_t + lambda_ * target_t)
    pg_advantage = weight(clip_pg_rho_threshold) * (q_estimate - v_tm1)
    if stop:
        errors = stop_gradient_of_target(errors, v_tm1)
    results = (errors, stop_gradient_if(stop, pg_advantage), stop_gradient_if(stop, q_estimate))
    return VTraceOutput(*(x.astype(dtype) for x in results))
