"""Returns and advantages along a trajectory: what values, and policies, are taught.

Time is axis 0: arguments are `[T]`, or `[T, B]` for a batch of trajectories, all of the same shape;
rewards, discounts and lambdas may also be scalars. Results are constants for the gradient unless
`stop_target_gradients=False`. A trajectory of length 0 has no returns.

Where episodes follow one another within a trajectory: `discount_t` is gamma, and 0 where an episode
terminates; `last_t` says where an episode ends for whatever reason, termination or truncation;
`v_t` is the value of the true successor, also there. At `last_t` a return then bootstraps from
`v_t`, and nothing flows back from the next episode. `mask` is 0 for a step that never happened,
such as the one in which a vector environment resets: its result is 0, whatever its arguments are,
and the step before it bootstraps from its own `v_t`. Where an operator elsewhere takes lambdas but
no `last_t`, passing `lambda_ * (1 - last_t)` means the same.
"""

import operator as python_operator

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    ShapeError,
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
    stop_gradient_of_target,
    wide_floats,
    within_episodes,
)

__all__ = [
    "discounted_returns",
    "general_off_policy_returns_from_action_values",
    "general_off_policy_returns_from_q_and_v",
    "generalized_advantage_estimation",
    "importance_corrected_td_errors",
    "lambda_returns",
    "n_step_bootstrapped_returns",
    "truncated_generalized_advantage_estimation",
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
    """Lambda-returns, `g_t = r_t + discount_t * ((1 - lambda_t) * v_t + lambda_t * g_{t+1})`, with `g_T = v_t[-1]`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, sections 12.3 and 12.8
    (lambdas that differ between steps).

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
    """Discounted returns, `g_t = r_t + discount_t * g_{t+1}`, with `g_T = v_t[-1]`.

    See "Reinforcement Learning: An Introduction" by Sutton and Barto, equation 3.9.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` values of the successors, or a scalar; only the last counts, and those at
        `last_t` and before a masked step.
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
    """Returns over `n` steps, or up to the end of the trajectory where that is nearer.

    The return from step `t` is what `lambda_returns` gives for steps `t, ..., t + n - 1` alone:
    with `lambda_t = 1`, `n` rewards and then `v_t[t + n - 1]`. See "Reinforcement Learning: An
    Introduction" by Sutton and Barto, equation 7.1. Windows are put together from windows of half
    the length, so time, memory and compilation grow with `log n`.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      v_t: `[T, ...]` values of the successors.
      n: the number of steps, at least 1; a Python integer.
      lambda_t: `[T, ...]` or scalar mixing parameters; 1 if left out.
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
        raise ValueError(f"n_step_bootstrapped_returns: 'n' must be at least 1, but is {n}.")
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

    # A window of steps maps the return from behind it to that from its start, `base + slope * g`.
    # First the windows of one step, past the end steps that change nothing.
    base, slope = r_t, discount_t
    if mixed:
        lambda_t, r_t, discount_t, v_t = within_episodes(
            shape, lambda_t, last_t, mask, r_t, discount_t, v_t
        )
        base, slope = r_t + discount_t * (1 - lambda_t) * v_t, discount_t * lambda_t
    n = min(n, shape[0])
    past_end = [(0, n - 1, 0), *[(0, 0, 0)] * (len(shape) - 1)]
    window = [
        jax.lax.pad(jnp.broadcast_to(x, shape), x.dtype.type(beyond), past_end)
        for x, beyond in ((base, 0), (slope, 1))
    ]

    def before(near, far, width):
        """Windows `near`, of some width, and behind each the window of `far` that begins where it ends."""
        (base, slope), (far_base, far_slope) = near, far
        size = len(far_base) - width
        return [base[:size] + slope[:size] * far_base[width:], slope[:size] * far_slope[width:]]

    # Windows of 1, 2, 4, ... steps, of which `n` is the sum of some.
    windows, width = [], 1
    while True:
        if n & width:
            windows = before(window, windows, width) if windows else window
        if 2 * width > n:
            break
        window, width = before(window, window, width), 2 * width
    base, slope = windows

    # Those within the trajectory, and those that its end cuts short.
    v_t, whole = jnp.broadcast_to(v_t, shape), shape[0] - n + 1
    v_behind = jnp.split(v_t, [n - 1])[1]  # its gradient is cheaper than that of `v_t[n - 1 :]`
    returns = jnp.concatenate(
        [base[:whole] + slope[:whole] * v_behind, base[whole:] + slope[whole:] * v_t[-1:]]
    )
    return stop_gradient_if(stop_target_gradients, returns.astype(dtype))


@operator(static=("stop_target_gradients",))
def general_off_policy_returns_from_q_and_v(
    q_t: ArrayLike,
    v_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    c_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Off-policy returns, `g_t = r_t + discount_t * (v_t + c_t * (g_{t+1} - q_t))`, the last `r_t + discount_t * v_t`.

    The choice of the trace coefficients `c_t` makes it importance sampling, Q(lambda), Tree-backup
    or Retrace. See "Safe and Efficient Off-Policy Reinforcement Learning" by Munos et al.
    (https://arxiv.org/abs/1606.02647, equation 3).

    Args:
      q_t: `[T - 1, ...]` values of the action taken in the state that a step leads to; that of the
        last step is not needed.
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
    """Off-policy returns, `g_t = r_t + discount_t * (sum_a pi_t[a] q_t[a] + c_t * (g_{t+1} - q_t[a_t]))`, the last without its trace.

    The choice of the trace coefficients `c_t` makes it importance sampling, Q(lambda), Tree-backup
    or Retrace. See "Safe and Efficient Off-Policy Reinforcement Learning" by Munos et al.
    (https://arxiv.org/abs/1606.02647, equation 3).

    Args:
      q_t: `[T, ..., A]` action values of the state that a step leads to.
      a_t: `[T, ...]` indices of the action taken there.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      c_t: `[T, ...]` or scalar trace coefficients of that action; 0 where an episode ends.
      pi_t: `[T, ..., A]` probabilities of the target policy there.
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
def truncated_generalized_advantage_estimation(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    lambda_: ArrayLike,
    values: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Generalised advantages along one unbroken row of values.

    `adv_t = delta_t + discount_t * lambda_t * adv_{t+1}` with `delta_t = r_t + discount_t *
    values[t + 1] - values[t]`, cut off at the end of the trajectory. See "Proximal Policy
    Optimization Algorithms" by Schulman et al. (https://arxiv.org/abs/1707.06347, equation 11). One
    row of values cannot tell an episode's last state from the next one's first: where episodes are
    truncated within a trajectory, take `generalized_advantage_estimation`.

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
    shape = _shape_before_last_value(name, values)
    same_shape(name, shape, r_t=r_t, discount_t=discount_t, lambda_=lambda_)
    dtype, (r_t, discount_t, lambda_, values) = wide_floats(
        r_t=r_t, discount_t=discount_t, lambda_=lambda_, values=values
    )
    advantages = _advantages(r_t + discount_t * values[1:] - values[:-1], discount_t, lambda_)
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
    """Generalised advantages along a trajectory in which episodes may end, by termination or by truncation.

    `adv_t = delta_t + discount_t * lambda_t * (1 - last_t) * adv_{t+1}` with `delta_t = r_t +
    discount_t * v_t - v_tm1`. See "High- Dimensional Continuous Control Using Generalized Advantage
    Estimation" by Schulman et al. (https://arxiv.org/abs/1506.02438, equation 16), and "Time Limits
    in Reinforcement Learning" by Pardo et al. (https://arxiv.org/abs/1712.00378) for the bootstrap
    at truncations. The returns that go with them are `adv_t + v_tm1`.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts, gamma times 0 at a termination, and not at a truncation.
      v_tm1: `[T, ...]` values of the states that steps start from.
      v_t: `[T, ...]` values of their true successors, at a truncation too.
      last_t: `[T, ...]` whether an episode ends with the step, terminated or truncated.
      lambda_: `[T, ...]` or scalar mixing parameters.
      mask: `[T, ...]` whether the step happened; the advantage of one that did not is 0.
      stop_target_gradients: whether to treat the advantages as constants.

    Returns:
      `[T, ...]` advantages.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    shape = over_time(
        "generalized_advantage_estimation",
        r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, last_t=last_t, lambda_=lambda_, mask=mask,
    )  # fmt: skip
    floating = wide_floats(r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, lambda_=lambda_)
    dtype, (r_t, discount_t, v_tm1, v_t, lambda_) = floating
    lambda_, r_t, discount_t, v_tm1, v_t = within_episodes(
        shape, lambda_, last_t, mask, r_t, discount_t, v_tm1, v_t
    )
    delta_t = jnp.broadcast_to(r_t + discount_t * v_t - v_tm1, shape)
    return stop_gradient_if(
        stop_target_gradients, _advantages(delta_t, discount_t, lambda_).astype(dtype)
    )


@operator(static=("stop_target_gradients",))
def importance_corrected_td_errors(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    rho_tm1: ArrayLike,
    lambda_: ArrayLike,
    values: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Multi-step errors with one importance weight per decision, `rho_tm1 * (delta_t + discount_t * lambda_t * error_{t+1})`.

    `delta_t = r_t + discount_t * values[t + 1] - values[t]`. See "Eligibility Traces for Off-Policy
    Policy Evaluation" by Precup et al. (2000), and "Reinforcement Learning: An Introduction" by
    Sutton and Barto, section 12.9.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      rho_tm1: `[T, ...]` ratios of target to behaviour probability of the action that a step starts
        with.
      lambda_: `[T, ...]` or scalar mixing parameters.
      values: `[T + 1, ...]` values of all states.
      stop_target_gradients: whether `error + values[:-1]`, the target, counts as a constant.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    shape = _shape_before_last_value("importance_corrected_td_errors", values)
    same_shape(
        "importance_corrected_td_errors",
        shape,
        r_t=r_t,
        discount_t=discount_t,
        rho_tm1=rho_tm1,
        lambda_=lambda_,
    )
    floating = wide_floats(
        r_t=r_t, discount_t=discount_t, rho_tm1=rho_tm1, lambda_=lambda_, values=values
    )
    dtype, (r_t, discount_t, rho_tm1, lambda_, values) = floating

    def step(error, delta, discount, rho, lam):
        return rho * (delta + discount * (lam * error))

    delta_t = r_t + discount_t * values[1:] - values[:-1]
    errors = recurrence(step, jnp.zeros_like(values[0]), delta_t, discount_t, rho_tm1, lambda_)
    return (
        stop_gradient_of_target(errors, values[:-1]) if stop_target_gradients else errors
    ).astype(dtype)


def _advantages(delta_t, discount_t, lambda_):
    def step(advantage, delta, discount, lam):
        return delta + discount * (lam * advantage)

    return recurrence(
        step, jnp.zeros(delta_t.shape[1:], delta_t.dtype), delta_t, discount_t, lambda_
    )


def _shape_before_last_value(operator_name, values):
    if jnp.ndim(values) < 1 or not jnp.shape(values)[0]:
        raise ShapeError(
            f"{operator_name}: 'values' must be of shape [T + 1, ...], but has shape {jnp.shape(values)}."
        )
    return (jnp.shape(values)[0] - 1, *jnp.shape(values)[1:])
