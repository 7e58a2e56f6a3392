"""Errors and losses of online off-policy actor-critic methods: TD3, SAC and discrete SAC.

Operators work on values and log-probabilities, not on networks, for single steps and any leading
axes that all arguments share. Critics come in ensembles of E, usually two, on the last axis:
`[..., E]`, or `[..., E, A]` if they value A discrete actions. The prediction of an ensemble is its
smallest value, which counters overestimation.

An error is `target - prediction` of each critic for a transition from `tm1` to `t`, and is passed
to a loss such as `l2_loss`. A loss belongs to the step `t` itself and is minimised. Losses use
`w_t` and `reduction` as in `agentzoo.core.policy_gradients`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._ensembles import ensemble_error, steps_of
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
    "clipped_double_q_learning",
    "sac_discrete_error",
    "sac_discrete_policy_loss",
    "sac_discrete_temperature_loss",
    "sac_error",
    "sac_policy_loss",
    "sac_temperature_loss",
    "target_policy_smoothing",
]


def _soft_value(logits: jax.Array, q: jax.Array, temperature: jax.Array) -> jax.Array:
    """Return the expected value plus temperature times entropy, `[...]`.

    Args:
      logits: `[..., A]`.
      q: `[..., E, A]`.
      temperature: a scalar or `[...]`.
    """
    log_probs = jax.nn.log_softmax(logits)
    value = jnp.sum(jnp.exp(log_probs) * jnp.min(q, axis=-2), axis=-1)
    return value + temperature * entropy_of(log_probs)


@operator
def target_policy_smoothing(
    key: jax.Array,
    a_t: ArrayLike,
    stddev: ArrayLike = 0.2,
    noise_clip: ArrayLike = 0.5,
    action_minimum: ArrayLike = -1.0,
    action_maximum: ArrayLike = 1.0,
) -> jax.Array:
    """Add TD3's clipped noise to target actions.

    The result is
    `clip(a_t + clip(N(0, stddev), -noise_clip, noise_clip), action_minimum, action_maximum)`. See
    "Addressing Function Approximation Error in Actor-Critic Methods" by Fujimoto et al. (2018,
    https://arxiv.org/abs/1802.09477), algorithm 1.

    Args:
      key: a PRNG key.
      a_t: `[..., D]` actions of the target policy.
      stddev: standard deviation of the noise, in units of the actions; a scalar or `[D]`.
      noise_clip: largest size of the noise, a scalar or `[D]`.
      action_minimum: smallest allowed action, a scalar or `[D]`.
      action_maximum: largest allowed action, a scalar or `[D]`.

    Returns:
      `[..., D]` actions.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    limits = {
        "stddev": stddev,
        "noise_clip": noise_clip,
        "action_minimum": action_minimum,
        "action_maximum": action_maximum,
    }
    same_shape("target_policy_smoothing", jnp.shape(a_t)[-1:], **limits)
    a_t, *values = floats(a_t=a_t, **limits)
    stddev, noise_clip, minimum, maximum = (jnp.broadcast_to(value, a_t.shape) for value in values)
    noise = jnp.clip(stddev * jax.random.normal(key, a_t.shape, a_t.dtype), -noise_clip, noise_clip)
    return jnp.clip(a_t + noise, minimum, maximum)


@operator(static=("stop_target_gradients",))
def clipped_double_q_learning(
    q_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return TD3's error, `r_t + discount_t * min_e q_t[e] - q_tm1[e]`.

    See "Addressing Function Approximation Error in Actor-Critic Methods" by Fujimoto et al. (2018,
    https://arxiv.org/abs/1802.09477), algorithm 1.

    Args:
      q_tm1: `[..., E]` values of the action taken, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, or 0 at a termination.
      q_t: `[..., E]` values of the target action, one per target critic. The number of target
        critics may differ.
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("clipped_double_q_learning", q_tm1=(q_tm1, "E"), q_t=(q_t, "E"))
    same_shape("clipped_double_q_learning", steps, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t)
    return ensemble_error(r_t + discount_t * jnp.min(q_t, axis=-1), q_tm1, stop_target_gradients)


@operator(static=("stop_target_gradients",))
def sac_error(
    q_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    log_prob_t: ArrayLike,
    temperature: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return SAC's error, `r_t + discount_t * v_t - q_tm1[e]`.

    Here, `v_t = min_e q_t[e] - temperature * log_prob_t`. See "Soft Actor-Critic
    Algorithms and Applications" by Haarnoja et al. (2018, https://arxiv.org/abs/1812.05905),
    algorithm 1.

    Args:
      q_tm1: `[..., E]` values of the action taken, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, or 0 at a termination.
      q_t: `[..., E]` values of an action sampled from the policy at the destination, one per target
        critic. The number of target critics may differ.
      log_prob_t: `[...]` log-probability of the sampled action.
      temperature: weight of the entropy, a scalar or `[...]`.
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("sac_error", q_tm1=(q_tm1, "E"), q_t=(q_t, "E"))
    same_shape(
        "sac_error",
        steps,
        r_t=r_t,
        discount_t=discount_t,
        log_prob_t=log_prob_t,
        temperature=temperature,
    )
    q_tm1, r_t, discount_t, q_t, log_prob_t, temperature = floats(
        q_tm1=q_tm1,
        r_t=r_t,
        discount_t=discount_t,
        q_t=q_t,
        log_prob_t=log_prob_t,
        temperature=temperature,
    )
    target_tm1 = r_t + discount_t * (jnp.min(q_t, axis=-1) - temperature * log_prob_t)
    return ensemble_error(target_tm1, q_tm1, stop_target_gradients)


@operator(static=("reduction",))
def sac_policy_loss(
    q_t: ArrayLike,
    log_prob_t: ArrayLike,
    temperature: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return SAC's policy loss, `mean(w_t * (temperature * log_prob_t - min_e q_t[e]))`.

    The action is sampled by reparametrisation. Its gradient flows through both `q_t` and
    `log_prob_t`, while the parameters of the critics must be constants. See "Soft Actor-Critic
    Algorithms and Applications" by Haarnoja et al. (2018, https://arxiv.org/abs/1812.05905).

    Args:
      q_t: `[..., E]` values of an action that the policy has just sampled, one per critic.
      log_prob_t: `[...]` log-probability of the sampled action.
      temperature: weight of the entropy, a scalar or `[...]`, always a constant for the gradient.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("sac_policy_loss", q_t=(q_t, "E"))
    same_shape("sac_policy_loss", steps, log_prob_t=log_prob_t, temperature=temperature)
    q_t, log_prob_t, temperature = floats(q_t=q_t, log_prob_t=log_prob_t, temperature=temperature)
    # The gradient of `jnp.min` divides by the number of values that equal the minimum. XLA may
    # compute the values twice and round them differently, so that none of them equals it.
    q_min_t = pick(q_t, jnp.argmin(q_t, axis=-1))
    loss = jax.lax.stop_gradient(temperature) * log_prob_t - q_min_t
    return reduce_loss("sac_policy_loss", loss, w_t, reduction)


@operator(static=("reduction",))
def sac_temperature_loss(
    log_prob_t: ArrayLike,
    temperature: ArrayLike,
    target_entropy: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return SAC's temperature loss, `mean(w_t * temperature * (-log_prob_t - target_entropy))`.

    Gradient descent on it raises the temperature while the entropy is below its target. See "Soft
    Actor-Critic Algorithms and Applications" by Haarnoja et al. (2018,
    https://arxiv.org/abs/1812.05905), section 5.

    Args:
      log_prob_t: `[...]` log-probabilities of actions sampled from the policy, always constants.
      temperature: a scalar or `[...]`; either the temperature, usually the exponential of the
        learned parameter, or the parameter itself. With the parameter, the size of a step does not
        depend on the temperature.
      target_entropy: usually minus the number of action dimensions; a scalar or `[...]`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "sac_temperature_loss"
    steps = jnp.shape(log_prob_t)
    same_shape(name, steps, temperature=temperature, target_entropy=target_entropy)
    log_prob_t, temperature, target_entropy = floats(
        log_prob_t=log_prob_t, temperature=temperature, target_entropy=target_entropy
    )
    loss = temperature * jax.lax.stop_gradient(-log_prob_t - target_entropy)
    return reduce_loss(name, loss, w_t, reduction)


@operator(static=("stop_target_gradients",))
def sac_discrete_error(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    logits_t: ArrayLike,
    temperature: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return discrete SAC's error.

    With `pi = softmax(logits_t)` and its entropy `H(pi)`::

        v_t = sum_a pi[a] * min_e q_t[e, a] + temperature * H(pi)
        error[e] = r_t + discount_t * v_t - q_tm1[e, a_tm1]

    See "Soft Actor-Critic for Discrete Action Settings" by Christodoulou (2019,
    https://arxiv.org/abs/1910.07207). Logits of `-inf` mark illegal actions.

    Args:
      q_tm1: `[..., E, A]` action values of each critic.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, or 0 at a termination.
      q_t: `[..., E, A]` action values of each target critic at the destination. The number of
        target critics may differ.
      logits_t: `[..., A]` logits of the policy at the destination.
      temperature: weight of the entropy, a scalar or `[...]`.
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[..., E]` errors; NaN where an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    name = "sac_discrete_error"
    steps = steps_of(name, q_tm1=(q_tm1, "EA"), q_t=(q_t, "EA"), logits_t=(logits_t, "A"))
    actions(name, steps, a_tm1=a_tm1)
    same_shape(name, steps, r_t=r_t, discount_t=discount_t, temperature=temperature)
    q_tm1, r_t, discount_t, q_t, logits_t, temperature = floats(
        q_tm1=q_tm1,
        r_t=r_t,
        discount_t=discount_t,
        q_t=q_t,
        logits_t=logits_t,
        temperature=temperature,
    )
    target_tm1 = r_t + discount_t * _soft_value(logits_t, q_t, temperature)
    # The same action index for each of the E critics: `[...]` to `[..., E]`.
    a_of_each = jnp.broadcast_to(jnp.asarray(a_tm1)[..., None], q_tm1.shape[:-1])
    return ensemble_error(target_tm1, pick(q_tm1, a_of_each), stop_target_gradients)


@operator(static=("use_stop_gradient", "reduction"))
def sac_discrete_policy_loss(
    logits_t: ArrayLike,
    q_t: ArrayLike,
    temperature: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return discrete SAC's policy loss.

    It is `-mean(w_t * (sum_a pi[a] * min_e q_t[e, a] + temperature * H(pi)))` with
    `pi = softmax(logits_t)` and its entropy `H(pi)`. See "Soft Actor-Critic for Discrete Action
    Settings" by Christodoulou (2019, https://arxiv.org/abs/1910.07207). Logits of `-inf` mark
    illegal actions.

    Args:
      logits_t: `[..., A]` logits of the policy.
      q_t: `[..., E, A]` action values of each critic.
      temperature: weight of the entropy, a scalar or `[...]`, always a constant for the gradient.
      use_stop_gradient: whether the action values are constants for the gradient.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("sac_discrete_policy_loss", q_t=(q_t, "EA"), logits_t=(logits_t, "A"))
    same_shape("sac_discrete_policy_loss", steps, temperature=temperature)
    logits_t, q_t, temperature = floats(logits_t=logits_t, q_t=q_t, temperature=temperature)
    q_t, temperature = stop_gradient_if(use_stop_gradient, q_t), jax.lax.stop_gradient(temperature)
    loss = -_soft_value(logits_t, q_t, temperature)
    return reduce_loss("sac_discrete_policy_loss", loss, w_t, reduction)


@operator(static=("reduction",))
def sac_discrete_temperature_loss(
    logits_t: ArrayLike,
    temperature: ArrayLike,
    target_entropy: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Return discrete SAC's temperature loss.

    It is `mean(w_t * temperature * (H(softmax(logits_t)) - target_entropy))`, where `H` is the
    entropy: `sac_temperature_loss` with the expectation over the actions instead of a sample. See
    "Soft Actor-Critic for Discrete Action Settings" by Christodoulou (2019,
    https://arxiv.org/abs/1910.07207).

    Args:
      logits_t: `[..., A]` logits of the policy, always constants for the gradient.
      temperature: as in `sac_temperature_loss`, a scalar or `[...]`.
      target_entropy: usually a fraction of the largest entropy, `log(A)`; a scalar or `[...]`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "sac_discrete_temperature_loss"
    steps = values_of(name, logits_t=logits_t)
    same_shape(name, steps, temperature=temperature, target_entropy=target_entropy)
    logits_t, temperature, target_entropy = floats(
        logits_t=logits_t, temperature=temperature, target_entropy=target_entropy
    )
    entropy_t = jax.lax.stop_gradient(entropy_of(jax.nn.log_softmax(logits_t)))
    return reduce_loss(name, temperature * (entropy_t - target_entropy), w_t, reduction)
