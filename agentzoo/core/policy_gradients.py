"""Policy gradients: losses of an actor from advantages or action values, and entropy bonuses.

Every operator works on single steps and on any leading axes that all arguments share, such as
logits of `[..., A]` with actions and advantages of `[...]`. The suffix `_t` marks a quantity of the
step itself. Losses are minimised. `w_t` weights the steps; a step with weight 0 does not count.
`reduction` says how the losses of the steps are reduced:

- "mean" divides their sum by the number of steps, whatever the weights.
- "masked_mean" divides their sum by the sum of the weights.
- "sum" returns their sum.
- "none" returns the loss of each step.
"""

from typing import Any

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
    "dpg_loss",
    "entropy_loss",
    "log_prob_policy_gradient_loss",
    "policy_gradient_loss",
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
    """Return the loss of the deterministic policy gradient.

    It is `0.5 * (stop_gradient(a_t + dqda_t) - a_t)^2`, whose gradient in `a_t` is `-dqda_t`. See
    "Deterministic Policy Gradient Algorithms" by Silver et al. (2014,
    https://proceedings.mlr.press/v32/silver14.html), equation 9.

    Args:
      a_t: `[..., D]` actions of the policy.
      dqda_t: `[..., D]` gradients of the critic with respect to these actions.
      dqda_clipping: largest norm of `dqda_t`, a scalar or `[...]`. Longer vectors are scaled down
        to it. None means no limit.
      use_stop_gradient: whether `a_t + dqda_t` is a constant for the gradient.

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
        # The maximum is taken before the root, so that the gradient exists at `dqda_t = 0` too.
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
    """Return a categorical policy's loss, `-mean(w_t * log softmax(logits_t)[a_t] * adv_t)`.

    See "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning"
    by Williams (1992, https://doi.org/10.1007/BF00992696). For other policies see
    `sampled_policy_gradient_loss`.

    Args:
      logits_t: `[..., A]` logits.
      a_t: `[...]` action indices.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages are constants for the gradient.
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
    """Return the loss of any policy from log-probabilities, `-mean(w_t * log_prob_t * adv_t)`.

    The actions must be constants where `log_prob_t` is computed. Otherwise a second gradient, with
    the opposite effect, flows through an action that the policy sampled by reparametrisation.
    `sampled_policy_gradient_loss` stops that gradient. For the paper see `policy_gradient_loss`.

    Args:
      log_prob_t: `[...]` log-probabilities of the actions under the policy.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages are constants for the gradient.
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
    """Return the loss of any distribution, `-mean(w_t * distribution.log_prob(a_t) * adv_t)`.

    With a diagonal Gaussian, this is the Gaussian policy gradient. For the paper see
    `policy_gradient_loss`.

    Args:
      distribution: object with a `log_prob` method that maps the actions to `[...]`, from distrax,
        `core`, or your own code.
      a_t: `[...]` or `[..., D]` actions, always constants for the gradient.
      adv_t: `[...]` advantages.
      w_t: `[...]` weights, or a scalar.
      use_stop_gradient: whether the advantages are constants for the gradient.
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
    """Return the loss that rewards entropy, `-mean(w_t * H(softmax(logits_t)))`.

    See "Function Optimization using Connectionist Reinforcement Learning Algorithms" by Williams
    and Peng (1991, https://doi.org/10.1080/09540099108946587). Logits of `-inf` mark illegal
    actions.

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
    """Return probabilities and action values, both `[..., A]`."""
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
    """Return the loss of the Q-based policy gradient, `-mean(sum_a pi[a] * adv[a])`.

    Here, `pi = softmax(logits_t)` and `adv = q_t - sum_b pi[b] * q_t[b]`, in which `pi` is a
    constant. See "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments"
    by Srinivasan et al. (2018, https://arxiv.org/abs/1810.09026).

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values are constants for the gradient. (Their gradient
        in this loss is zero in any case, because adding a constant to all `q_t` also adds it to the
        baseline.)
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
    """Return the loss of regret matching, `-mean(sum_a pi[a] * max(adv[a], 0))`.

    Here, `pi = softmax(logits_t)` and `adv = q_t - sum_b pi[b] * q_t[b]`, in which `pi` is a
    constant. See "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments"
    by Srinivasan et al. (2018, https://arxiv.org/abs/1810.09026).

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values are constants for the gradient.
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
    """Return the loss of the regret policy gradient, an upper bound on the regret.

    It is `mean(sum_a max(q_t[a] - sum_b pi[b] * q_t[b], 0))` with `pi = softmax(logits_t)`. See
    "Actor-Critic Policy Optimization in Partially Observable Multiagent Environments" by Srinivasan
    et al. (2018, https://arxiv.org/abs/1810.09026).

    Args:
      logits_t: `[..., A]` logits.
      q_t: `[..., A]` action values.
      use_stop_gradient: whether the action values are constants for the gradient.
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
