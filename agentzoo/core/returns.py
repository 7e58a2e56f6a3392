"""Returns along a trajectory: targets for values and policies.

Time is axis 0: arguments are `[T]`, or `[T, B]` for a batch of trajectories, all with the same
shape. Rewards, discounts and lambdas may also be scalars. Results are constants for the gradient
unless `stop_target_gradients=False`. A trajectory of length 0 has no returns.

A trajectory may contain several episodes, one after another:

* `discount_t` is gamma, and 0 where an episode terminates.
* `last_t` is true where a step ends an episode, by termination or by truncation. The return then
  bootstraps from `v_t`, and ignores the next episode.
* `v_t` is the value of the true successor, also where an episode ends.
* `mask` is 0 for a step that never happened, such as the step in which a vector environment
  resets. Its return is 0, whatever its arguments are, and the step before it bootstraps from its
  own `v_t`.

To end an episode in an operator that takes lambdas but no `last_t`, pass `lambda_ * (1 - last_t)`.
"""

import operator as python_operator

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    actions,
    operator,
    pick,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._recurrence import (
    over_time,
    recurrence,
    shape_before_last_value,
    stop_gradient_of_target,
    wide_floats,
    within_episodes,
)

__all__ = [
    "discounted_returns",
    "general_off_policy_returns_from_action_values",
    "general_off_policy_returns_from_q_and_v",
    "importance_corrected_td_errors",
    "lambda_returns",
    "n_step_bootstrapped_returns",
]


@operator(static=("stop_target_gradients",))
def lambda_returns(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    lambda_: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
    *,
    last_t: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Return the lambda-return of each step.

    `g_t = r_t + discount_t * ((1 - lambda_t) * v_t + lambda_t * g_{t+1})`, and behind the last step
    `g_T = v_t[-1]`. See "Reinforcement Learning: An Introduction" by Sutton and Barto, sections
    12.3 and 12.8 (lambdas that differ between steps).

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` values of the successors.
      lambda_: `[T, ...]` or scalar mixing parameters.
      stop_target_gradients: whether to treat the returns as constants.
      last_t: `[T, ...]` true where the step ends an episode.
      mask: `[T, ...]` true where the step happened.

    Returns:
      `[T, ...]` returns.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    shape = over_time(
        "lambda_returns",
        r_t=r_t,
        discount_t=discount_t,
        v_t=v_t,
        lambda_=lambda_,
        last_t=last_t,
        mask=mask,
    )
    dtype, (r_t, discount_t, v_t, lambda_) = wide_floats(
        r_t=r_t, discount_t=discount_t, v_t=v_t, lambda_=lambda_
    )
    if not shape[0]:
        return jnp.zeros(shape, dtype)
    lambda_, r_t, discount_t, v_t = within_episodes(
        shape, lambda_, last_t, mask, r_t, discount_t, v_t
    )

    def step(g, r, discount, v, lam):
        return r + discount * ((1 - lam) * v + lam * g)

    v_t = jnp.broadcast_to(v_t, shape)
    returns = recurrence(step, v_t[-1], r_t, discount_t, v_t, lambda_)
    return stop_gradient_if(stop_target_gradients, returns.astype(dtype))


@operator(static=("stop_target_gradients",))
def discounted_returns(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    stop_target_gradients: bool = True,
    *,
    last_t: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Return the discounted return of each step.

    `g_t = r_t + discount_t * g_{t+1}`, and behind the last step `g_T = v_t[-1]`. See "Reinforcement
    Learning: An Introduction" by Sutton and Barto, equation 3.9.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` or scalar values of the successors. Only the last value counts, and the values
        at `last_t` and before a masked step.
      stop_target_gradients: whether to treat the returns as constants.
      last_t: `[T, ...]` true where the step ends an episode.
      mask: `[T, ...]` true where the step happened.

    Returns:
      `[T, ...]` returns.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    over_time(
        "discounted_returns", r_t=r_t, discount_t=discount_t, v_t=v_t, last_t=last_t, mask=mask
    )
    return lambda_returns(
        r_t, discount_t, v_t, 1.0, stop_target_gradients, last_t=last_t, mask=mask
    )


@operator(static=("n", "stop_target_gradients"))
def n_step_bootstrapped_returns(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    n: int,
    lambda_t: ArrayLike | None = None,
    stop_target_gradients: bool = True,
    *,
    last_t: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Return the n-step return of each step, over fewer steps where the trajectory ends earlier.

    The return from step `t` is what `lambda_returns` gives for the steps `t, ..., t + n - 1` alone.
    With `lambda_t = 1` it sums `n` discounted rewards and the discounted `v_t[t + n - 1]`. See
    "Reinforcement Learning: An Introduction" by Sutton and Barto, equation 7.1. A window of steps
    is composed of windows of half its length, so time, memory and compilation grow with `log n`.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` values of the successors.
      n: the number of steps, a Python integer of at least 1.
      lambda_t: `[T, ...]` or scalar mixing parameters; 1 if None.
      stop_target_gradients: whether to treat the returns as constants.
      last_t: `[T, ...]` true where the step ends an episode.
      mask: `[T, ...]` true where the step happened.

    Returns:
      `[T, ...]` returns.

    Raises:
      ShapeError: if the shapes are incompatible.
      ValueError: if `n` is less than 1.
    """
    if python_operator.index(n) < 1:
        raise ValueError(
            f"n_step_bootstrapped_returns: 'n' is {n}. Choose a number of steps of at least 1."
        )
    name = "n_step_bootstrapped_returns"
    shape = over_time(
        name, r_t=r_t, discount_t=discount_t, v_t=v_t, lambda_t=lambda_t, last_t=last_t, mask=mask
    )
    mixed = not (lambda_t is None and last_t is None and mask is None)
    lambda_t = 1.0 if lambda_t is None else lambda_t
    dtype, (r_t, discount_t, v_t, lambda_t) = wide_floats(
        r_t=r_t, discount_t=discount_t, v_t=v_t, lambda_t=lambda_t
    )
    if not shape[0]:
        return jnp.zeros(shape, dtype)

    # A window of steps maps the return `g` from behind the window to the return from its start,
    # `base + slope * g`. Start with windows of one step.
    base, slope = r_t, discount_t
    if mixed:
        lambda_t, r_t, discount_t, v_t = within_episodes(
            shape, lambda_t, last_t, mask, r_t, discount_t, v_t
        )
        base, slope = r_t + discount_t * (1 - lambda_t) * v_t, discount_t * lambda_t
    n = min(n, shape[0])
    base, slope = _windows(jnp.broadcast_to(base, shape), jnp.broadcast_to(slope, shape), n)

    # The first T - n + 1 windows lie within the trajectory and bootstrap from v_t[t + n - 1]. The
    # end of the trajectory cuts the other windows short, so they bootstrap from the last value.
    v_t, whole = jnp.broadcast_to(v_t, shape), shape[0] - n + 1
    v_behind = jnp.split(v_t, [n - 1])[1]  # like `v_t[n - 1 :]`, but with a cheaper gradient
    returns = jnp.concatenate(
        [base[:whole] + slope[:whole] * v_behind, base[whole:] + slope[whole:] * v_t[-1:]]
    )
    return stop_gradient_if(stop_target_gradients, returns.astype(dtype))


def _windows(base: jax.Array, slope: jax.Array, n: int) -> list[jax.Array]:
    """Compose the affine maps `base + slope * g` `[T, ...]` of single steps over windows of n."""
    # Append n - 1 steps to the time axis, so that each step starts a window of n steps. They map
    # `g` to itself: their base is 0 and their slope is 1.
    past_end = [(0, n - 1, 0), *[(0, 0, 0)] * (base.ndim - 1)]
    window = [
        jax.lax.pad(x, x.dtype.type(beyond), past_end) for x, beyond in ((base, 0), (slope, 1))
    ]

    def before(near, far, width):
        """Join each window in `near`, of the given width, and the window in `far` behind it."""
        (base, slope), (far_base, far_slope) = near, far
        size = len(far_base) - width  # window t of `near` ends where window t + width begins
        return [base[:size] + slope[:size] * far_base[width:], slope[:size] * far_slope[width:]]

    # `window` has 1, 2, 4, ... steps. `windows` joins those widths whose bits are set in `n`.
    windows, width = [], 1
    while True:
        if n & width:
            windows = before(window, windows, width) if windows else window
        if 2 * width > n:
            return windows
        window, width = before(window, window, width), 2 * width


@operator(static=("stop_target_gradients",))
def general_off_policy_returns_from_q_and_v(
    q_t: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    c_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return off-policy returns with general trace coefficients, from action and state values.

    `g_t = r_t + discount_t * (v_t + c_t * (g_{t+1} - q_t))`, and at the last step
    `g_t = r_t + discount_t * v_t`. The choice of the trace coefficients `c_t` gives importance
    sampling, Q(lambda), Tree-backup or Retrace. See "Safe and Efficient Off-Policy Reinforcement
    Learning" by Munos et al. (https://arxiv.org/abs/1606.02647, equation 3).

    Args:
      q_t: `[T - 1, ...]` values of the action taken in the state that a step leads to. The last
        step needs none.
      v_t: `[T, ...]` values of that state under the target policy.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      c_t: `[T - 1, ...]` or scalar trace coefficients of the action taken in that state; 0 where an
        episode ends.
      stop_target_gradients: whether to treat the returns as constants.

    Returns:
      `[T, ...]` returns.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "general_off_policy_returns_from_q_and_v"
    shape = over_time(name, v_t=v_t, r_t=r_t, discount_t=discount_t)
    same_shape(name, (max(shape[0] - 1, 0), *shape[1:]), q_t=q_t, c_t=c_t)
    dtype, (q_t, v_t, r_t, discount_t, c_t) = wide_floats(
        q_t=q_t, v_t=v_t, r_t=r_t, discount_t=discount_t, c_t=c_t
    )
    if not shape[0]:
        return jnp.zeros(shape, dtype)

    def step(g, q, v, r, discount, c):
        return r + discount * (v + c * (g - q))

    v_t, r_t, discount_t = (jnp.broadcast_to(x, shape) for x in (v_t, r_t, discount_t))
    last = r_t[-1] + discount_t[-1] * v_t[-1]
    returns = jnp.concatenate(
        [recurrence(step, last, q_t, v_t[:-1], r_t[:-1], discount_t[:-1], c_t), last[None]]
    )
    return stop_gradient_if(stop_target_gradients, returns.astype(dtype))


@operator(static=("stop_target_gradients",))
def general_off_policy_returns_from_action_values(
    q_t: ArrayLike,
    a_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    c_t: ArrayLike,
    pi_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return off-policy returns with general trace coefficients, from action values and a policy.

    `g_t = r_t + discount_t * (sum_a pi_t[a] q_t[a] + c_t * (g_{t+1} - q_t[a_t]))`, and at the last
    step `g_t = r_t + discount_t * sum_a pi_t[a] q_t[a]`. See
    `general_off_policy_returns_from_q_and_v`.

    Args:
      q_t: `[T, ..., A]` action values of the state that a step leads to.
      a_t: `[T, ...]` indices of the action taken in that state.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      c_t: `[T, ...]` or scalar trace coefficients of that action; 0 where an episode ends.
      pi_t: `[T, ..., A]` probabilities of the target policy in that state.
      stop_target_gradients: whether to treat the returns as constants.

    Returns:
      `[T, ...]` returns.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    name = "general_off_policy_returns_from_action_values"
    shape = values_of(name, q_t=q_t, pi_t=pi_t)
    actions(name, shape, a_t=a_t)
    over_time(name, a_t=a_t, r_t=r_t, discount_t=discount_t, c_t=c_t)
    dtype, (q_t, r_t, discount_t, c_t, pi_t) = wide_floats(
        q_t=q_t, r_t=r_t, discount_t=discount_t, c_t=c_t, pi_t=pi_t
    )
    v_t = jnp.sum(pi_t * q_t, axis=-1)
    c_t = c_t[:-1] if c_t.ndim else c_t
    returns = general_off_policy_returns_from_q_and_v(
        pick(q_t, a_t)[:-1], v_t, r_t, discount_t, c_t, stop_target_gradients
    )
    return returns.astype(dtype)


@operator(static=("stop_target_gradients",))
def importance_corrected_td_errors(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    lambda_: ArrayLike,
    values: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return multi-step TD errors with one importance weight per decision.

    `error_t = rho_tm1 * (delta_t + discount_t * lambda_t * error_{t+1})` with
    `delta_t = r_t + discount_t * values[t + 1] - values[t]`. See "Eligibility Traces for Off-Policy
    Policy Evaluation" by Precup et al. (2000), and "Reinforcement Learning: An Introduction" by
    Sutton and Barto, section 12.9.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      rho_tm1: `[T, ...]` ratios of target to behaviour probability of the action that starts a
        step.
      lambda_: `[T, ...]` or scalar mixing parameters.
      values: `[T + 1, ...]` values of all states.
      stop_target_gradients: whether to treat `error + values[:-1]`, the target, as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "importance_corrected_td_errors"
    shape = shape_before_last_value(name, values)
    same_shape(name, shape, r_t=r_t, discount_t=discount_t, rho_tm1=rho_tm1, lambda_=lambda_)
    floating = wide_floats(
        r_t=r_t, discount_t=discount_t, rho_tm1=rho_tm1, lambda_=lambda_, values=values
    )
    dtype, (r_t, discount_t, rho_tm1, lambda_, values) = floating

    def step(error, delta, discount, rho, lam):
        return rho * (delta + discount * (lam * error))

    delta_t = r_t + discount_t * values[1:] - values[:-1]
    errors = recurrence(step, jnp.zeros_like(values[0]), delta_t, discount_t, rho_tm1, lambda_)
    if stop_target_gradients:
        errors = stop_gradient_of_target(errors, values[:-1])
    return errors.astype(dtype)
