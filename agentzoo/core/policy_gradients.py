"""Policy gradients: the actor's losses, PPO's pieces and its diagnostics.

Every operator works on single steps and on any leading axes that all arguments share: logits of
`[..., A]` with actions and advantages of `[...]`. `_t` marks what belongs to the step itself.
Losses are to be minimised. `w_t` weighs the steps, 0 for one that does not count, and `reduction`
says what the sum of losses is divided by: "mean" by the number of steps, whatever their weights;
"masked_mean" by the sum of the weights; "sum" and "none" by nothing ("none" also keeps the axes).
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    actions,
    floats,
    operator,
    pick,
    reduce_loss,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._support import entropy_of

__all__ = [
    "approximate_kl",
    "clip_fraction",
    "clipped_surrogate_pg_loss",
    "clipped_value_loss",
    "dpg_loss",
    "entropy_loss",
    "explained_variance",
    "log_prob_policy_gradient_loss",
    "policy_gradient_loss",
    "prob_ratios",
    "qpg_loss",
    "rm_loss",
    "rpg_loss",
    "sampled_policy_gradient_loss",
]


@operator(static=("use_stop_gradient",))
def dpg_loss(
    a_t: ArrayLike,
    dqda_t: ArrayLike,
    dqda_clipping: ArrayLike | None = None,
    use_stop_gradient: bool = True,
) -> jax.Array:
    """Deterministic policy gradient, `0.5 * (stop(a_t + dqda_t) - a_t)^2`, whose gradient in `a_t` is `-dqda_t`.

    See "Deterministic Policy Gradient Algorithms" by Silver et al. (2014,
    https://proceedings.mlr.press/v32/silver14.html), equation 9.

    Args:
      a_t: `[..., D]` actions of the policy.
      dqda_t: `[..., D]` gradients of the critic in these actions.
      dqda_clipping: the largest norm of `dqda_t`, to which longer vectors are scaled; None for no
        limit.
      use_stop_gradient: whether `a_t + dqda_t` counts as a constant.

    Returns:
      `[..., D]` losses, to be summed over the last axis.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    leading = values_of("dpg_loss", a_t=a_t, dqda_t=dqda_t)
    if dqda_clipping is None:
        a_t, dqda_t = floats(a_t=a_t, dqda_t=dqda_t)
    else:
        same_shape("dpg_loss", leading, dqda_clipping=dqda_clipping)
        a_t, dqda_t, limit = floats(a_t=a_t, dqda_t=dqda_t, dqda_clipping=dqda_clipping)
        # The root of a positive number, so that the gradient exists at `dqda_t = 0` too.
        longest = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(dqda_t), axis=-1), jnp.square(limit)))
        dqda_t = dqda_t * (limit / longest)[..., None]
    return 0.5 * jnp.square(stop_gradient_if(use_stop_gradient, a_t + dqda_t) - a_t)


@operator(static=("use_stop_gradient", "reduction"))
def policy_gradient_loss(
    logits_t: ArrayLike,
    a_t: ArrayLike,
    adv_t: ArrayLike,
    w_t: ArrayLike | None = None,
    use_stop_gradient: bool = True,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Policy gradient of a categorical policy, `-mean(w_t * log softmax(logits_t)[a_t] * adv_t)`.

    See "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning"
    by Williams (1992, https://doi.org/10.1007/BF00992696). For other policies see
    `sampled_policy_gradient_loss`.

    Args:
      logits_t: `[..., A]` logits.
      a_t: `[...]` action indices.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages count as constants.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss; NaN if an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    leading = values_of("policy_gradient_loss", logits_t=logits_t)
    actions("policy_gradient_loss", leading, a_t=a_t)
    same_shape("policy_gradient_loss", leading, adv_t=adv_t)
    logits_t, adv_t = floats(logits_t=logits_t, adv_t=adv_t)
    loss = -pick(jax.nn.log_softmax(logits_t), a_t) * stop_gradient_if(use_stop_gradient, adv_t)
    return reduce_loss("policy_gradient_loss", loss, w_t, reduction)


@operator(static=("use_stop_gradient", "reduction"))
def log_prob_policy_gradient_loss(
    log_prob_t: ArrayLike,
    adv_t: ArrayLike,
    w_t: ArrayLike | None = None,
    use_stop_gradient: bool = True,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Policy gradient of any policy from the log-probabilities of the actions taken, `-mean(w_t * log_prob_t * adv_t)`.

    The actions must be constants where `log_prob_t` is computed. A gradient through an action that
    the policy has sampled by reparametrisation would be a second one, of the opposite kind;
    `sampled_policy_gradient_loss` stops it. For the paper see `policy_gradient_loss`.

    Args:
      log_prob_t: `[...]` log-probabilities of the actions under the policy.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages count as constants.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("log_prob_policy_gradient_loss", jnp.shape(log_prob_t), adv_t=adv_t)
    log_prob_t, adv_t = floats(log_prob_t=log_prob_t, adv_t=adv_t)
    loss = -log_prob_t * stop_gradient_if(use_stop_gradient, adv_t)
    return reduce_loss("log_prob_policy_gradient_loss", loss, w_t, reduction)


def sampled_policy_gradient_loss(
    distribution: Any,
    a_t: ArrayLike,
    adv_t: ArrayLike,
    w_t: ArrayLike | None = None,
    use_stop_gradient: bool = True,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Policy gradient of any distribution, `-mean(w_t * distribution.log_prob(a_t) * adv_t)` with constant actions.

    With a diagonal Gaussian this is the Gaussian policy gradient. For the paper see
    `policy_gradient_loss`.

    Args:
      distribution: has `log_prob`, which maps the actions to `[...]`; of distrax, of `core`, or
        your own.
      a_t: `[...]` or `[..., D]` actions, always constants.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages count as constants.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    log_prob_t = distribution.log_prob(jax.lax.stop_gradient(jnp.asarray(a_t)))
    return log_prob_policy_gradient_loss(
        log_prob_t, adv_t, w_t, use_stop_gradient=use_stop_gradient, reduction=reduction
    )


@operator(static=("reduction",))
def entropy_loss(
    logits_t: ArrayLike, w_t: ArrayLike | None = None, reduction: Reduction = "mean"
) -> jax.Array:
    """Entropy bonus of a categorical policy, `-mean(w_t * H(softmax(logits_t)))`.

    See "Function Optimization using Connectionist Reinforcement Learning Algorithms" by Williams
    and Peng (1991, https://doi.org/10.1080/09540099108946587). Actions may be ruled out by logits
    of `-inf`.

    Args:
      logits_t: `[..., A]` logits.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    values_of("entropy_loss", logits_t=logits_t)
    (logits_t,) = floats(logits_t=logits_t)
    return reduce_loss("entropy_loss", -entropy_of(jax.nn.log_softmax(logits_t)), w_t, reduction)


def _policy_and_action_values(
    name: str, logits_t: ArrayLike, q_t: ArrayLike, use_stop_gradient: bool
) -> tuple[jax.Array, jax.Array]:
    """Probabilities and action values, both `[..., A]`."""
    values_of(name, logits_t=logits_t, q_t=q_t)
    logits_t, q_t = floats(logits_t=logits_t, q_t=q_t)
    return jax.nn.softmax(logits_t), stop_gradient_if(use_stop_gradient, q_t)


@operator(static=("use_stop_gradient", "reduction"))
def qpg_loss(
    logits_t: ArrayLike,
    q_t: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Q-based policy gradient over all actions, `-mean(sum_a pi[a] * adv[a])`, where `adv = q_t - sum_b pi[b] * q_t[b]`.

    See "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments" by
    Srinivasan et al. (2018, https://arxiv.org/abs/1810.09026). The `pi` within `adv` is a constant.

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values count as constants. (Their gradient in this loss
        is zero in any case: all `q_t` raised by the same amount raise the baseline with them.)
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    probs, q_t = _policy_and_action_values("qpg_loss", logits_t, q_t, use_stop_gradient)
    adv_t = q_t - jnp.sum(jax.lax.stop_gradient(probs) * q_t, axis=-1, keepdims=True)
    return reduce_loss("qpg_loss", -jnp.sum(probs * adv_t, axis=-1), w_t, reduction)


@operator(static=("use_stop_gradient", "reduction"))
def rm_loss(
    logits_t: ArrayLike,
    q_t: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Regret-matching policy gradient, `-mean(sum_a pi[a] * max(adv[a], 0))`, where `adv = q_t - sum_b pi[b] * q_t[b]`.

    See "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments" by
    Srinivasan et al. (2018, https://arxiv.org/abs/1810.09026). The `pi` within `adv` is a constant.

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    probs, q_t = _policy_and_action_values("rm_loss", logits_t, q_t, use_stop_gradient)
    adv_t = q_t - jnp.sum(jax.lax.stop_gradient(probs) * q_t, axis=-1, keepdims=True)
    return reduce_loss("rm_loss", -jnp.sum(probs * jax.nn.relu(adv_t), axis=-1), w_t, reduction)


@operator(static=("use_stop_gradient", "reduction"))
def rpg_loss(
    logits_t: ArrayLike,
    q_t: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Regret policy gradient, `mean(sum_a max(q_t[a] - sum_b pi[b] * q_t[b], 0))`, an upper bound on the regret.

    See "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments" by
    Srinivasan et al. (2018, https://arxiv.org/abs/1810.09026).

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    probs, q_t = _policy_and_action_values("rpg_loss", logits_t, q_t, use_stop_gradient)
    regret_t = q_t - jnp.sum(probs * q_t, axis=-1, keepdims=True)
    return reduce_loss("rpg_loss", jnp.sum(jax.nn.relu(regret_t), axis=-1), w_t, reduction)


# The largest log-ratio that counts: a ratio of 5e8, of which squares are finite in 32 bits.
_LARGEST_LOG_RATIO = 20.0


def _log_ratio(log_prob_t: jax.Array, old_log_prob_t: jax.Array) -> jax.Array:
    """Log-ratios of which no exponential overflows.

    One that is capped keeps its gradient, if it is finite.
    """
    dtype = log_prob_t.dtype
    largest = min(_LARGEST_LOG_RATIO, 0.5 * math.log(float(jnp.finfo(dtype).max)))
    log_ratio_t = jnp.minimum(log_prob_t - old_log_prob_t, jnp.finfo(dtype).max)
    capped_t = largest + (log_ratio_t - jax.lax.stop_gradient(log_ratio_t))
    return jnp.where(log_ratio_t > largest, capped_t, log_ratio_t)


@operator
def prob_ratios(log_prob_t: ArrayLike, old_log_prob_t: ArrayLike) -> jax.Array:
    """How much likelier the policy makes an action than the policy that took it, `exp(log_prob_t - old_log_prob_t)`.

    A log-ratio above 20 counts as 20, so that ratios and their gradients stay finite. (In half
    precision, the limit is 5.5.) See "Proximal Policy Optimization Algorithms" by Schulman et al.
    (2017, https://arxiv.org/abs/1707.06347, section 3).

    Args:
      log_prob_t: `[...]` log-probabilities under the policy.
      old_log_prob_t: `[...]` log-probabilities under the policy that acted, constants.

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
    """PPO's policy loss, `-mean(min(prob_ratios_t * adv_t, clip(prob_ratios_t, 1 - epsilon, 1 + epsilon) * adv_t))`.

    See "Proximal Policy Optimization Algorithms" by Schulman et al. (2017,
    https://arxiv.org/abs/1707.06347), equation 7.

    Args:
      prob_ratios_t: `[...]` ratios of the new to the old probability of the action taken, as by
        `prob_ratios`.
      adv_t: `[...]` advantages.
      epsilon: how far from 1 a ratio may earn; a scalar, or `[...]`.
      use_stop_gradient: whether the advantages count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss; NaN if a ratio has overflowed where the advantage is 0, or is NaN itself.

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
    """PPO's value loss, `mean(0.5 * max((v_t - target_t)^2, (clipped_t - target_t)^2))`.

    There `clipped_t = clip(v_t, old_v_t - epsilon, old_v_t + epsilon)`: a value earns nothing by
    moving farther than `epsilon` from what it was when the data were collected. It is the value
    loss of OpenAI's implementation of "Proximal Policy Optimization Algorithms"
    (https://arxiv.org/abs/1707.06347), not of the paper.

    Args:
      v_t: `[...]` values.
      old_v_t: `[...]` values when the data were collected, constants.
      target_t: `[...]` returns that the values should predict.
      epsilon: the largest useful change, in units of the values; a scalar, or `[...]`.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the targets count as constants.
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
    old_v_t, target_t = (
        jax.lax.stop_gradient(old_v_t),
        stop_gradient_if(use_stop_gradient, target_t),
    )
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
    """Estimates `KL(old policy || policy)` from the log-probabilities of the actions that the old policy has taken.

    With `x = log_prob_t - old_log_prob_t`, "k1" is `-x`: unbiased, but noisy and negative for half
    of the steps. "k2" is `0.5 * x^2`: biased, with little noise. "k3" is `exp(x) - 1 - x`:
    unbiased, with little noise, and never negative; there, `x` is capped as in `prob_ratios`. See
    "Approximating KL Divergence" by Schulman (2020, http://joschu.net/blog/kl-approx.html).

    Args:
      log_prob_t: `[...]` log-probabilities under the policy.
      old_log_prob_t: `[...]` log-probabilities under the policy that acted.
      w_t: `[...]` weights, or a scalar.
      estimator: "k1", "k2" or "k3".
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The estimate.

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
            f"approximate_kl: estimator={estimator!r} is unknown; choose 'k1', 'k2' or 'k3'."
        )
    return reduce_loss("approximate_kl", estimates[estimator](), w_t, reduction)


@operator(static=("reduction",))
def clip_fraction(
    prob_ratios_t: ArrayLike,
    epsilon: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """The share of steps whose ratio lies outside `[1 - epsilon, 1 + epsilon]`, where `clipped_surrogate_pg_loss` clips.

    Args:
      prob_ratios_t: `[...]` ratios, as by `prob_ratios`.
      epsilon: as in `clipped_surrogate_pg_loss`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The share, between 0 and 1.

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
    """How well values predict returns, `1 - Var[target_t - v_t] / Var[target_t]`, over all axes.

    1 for a perfect prediction up to a constant, 0 for one that is no better than a constant, and
    below 0 for a worse one.

    Args:
      v_t: `[...]` values.
      target_t: `[...]` returns.
      w_t: `[...]` weights, or a scalar.

    Returns:
      A scalar. Where all returns are equal it is 1 if the values are right up to a constant, and 0
      otherwise, as scikit-learn has it, so that it is always finite.

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
