"""Errors and losses of methods that learn from a fixed data set: AWAC, IQL and CQL.

Shapes and names are as in `agentzoo.core.actor_critic`: critics come in ensembles of E, `[..., E]`,
or `[..., E, A]` for A discrete actions. Losses use `w_t` and `reduction` as in
`agentzoo.core.policy_gradients`.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._ensembles import ensemble_error, steps_of
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
from agentzoo.core._support import below_largest
from agentzoo.core.losses import expectile_loss

__all__ = [
    "advantage_weights",
    "awac_policy_loss",
    "cql_penalty",
    "cql_sampled_penalty",
    "iql_error",
    "iql_policy_loss",
    "iql_value_loss",
]


@operator(static=("normalize",))
def advantage_weights(
    adv_t: ArrayLike,
    temperature: ArrayLike = 1.0,
    max_weight: ArrayLike | None = None,
    normalize: bool = False,
    w_t: ArrayLike | None = None,
) -> jax.Array:
    """Return the weights of AWAC and IQL for imitating actions, `exp(adv_t / temperature)`.

    See "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets" by Nair et al.
    (2020, https://arxiv.org/abs/2006.09359).

    Args:
      adv_t: `[...]` advantages.
      temperature: a scalar, in units of the advantages. A smaller temperature concentrates the
        weights on the best actions.
      max_weight: largest weight, a scalar; None for no limit.
      normalize: whether to divide the weights by their mean over all axes, before the limit. The
        weights are then a softmax over all steps times the number of steps, and cannot overflow.
      w_t: `[...]` or a scalar; the mean leaves out the steps where it is 0.

    Returns:
      `[...]` weights.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "advantage_weights"
    limit = 0 if max_weight is None else max_weight
    same_shape(name, (), temperature=temperature, max_weight=limit)
    same_shape(name, jnp.shape(adv_t), w_t=1 if w_t is None else w_t)
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
    """Return AWAC's policy loss, `-mean(w_t * exp(adv_t / temperature) * log_prob_t)`.

    See "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets" by Nair et al.
    (2020, https://arxiv.org/abs/2006.09359).

    Args:
      log_prob_t: `[...]` log-probabilities, under the policy, of the actions in the data.
      adv_t: `[...]` advantages of these actions under the policy.
      temperature: as in `advantage_weights`.
      max_weight: as in `advantage_weights`.
      normalize: as in `advantage_weights`.
      use_stop_gradient: whether the advantages are constants for the gradient.
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
    """Return IQL's value loss, `mean(w_t * |expectile - (d < 0)| * d^2)`.

    Here, `d = min_e q_t[e] - v_t`. See "Offline Reinforcement Learning with Implicit Q-Learning" by
    Kostrikov et al. (2021, https://arxiv.org/abs/2110.06169), equation 5.

    Args:
      v_t: `[...]` values.
      q_t: `[..., E]` values of the action in the data, one per target critic.
      expectile: level in (0, 1), a scalar or `[...]`. With 0.5, the value is the mean over the
        actions in the data. It approaches the value of the best of them as the level approaches 1.
      use_stop_gradient: whether the action values are constants for the gradient.
      w_t: `[...]` weights, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("iql_value_loss", v_t=(v_t, ""), q_t=(q_t, "E"))
    same_shape("iql_value_loss", steps, expectile=expectile)
    v_t, q_t, expectile = floats(v_t=v_t, q_t=q_t, expectile=expectile)
    target_t = stop_gradient_if(use_stop_gradient, jnp.min(q_t, axis=-1))
    loss = expectile_loss(v_t, target_t, expectile)
    return reduce_loss("iql_value_loss", loss, w_t, reduction)


@operator(static=("stop_target_gradients",))
def iql_error(
    q_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return IQL's error of the action values, `r_t + discount_t * v_t - q_tm1[e]`.

    See "Offline Reinforcement Learning with Implicit Q-Learning" by Kostrikov et al. (2021,
    https://arxiv.org/abs/2110.06169), equation 6.

    Args:
      q_tm1: `[..., E]` values of the action in the data, one per critic.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, or 0 at a termination.
      v_t: `[...]` values at the destination, learned with `iql_value_loss`.
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[..., E]` errors.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    steps = steps_of("iql_error", q_tm1=(q_tm1, "E"))
    same_shape("iql_error", steps, r_t=r_t, discount_t=discount_t, v_t=v_t)
    q_tm1, r_t, discount_t, v_t = floats(q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t)
    target_tm1 = jnp.broadcast_to(r_t + discount_t * v_t, steps)
    return ensemble_error(target_tm1, q_tm1, stop_target_gradients)


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
    """Return IQL's policy loss, `-mean(w_t * weight * log_prob_t)`.

    The weight is `min(exp(inverse_temperature * adv_t), max_weight)`. See "Offline Reinforcement
    Learning with Implicit Q-Learning" by Kostrikov et al. (2021,
    https://arxiv.org/abs/2110.06169), equation 7.

    Args:
      log_prob_t: `[...]` log-probabilities, under the policy, of the actions in the data.
      adv_t: `[...]` advantages of these actions: the smallest target action value minus the value.
      inverse_temperature: a scalar. With 0, the policy imitates the data. A larger value
        concentrates the policy on the best actions in the data.
      max_weight: largest weight, a scalar; None for no limit.
      use_stop_gradient: whether the advantages are constants for the gradient.
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
    """Return CQL's penalty for discrete actions.

    It is `temperature * log sum_a exp(q_tm1[a] / temperature) - q_tm1[a_tm1]`. The loss of the
    critic is its temporal-difference loss plus a multiple of the penalty, which lowers the values
    of actions that are not in the data. To bound the penalty by a learned multiplier instead, pass
    it to `kl_constraint_loss` in place of a KL. See "Conservative Q-Learning for Offline
    Reinforcement Learning" by Kumar et al. (2020, https://arxiv.org/abs/2006.04779), equation 4.

    Args:
      q_tm1: `[..., A]` action values. For an ensemble `[..., E, A]`, map over E with `jax.vmap`.
      a_tm1: `[...]` actions in the data.
      temperature: temperature of the soft maximum, a scalar.

    Returns:
      `[...]` penalties, which are not negative; NaN where an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    actions("cql_penalty", values_of("cql_penalty", q_tm1=q_tm1), a_tm1=a_tm1)
    same_shape("cql_penalty", (), temperature=temperature)
    q_tm1, temperature = floats(q_tm1=q_tm1, temperature=temperature)
    q_tm1, _ = below_largest(q_tm1)  # a constant added to all values does not change the penalty
    return temperature * jax.nn.logsumexp(q_tm1 / temperature, axis=-1) - pick(q_tm1, a_tm1)


@operator
def cql_sampled_penalty(
    q_tm1: ArrayLike,
    sample_q_tm1: ArrayLike,
    sample_log_probs: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """Return CQL's penalty for continuous actions.

    With `exponent_s = sample_q_tm1[s] / temperature - sample_log_probs[s]`, it is
    `temperature * log mean_s exp(exponent_s) - q_tm1`. The mean estimates the integral of
    `exp(q / temperature)` over all actions by importance sampling.

    The samples may come from several distributions in equal numbers, each with the log-probability
    under its own distribution. Half of them are uniform and half are from the policy in
    "Conservative Q-Learning for Offline Reinforcement Learning" by Kumar et al. (2020,
    https://arxiv.org/abs/2006.04779), appendix F.

    Args:
      q_tm1: `[..., E]` values of the action in the data, one per critic.
      sample_q_tm1: `[S, ..., E]` values of S sampled actions.
      sample_log_probs: `[S, ...]` log-densities of the sampled actions under the distributions that
        they were sampled from, always constants for the gradient.
      temperature: temperature of the soft maximum, a scalar.

    Returns:
      `[..., E]` penalties; see `cql_penalty` for their use.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "cql_sampled_penalty"
    steps = steps_of(name, q_tm1=(q_tm1, "E"))
    samples = steps_of(
        name, sample_log_probs=(sample_log_probs, ""), sample_q_tm1=(sample_q_tm1, "E")
    )
    if not samples or samples[1:] != steps or jnp.shape(sample_q_tm1)[-1:] != jnp.shape(q_tm1)[-1:]:
        raise ShapeError(
            f"{name}: 'sample_q_tm1' must hold samples of the shape of 'q_tm1', "
            f"{jnp.shape(q_tm1)}, but has shape {jnp.shape(sample_q_tm1)}."
        )
    same_shape(name, (), temperature=temperature)
    q_tm1, sample_q_tm1, sample_log_probs, temperature = floats(
        q_tm1=q_tm1,
        sample_q_tm1=sample_q_tm1,
        sample_log_probs=sample_log_probs,
        temperature=temperature,
    )
    exponents = sample_q_tm1 / temperature - jax.lax.stop_gradient(sample_log_probs)[..., None]
    log_mean = jax.nn.logsumexp(exponents, axis=0) - math.log(len(exponents))
    return temperature * log_mean - q_tm1
