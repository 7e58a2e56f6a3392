"""Errors and losses of off-policy actor-critic methods: TD3, SAC, discrete SAC, AWAC, IQL and CQL.

Operators work on values and log-probabilities, not on networks, for single steps and any leading
axes that all arguments share. Critics come in ensembles of E, two as a rule, on the last axis:
`[..., E]`, or `[..., E, A]` if they value A discrete actions. What an ensemble predicts is its
least value, against overestimation. Errors are `target - prediction` of each critic for a
transition from `tm1` to `t`, to be passed to `l2_loss` or another. Losses concern the step `t`
itself and are to be minimised; they weigh and reduce the steps by `w_t` and `reduction` as those of
`policy_gradients` do.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    ShapeError,
    actions,
    floats,
    operator,
    pick,
    reduce_loss,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._support import below_largest, entropy_of
from agentzoo.core.losses import expectile_loss

__all__ = [
    "advantage_weights",
    "awac_policy_loss",
    "clipped_double_q_learning",
    "cql_penalty",
    "cql_sampled_penalty",
    "iql_error",
    "iql_policy_loss",
    "iql_value_loss",
    "sac_discrete_error",
    "sac_discrete_policy_loss",
    "sac_discrete_temperature_loss",
    "sac_error",
    "sac_policy_loss",
    "sac_temperature_loss",
    "target_policy_smoothing",
]


def _steps(name: str, **arguments: tuple[ArrayLike, str]) -> tuple[int, ...]:
    """Checks arguments, each given with the names of its last axes, such as "EA"; returns the leading axes, which all share.

    An A is the same in all; an E need not be.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for argument, (value, axes) in arguments.items():
        shape, num_leading = jnp.shape(value), jnp.ndim(value) - len(axes)
        steps = sizes.setdefault("steps", shape[: max(num_leading, 0)])
        num_actions = sizes.setdefault("A", shape[-1:]) if axes.endswith("A") else ()
        if (
            num_leading < 0
            or shape[:num_leading] != steps
            or (num_actions and shape[-1:] != num_actions)
        ):
            expected = ", ".join(
                [*map(str, steps), *axes[:-1], *map(str, num_actions or axes[-1:])]
            )
            raise ShapeError(
                f"{name}: {argument!r} must have shape [{expected}], but has shape {shape}."
            )
    return sizes["steps"]


def _soft_value(logits: jax.Array, q: jax.Array, temperature: jax.Array) -> jax.Array:
    """Expected value plus temperature times entropy, `[...]`, of logits `[..., A]` and action values `[..., E, A]`."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probs) * jnp.min(q, axis=-2), axis=-1) + temperature * entropy_of(
        log_probs
    )


def _ensemble_error(
    target_tm1: jax.Array, q_tm1: jax.Array, stop_target_gradients: bool
) -> jax.Array:
    return stop_gradient_if(stop_target_gradients, target_tm1)[..., None] - q_tm1


@operator
def target_policy_smoothing(
    key: jax.Array,
    a_t: ArrayLike,
    stddev: ArrayLike = 0.2,
    noise_clip: ArrayLike = 0.5,
    action_minimum: ArrayLike = -1.0,
    action_maximum: ArrayLike = 1.0,
) -> jax.Array:
    """TD3's target action, `clip(a_t + clip(N(0, stddev), -noise_clip, noise_clip), action_minimum, action_maximum)`.

    See "Addressing Function Approximation Error in Actor-Critic Methods" by Fujimoto et al. (2018,
    https://arxiv.org/abs/1802.09477), algorithm 1.

    Args:
      key: consumed.
      a_t: `[..., D]` actions of the target policy.
      stddev: of the noise, in units of the actions; a scalar or `[D]`, as are all that follow.
      noise_clip: the largest noise.
      action_minimum: the least allowed action.
      action_maximum: the largest allowed action.

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
    """TD3's error, `r_t + discount_t * min_e q_t[e] - q_tm1[e]`.

    See "Addressing Function Approximation Error in Actor-Critic Methods" by Fujimoto et al. (2018,
    https://arxiv.org/abs/1802.09477), algorithm 1.

    Args:
      q_tm1: `[..., E]` values of the action taken, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t: `[..., E]` values of the target action, one per target critic; their E may be another.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = _steps("clipped_double_q_learning", q_tm1=(q_tm1, "E"), q_t=(q_t, "E"))
    same_shape("clipped_double_q_learning", steps, r_t=r_t, discount_t=discount_t)
    q_tm1, r_t, discount_t, q_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t)
    return _ensemble_error(r_t + discount_t * jnp.min(q_t, axis=-1), q_tm1, stop_target_gradients)


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
    """SAC's error, `r_t + discount_t * (min_e q_t[e] - temperature * log_prob_t) - q_tm1[e]`.

    See "Soft Actor-Critic Algorithms and Applications" by Haarnoja et al. (2018,
    https://arxiv.org/abs/1812.05905), algorithm 1.

    Args:
      q_tm1: `[..., E]` values of the action taken, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t: `[..., E]` values of an action that the policy has sampled at the destination, one per
        target critic; their E may be another.
      log_prob_t: `[...]` the log-probability of that action.
      temperature: the weight of the entropy, a scalar or `[...]`.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = _steps("sac_error", q_tm1=(q_tm1, "E"), q_t=(q_t, "E"))
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
    return _ensemble_error(target_tm1, q_tm1, stop_target_gradients)


@operator(static=("reduction",))
def sac_policy_loss(
    q_t: ArrayLike,
    log_prob_t: ArrayLike,
    temperature: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """SAC's policy loss, `mean(w_t * (temperature * log_prob_t - min_e q_t[e]))`.

    The action is sampled by reparametrisation, and its gradient flows through both `q_t` and
    `log_prob_t`; the critics' parameters must be constants. See "Soft Actor-Critic Algorithms and
    Applications" by Haarnoja et al. (2018, https://arxiv.org/abs/1812.05905).

    Args:
      q_t: `[..., E]` values of an action that the policy has just sampled, one per critic.
      log_prob_t: `[...]` the log-probability of that action.
      temperature: the weight of the entropy, a scalar or `[...]`, always a constant.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape(
        "sac_policy_loss",
        _steps("sac_policy_loss", q_t=(q_t, "E")),
        log_prob_t=log_prob_t,
        temperature=temperature,
    )
    q_t, log_prob_t, temperature = floats(q_t=q_t, log_prob_t=log_prob_t, temperature=temperature)
    loss = jax.lax.stop_gradient(temperature) * log_prob_t - jnp.min(q_t, axis=-1)
    return reduce_loss("sac_policy_loss", loss, w_t, reduction)


@operator(static=("reduction",))
def sac_temperature_loss(
    log_prob_t: ArrayLike,
    temperature: ArrayLike,
    target_entropy: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """SAC's temperature loss, `mean(w_t * temperature * (-log_prob_t - target_entropy))`.

    Descending it raises the temperature while the entropy is below its target. See "Soft
    Actor-Critic Algorithms and Applications" by Haarnoja et al. (2018,
    https://arxiv.org/abs/1812.05905), section 5.

    Args:
      log_prob_t: `[...]` log-probabilities of actions that the policy has sampled, always
        constants.
      temperature: such as the exponential of the parameter that is learned, or that parameter, with
        which the step does not depend on how small the temperature is; a scalar or `[...]`.
      target_entropy: as a rule minus the number of the actions' dimensions; a scalar or `[...]`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape(
        "sac_temperature_loss",
        jnp.shape(log_prob_t),
        temperature=temperature,
        target_entropy=target_entropy,
    )
    log_prob_t, temperature, target_entropy = floats(
        log_prob_t=log_prob_t, temperature=temperature, target_entropy=target_entropy
    )
    loss = temperature * jax.lax.stop_gradient(-log_prob_t - target_entropy)
    return reduce_loss("sac_temperature_loss", loss, w_t, reduction)


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
    """Discrete SAC's error, `r_t + discount_t * (sum_a pi[a] * min_e q_t[e, a] + temperature * H(pi)) - q_tm1[e, a_tm1]`.

    Here `pi = softmax(logits_t)`. See "Soft Actor-Critic for Discrete Action Settings" by
    Christodoulou (2019, https://arxiv.org/abs/1910.07207). Actions may be ruled out by logits of
    `-inf`.

    Args:
      q_tm1: `[..., E, A]` action values, for each critic.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t: `[..., E, A]` action values at the destination, for each target critic; their E may be
        another.
      logits_t: `[..., A]` of the policy at the destination.
      temperature: the weight of the entropy, a scalar or `[...]`.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[..., E]` errors; NaN where an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    steps = _steps(
        "sac_discrete_error", q_tm1=(q_tm1, "EA"), q_t=(q_t, "EA"), logits_t=(logits_t, "A")
    )
    actions("sac_discrete_error", steps, a_tm1=a_tm1)
    same_shape("sac_discrete_error", steps, r_t=r_t, discount_t=discount_t, temperature=temperature)
    q_tm1, r_t, discount_t, q_t, logits_t, temperature = floats(
        q_tm1=q_tm1,
        r_t=r_t,
        discount_t=discount_t,
        q_t=q_t,
        logits_t=logits_t,
        temperature=temperature,
    )
    target_tm1 = r_t + discount_t * _soft_value(logits_t, q_t, temperature)
    q_a_tm1 = pick(q_tm1, jnp.broadcast_to(jnp.asarray(a_tm1)[..., None], q_tm1.shape[:-1]))
    return _ensemble_error(target_tm1, q_a_tm1, stop_target_gradients)


@operator(static=("use_stop_gradient", "reduction"))
def sac_discrete_policy_loss(
    logits_t: ArrayLike,
    q_t: ArrayLike,
    temperature: ArrayLike,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Discrete SAC's policy loss, `-mean(w_t * (sum_a pi[a] * min_e q_t[e, a] + temperature * H(pi)))`, where `pi = softmax(logits_t)`.

    See "Soft Actor-Critic for Discrete Action Settings" by Christodoulou (2019,
    https://arxiv.org/abs/1910.07207). Actions may be ruled out by logits of `-inf`.

    Args:
      logits_t: `[..., A]` of the policy.
      q_t: `[..., E, A]` action values, for each critic.
      temperature: the weight of the entropy, a scalar or `[...]`, always a constant.
      use_stop_gradient: whether the action values count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = _steps("sac_discrete_policy_loss", q_t=(q_t, "EA"), logits_t=(logits_t, "A"))
    same_shape("sac_discrete_policy_loss", steps, temperature=temperature)
    logits_t, q_t, temperature = floats(logits_t=logits_t, q_t=q_t, temperature=temperature)
    loss = -_soft_value(
        logits_t, stop_gradient_if(use_stop_gradient, q_t), jax.lax.stop_gradient(temperature)
    )
    return reduce_loss("sac_discrete_policy_loss", loss, w_t, reduction)


@operator(static=("reduction",))
def sac_discrete_temperature_loss(
    logits_t: ArrayLike,
    temperature: ArrayLike,
    target_entropy: ArrayLike,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Discrete SAC's temperature loss, `mean(w_t * temperature * (H(softmax(logits_t)) - target_entropy))`.

    It is `sac_temperature_loss` with the expectation over the actions in place of a sample. See
    "Soft Actor-Critic for Discrete Action Settings" by Christodoulou (2019,
    https://arxiv.org/abs/1910.07207).

    Args:
      logits_t: `[..., A]` of the policy, always constants.
      temperature: such as the exponential of the parameter that is learned, or that parameter, with
        which the step does not depend on how small the temperature is; a scalar or `[...]`.
      target_entropy: as a rule a share of the largest entropy, `log A`; a scalar or `[...]`.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    leading = values_of("sac_discrete_temperature_loss", logits_t=logits_t)
    same_shape(
        "sac_discrete_temperature_loss",
        leading,
        temperature=temperature,
        target_entropy=target_entropy,
    )
    logits_t, temperature, target_entropy = floats(
        logits_t=logits_t, temperature=temperature, target_entropy=target_entropy
    )
    entropy_t = jax.lax.stop_gradient(entropy_of(jax.nn.log_softmax(logits_t)))
    return reduce_loss(
        "sac_discrete_temperature_loss", temperature * (entropy_t - target_entropy), w_t, reduction
    )


@operator(static=("normalize",))
def advantage_weights(
    adv_t: ArrayLike,
    temperature: ArrayLike = 1.0,
    max_weight: ArrayLike | None = None,
    normalize: bool = False,
    w_t: ArrayLike | None = None,
) -> jax.Array:
    """How much each action is worth imitating, `exp(adv_t / temperature)`; the weights of AWAC and IQL.

    See "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets" by Nair et al.
    (2020, https://arxiv.org/abs/2006.09359).

    Args:
      adv_t: `[...]` advantages.
      temperature: the smaller, the more only the best count; in units of the advantages, a scalar.
      max_weight: the largest weight, a scalar; None for no limit.
      normalize: whether the weights are divided by their mean over all axes, before the limit. They
        are then a softmax over all steps times the number of steps, and cannot overflow.
      w_t: `[...]`, 0 for a step that the mean leaves out, or a scalar.

    Returns:
      `[...]` weights.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape(
        "advantage_weights",
        (),
        temperature=temperature,
        max_weight=0 if max_weight is None else max_weight,
    )
    same_shape("advantage_weights", jnp.shape(adv_t), w_t=1 if w_t is None else w_t)
    adv_t, temperature = floats(adv_t=adv_t, temperature=temperature)
    log_weights = adv_t / temperature
    if normalize:
        counts = jnp.broadcast_to(jnp.asarray(1 if w_t is None else w_t) != 0, adv_t.shape)
        log_total = jax.nn.logsumexp(log_weights, where=counts)
        log_weights = log_weights - log_total + jnp.log(jnp.sum(counts, dtype=adv_t.dtype))
    if max_weight is not None:
        log_weights = jnp.minimum(log_weights, jnp.log(jnp.asarray(max_weight, adv_t.dtype)))
    return jnp.exp(log_weights)


@operator(static=("normalize", "use_stop_gradient", "reduction"))
def awac_policy_loss(
    log_prob_t: ArrayLike,
    adv_t: ArrayLike,
    temperature: ArrayLike = 1.0,
    max_weight: ArrayLike | None = None,
    normalize: bool = False,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """AWAC's policy loss, `-mean(w_t * exp(adv_t / temperature) * log_prob_t)`.

    See "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets" by Nair et al.
    (2020, https://arxiv.org/abs/2006.09359).

    Args:
      log_prob_t: `[...]` log-probabilities under the policy of the actions in the data.
      adv_t: `[...]` their advantages under the policy.
      temperature: as in `advantage_weights`.
      max_weight: as in `advantage_weights`.
      normalize: as in `advantage_weights`.
      use_stop_gradient: whether the advantages count as constants.
      w_t: `[...]` weights of the steps, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("awac_policy_loss", jnp.shape(log_prob_t), adv_t=adv_t)
    log_prob_t, adv_t = floats(log_prob_t=log_prob_t, adv_t=adv_t)
    adv_t = jnp.broadcast_to(stop_gradient_if(use_stop_gradient, adv_t), log_prob_t.shape)
    loss = -advantage_weights(adv_t, temperature, max_weight, normalize, w_t) * log_prob_t
    return reduce_loss("awac_policy_loss", loss, w_t, reduction)


@operator(static=("use_stop_gradient", "reduction"))
def iql_value_loss(
    v_t: ArrayLike,
    q_t: ArrayLike,
    expectile: ArrayLike = 0.7,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """IQL's value loss, `mean(w_t * |expectile - (d < 0)| * d^2)`, where `d = min_e q_t[e] - v_t`.

    See "Offline Reinforcement Learning with Implicit Q-Learning" by Kostrikov et al. (2021,
    https://arxiv.org/abs/2110.06169), equation 5.

    Args:
      v_t: `[...]` values.
      q_t: `[..., E]` values of the action in the data, one per target critic.
      expectile: in (0, 1), a scalar or `[...]`; 0.5 for the mean over the actions in the data,
        towards 1 for their best.
      use_stop_gradient: whether the action values count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = _steps("iql_value_loss", v_t=(v_t, ""), q_t=(q_t, "E"))
    same_shape("iql_value_loss", steps, expectile=expectile)
    v_t, q_t, expectile = floats(v_t=v_t, q_t=q_t, expectile=expectile)
    loss = expectile_loss(
        v_t, stop_gradient_if(use_stop_gradient, jnp.min(q_t, axis=-1)), expectile
    )
    return reduce_loss("iql_value_loss", loss, w_t, reduction)


@operator(static=("stop_target_gradients",))
def iql_error(
    q_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """IQL's error of the action values, `r_t + discount_t * v_t - q_tm1[e]`.

    See "Offline Reinforcement Learning with Implicit Q-Learning" by Kostrikov et al. (2021,
    https://arxiv.org/abs/2110.06169), equation 6.

    Args:
      q_tm1: `[..., E]` values of the action in the data, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      v_t: `[...]` values at the destination, learned by `iql_value_loss`.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape(
        "iql_error",
        _steps("iql_error", q_tm1=(q_tm1, "E")),
        r_t=r_t,
        discount_t=discount_t,
        v_t=v_t,
    )
    q_tm1, r_t, discount_t, v_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t)
    return _ensemble_error(
        jnp.broadcast_to(r_t + discount_t * v_t, q_tm1.shape[:-1]), q_tm1, stop_target_gradients
    )


@operator(static=("use_stop_gradient", "reduction"))
def iql_policy_loss(
    log_prob_t: ArrayLike,
    adv_t: ArrayLike,
    inverse_temperature: ArrayLike = 3.0,
    max_weight: ArrayLike | None = 100.0,
    use_stop_gradient: bool = True,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array:
    """IQL's policy loss, `-mean(w_t * min(exp(inverse_temperature * adv_t), max_weight) * log_prob_t)`.

    See "Offline Reinforcement Learning with Implicit Q-Learning" by Kostrikov et al. (2021,
    https://arxiv.org/abs/2110.06169), equation 7.

    Args:
      log_prob_t: `[...]` log-probabilities under the policy of the actions in the data.
      adv_t: `[...]` their advantages, the least target action value minus the value.
      inverse_temperature: 0 imitates the data, more only the best of it; a scalar.
      max_weight: the largest weight, a scalar; None for no limit.
      use_stop_gradient: whether the advantages count as constants.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("iql_policy_loss", jnp.shape(log_prob_t), adv_t=adv_t)
    same_shape("iql_policy_loss", (), inverse_temperature=inverse_temperature)
    log_prob_t, adv_t, inverse_temperature = floats(
        log_prob_t=log_prob_t, adv_t=adv_t, inverse_temperature=inverse_temperature
    )
    weights = advantage_weights(
        inverse_temperature * stop_gradient_if(use_stop_gradient, adv_t), max_weight=max_weight
    )
    return reduce_loss("iql_policy_loss", -weights * log_prob_t, w_t, reduction)


@operator
def cql_penalty(q_tm1: ArrayLike, a_tm1: ArrayLike, temperature: ArrayLike = 1.0) -> jax.Array:
    """CQL's penalty for discrete actions, `temperature * log sum_a exp(q_tm1[a] / temperature) - q_tm1[a_tm1]`.

    The critic's loss is its temporal-difference loss plus a multiple of the penalty, which lowers
    the values of actions that are not in the data. See "Conservative Q-Learning for Offline
    Reinforcement Learning" by Kumar et al. (2020, https://arxiv.org/abs/2006.04779), equation 4. To
    bound it instead by a learned multiplier, pass it to `kl_constraint_loss` in place of a KL.

    Args:
      q_tm1: `[..., A]` action values; of an ensemble's `[..., E, A]`, map over E by `jax.vmap`.
      a_tm1: `[...]` actions in the data.
      temperature: of the soft maximum, a scalar.

    Returns:
      `[...]` penalties, not negative; NaN where an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    actions("cql_penalty", values_of("cql_penalty", q_tm1=q_tm1), a_tm1=a_tm1)
    same_shape("cql_penalty", (), temperature=temperature)
    q_tm1, temperature = floats(q_tm1=q_tm1, temperature=temperature)
    q_tm1, _ = below_largest(q_tm1)  # the penalty is that of any constant added to all values
    return temperature * jax.nn.logsumexp(q_tm1 / temperature, axis=-1) - pick(q_tm1, a_tm1)


@operator
def cql_sampled_penalty(
    q_tm1: ArrayLike,
    sample_q_tm1: ArrayLike,
    sample_log_probs: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """CQL's penalty for continuous actions, `temperature * log mean_s exp(sample_q_tm1[s] / temperature - log_prob[s]) - q_tm1`.

    The mean estimates the integral of `exp(q / temperature)` over all actions by importance
    sampling. The samples may come from several distributions in equal numbers, each with the
    log-probability under its own: half uniform, half from the policy in "Conservative Q-Learning
    for Offline Reinforcement Learning" by Kumar et al. (2020, https://arxiv.org/abs/2006.04779),
    appendix F.

    Args:
      q_tm1: `[..., E]` values of the action in the data, one per critic.
      sample_q_tm1: `[S, ..., E]` values of S sampled actions.
      sample_log_probs: `[S, ...]` log-densities of these actions where they were sampled, always
        constants.
      temperature: of the soft maximum, a scalar.

    Returns:
      `[..., E]` penalties; see `cql_penalty` for their use.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "cql_sampled_penalty"
    steps = _steps(name, q_tm1=(q_tm1, "E"))
    samples = _steps(
        name, sample_log_probs=(sample_log_probs, ""), sample_q_tm1=(sample_q_tm1, "E")
    )
    if not samples or samples[1:] != steps or jnp.shape(sample_q_tm1)[-1:] != jnp.shape(q_tm1)[-1:]:
        raise ShapeError(
            f"{name}: 'sample_q_tm1' must hold samples of the shape of 'q_tm1', {jnp.shape(q_tm1)}, "
            f"but has shape {jnp.shape(sample_q_tm1)}."
        )
    same_shape(name, (), temperature=temperature)
    q_tm1, sample_q_tm1, sample_log_probs, temperature = floats(
        q_tm1=q_tm1,
        sample_q_tm1=sample_q_tm1,
        sample_log_probs=sample_log_probs,
        temperature=temperature,
    )
    exponents = sample_q_tm1 / temperature - jax.lax.stop_gradient(sample_log_probs)[..., None]
    return temperature * (jax.nn.logsumexp(exponents, axis=0) - math.log(len(exponents))) - q_tm1
