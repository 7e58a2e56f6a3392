"""PPO's losses and diagnostics.

Operators work on single steps and on any leading axes that all arguments share. Losses are
minimised and use `w_t` and `reduction` as in `agentzoo.core.policy_gradients`. See "Proximal Policy
Optimization Algorithms" by Schulman et al. (2017, https://arxiv.org/abs/1707.06347).
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    floats,
    operator,
    reduce_loss,
    same_shape,
    stop_gradient_if,
)

__all__ = [
    "approximate_kl",
    "clip_fraction",
    "clipped_surrogate_pg_loss",
    "clipped_value_loss",
    "explained_variance",
    "prob_ratios",
]

# The largest log-ratio. Its ratio is 5e8, whose square is finite in 32 bits.
_LARGEST_LOG_RATIO = 20.0


def _log_ratio(log_prob_t: jax.Array, old_log_prob_t: jax.Array) -> jax.Array:
    """Return log-ratios whose exponentials do not overflow.

    A capped log-ratio keeps its gradient if the gradient is finite.
    """
    dtype = log_prob_t.dtype
    largest = min(_LARGEST_LOG_RATIO, 0.5 * math.log(float(jnp.finfo(dtype).max)))
    log_ratio_t = jnp.minimum(log_prob_t - old_log_prob_t, jnp.finfo(dtype).max)
    # The bracket is zero and has the gradient of the log-ratio.
    capped_t = largest + (log_ratio_t - jax.lax.stop_gradient(log_ratio_t))
    return jnp.where(log_ratio_t > largest, capped_t, log_ratio_t)


@operator
def prob_ratios(log_prob_t: ArrayLike, old_log_prob_t: ArrayLike) -> jax.Array:
    """Return the ratio of the new to the old probability, `exp(log_prob_t - old_log_prob_t)`.

    Log-ratios are capped at 20, so that ratios and their gradients stay finite. (In half precision,
    the cap is 5.5.) See "Proximal Policy Optimization Algorithms" by Schulman et al. (2017,
    https://arxiv.org/abs/1707.06347, section 3).

    Args:
      log_prob_t: `[...]` log-probabilities of the actions under the policy.
      old_log_prob_t: `[...]` log-probabilities under the policy that acted, always constants.

    Returns:
      `[...]` ratios.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("prob_ratios", jnp.shape(log_prob_t), old_log_prob_t=old_log_prob_t)
    log_prob_t, old_log_prob_t = floats(log_prob_t=log_prob_t, old_log_prob_t=old_log_prob_t)
    return jnp.exp(_log_ratio(log_prob_t, jax.lax.stop_gradient(old_log_prob_t)))


@operator(static=("use_stop_gradient", "reduction"))
def clipped_surrogate_pg_loss(
    prob_ratios_t: ArrayLike,
    adv_t: ArrayLike,
    epsilon: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return PPO's policy loss, `-mean(min(prob_ratios_t * adv_t, clipped_t * adv_t))`.

    Here, `clipped_t = clip(prob_ratios_t, 1 - epsilon, 1 + epsilon)`. See "Proximal Policy
    Optimization Algorithms" by Schulman et al. (2017, https://arxiv.org/abs/1707.06347),
    equation 7.

    Args:
      prob_ratios_t: `[...]` ratios of the new to the old probability of the action taken, from
        `prob_ratios`.
      adv_t: `[...]` advantages.
      epsilon: clipping range of the ratio, a scalar or `[...]`.
      use_stop_gradient: whether the advantages are constants for the gradient.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss; NaN if a ratio is NaN, or is infinite where the advantage is 0.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("clipped_surrogate_pg_loss", jnp.shape(prob_ratios_t), adv_t=adv_t, epsilon=epsilon)
    prob_ratios_t, adv_t, epsilon = floats(
        prob_ratios_t=prob_ratios_t, adv_t=adv_t, epsilon=epsilon
    )
    adv_t = stop_gradient_if(use_stop_gradient, adv_t)
    clipped_t = jnp.clip(prob_ratios_t, 1 - epsilon, 1 + epsilon)
    loss = -jnp.minimum(prob_ratios_t * adv_t, clipped_t * adv_t)
    return reduce_loss("clipped_surrogate_pg_loss", loss, w_t, reduction)


@operator(static=("use_stop_gradient", "reduction"))
def clipped_value_loss(
    v_t: ArrayLike,
    old_v_t: ArrayLike,
    target_t: ArrayLike,
    epsilon: ArrayLike,
    w_t: ArrayLike | None = None,
    use_stop_gradient: bool = True,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return PPO's value loss, `mean(0.5 * max((v_t - target_t)^2, (clipped_t - target_t)^2))`.

    Here, `clipped_t = clip(v_t, old_v_t - epsilon, old_v_t + epsilon)`. A value gains nothing by
    moving farther than `epsilon` from its value when the data were collected. This loss is from
    OpenAI's implementation of "Proximal Policy Optimization Algorithms"
    (https://arxiv.org/abs/1707.06347), not from the paper.

    Args:
      v_t: `[...]` values.
      old_v_t: `[...]` values when the data were collected, always constants.
      target_t: `[...]` returns that the values should predict.
      epsilon: clipping range, in units of the values; a scalar or `[...]`.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the targets are constants for the gradient.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape(
        "clipped_value_loss", jnp.shape(v_t), old_v_t=old_v_t, target_t=target_t, epsilon=epsilon
    )
    v_t, old_v_t, target_t, epsilon = floats(
        v_t=v_t, old_v_t=old_v_t, target_t=target_t, epsilon=epsilon
    )
    old_v_t = jax.lax.stop_gradient(old_v_t)
    target_t = stop_gradient_if(use_stop_gradient, target_t)
    clipped_t = old_v_t + jnp.clip(v_t - old_v_t, -epsilon, epsilon)
    loss = 0.5 * jnp.maximum(jnp.square(v_t - target_t), jnp.square(clipped_t - target_t))
    return reduce_loss("clipped_value_loss", loss, w_t, reduction)


@operator(static=("estimator", "reduction"))
def approximate_kl(
    log_prob_t: ArrayLike,
    old_log_prob_t: ArrayLike,
    w_t: ArrayLike | None = None,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    reduction: Reduction = "mean",
) -> jax.Array:
    """Estimate `KL(old policy || policy)` from log-probabilities of actions of the old policy.

    With `x = log_prob_t - old_log_prob_t`, the estimators are:

    - "k1", `-x`: unbiased, but noisy and negative for about half of the steps.
    - "k2", `0.5 * x^2`: biased, with little noise.
    - "k3", `exp(x) - 1 - x`: unbiased, with little noise, and never negative. Here, `x` is capped
      as in `prob_ratios`.

    See "Approximating KL Divergence" by Schulman (2020, http://joschu.net/blog/kl-approx.html).

    Args:
      log_prob_t: `[...]` log-probabilities under the policy.
      old_log_prob_t: `[...]` log-probabilities under the policy that acted.
      w_t: `[...]` weights, or a scalar.
      estimator: "k1", "k2" or "k3".
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The estimate, in nats.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the estimator is unknown.
    """
    same_shape("approximate_kl", jnp.shape(log_prob_t), old_log_prob_t=old_log_prob_t)
    log_prob_t, old_log_prob_t = floats(log_prob_t=log_prob_t, old_log_prob_t=old_log_prob_t)
    x, capped = log_prob_t - old_log_prob_t, _log_ratio(log_prob_t, old_log_prob_t)
    estimates = {
        "k1": lambda: -x,
        "k2": lambda: 0.5 * jnp.square(x),
        "k3": lambda: jnp.expm1(capped) - capped,
    }
    if estimator not in estimates:
        raise ValueError(
            f"approximate_kl: estimator={estimator!r} is unknown. Choose 'k1', 'k2' or 'k3'."
        )
    return reduce_loss("approximate_kl", estimates[estimator](), w_t, reduction)


@operator(static=("reduction",))
def clip_fraction(
    prob_ratios_t: ArrayLike,
    epsilon: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return the fraction of steps whose ratio is outside `[1 - epsilon, 1 + epsilon]`.

    `clipped_surrogate_pg_loss` clips these ratios.

    Args:
      prob_ratios_t: `[...]` ratios from `prob_ratios`.
      epsilon: as in `clipped_surrogate_pg_loss`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The fraction, between 0 and 1.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("clip_fraction", jnp.shape(prob_ratios_t), epsilon=epsilon)
    prob_ratios_t, epsilon = floats(prob_ratios_t=prob_ratios_t, epsilon=epsilon)
    clipped = jnp.abs(prob_ratios_t - 1) > epsilon
    return reduce_loss("clip_fraction", clipped.astype(prob_ratios_t.dtype), w_t, reduction)


@operator
def explained_variance(
    v_t: ArrayLike, target_t: ArrayLike, w_t: ArrayLike | None = None
) -> jax.Array:
    """Return how well values predict returns, `1 - Var[target_t - v_t] / Var[target_t]`.

    The variances are over all axes. The result is 1 for predictions that are perfect up to a
    constant, 0 for predictions that are no better than a constant, and negative for worse ones.

    Args:
      v_t: `[...]` values.
      target_t: `[...]` returns.
      w_t: `[...]` weights, or a scalar.

    Returns:
      A scalar. If all returns are equal, it is 1 if the values are right up to a constant and 0
      otherwise, as in scikit-learn, so it is always finite.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("explained_variance", jnp.shape(v_t), target_t=target_t)
    v_t, target_t = floats(v_t=v_t, target_t=target_t)

    def variance(x):
        mean = reduce_loss("explained_variance", x, w_t, "masked_mean")
        return reduce_loss("explained_variance", jnp.square(x - mean), w_t, "masked_mean")

    total, unexplained = variance(target_t), variance(target_t - v_t)
    of_equal_returns = jnp.where(unexplained == 0, 1.0, 0.0).astype(total.dtype)
    return jnp.where(
        total == 0, of_equal_returns, 1 - unexplained / jnp.where(total == 0, 1, total)
    )
