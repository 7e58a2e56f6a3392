"""Maximum a posteriori policy optimisation (MPO) for any policy, from sampled actions.

MPO improves a policy in two steps. The E-step weights actions of the *target* policy by
`exp(q / temperature)`. The M-step fits the *online* policy to the weighted actions, while KL
constraints keep it near the target policy. The temperature and the dual variable `alpha` of each
KL constraint are learned by gradient descent together with the policy::

    loss = -sum_a weights[a] * log pi(a)                                  policy
         + temperature * (epsilon + log mean_a exp(q[a] / temperature))   temperature
         + stop_gradient(alpha) * KL(target || online)                    KL penalty
         + alpha * (epsilon_kl - stop_gradient(KL(target || online)))     alpha

The temperature keeps the KL of the weighted policy to the target policy below `epsilon`. Each
alpha rises while its KL exceeds its bound.

Most users need only `gaussian_mpo_loss` or `categorical_mpo_loss`, which compute the whole loss
from the parameters of both policies. The functions here are the parts, for other policies. See
"Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
https://arxiv.org/abs/1806.06920) and "Relative Entropy Regularized Policy Iteration" by
Abdolmaleki et al. (2018, https://arxiv.org/abs/1812.02256).

`E*` stands for any axes of the steps: `[]`, `[B]`, `[T, B]`, ... Samples of an action have one more
axis of size S, which comes first unless `sample_axis` says otherwise.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    ShapeError,
    floats,
    operator,
    python_values,
    reduce_loss,
    same_shape,
    stop_gradient_if,
)
from agentzoo.core._support import below_largest
from agentzoo.core.lagrange import (
    LagrangePenalty,
    Projection,
    check_kl_constraints,
    clip_projection,
    compute_parametric_kl_penalty_and_dual_loss,
)

__all__ = ["MpoOutputs", "mpo_compute_weights_and_temperature_loss", "mpo_loss"]


class MpoOutputs(NamedTuple):
    """The unweighted parts of `mpo_loss` and `vmpo_loss`.

    Attributes:
      temperature_loss: dual loss of the temperature. E*, or a scalar for V-MPO.
      policy_loss: E*, the weighted negative log-likelihood.
      kl_loss: E*, the KL penalty.
      alpha_loss: E*, the dual loss of the alphas.
      normalized_weights: weights of the E-step. For MPO `[S, E*]`, which sum to 1 over the samples.
        For V-MPO E*, which sum to 1 over all steps.
      num_samples: number of weighted samples: S for MPO, the number of steps in the top fraction
        for V-MPO.
    """

    temperature_loss: jax.Array
    policy_loss: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array
    normalized_weights: jax.Array
    num_samples: jax.Array | int


class EStep(NamedTuple):
    """The result of `e_step`.

    Attributes:
      temperature_loss: E*, the dual loss of the temperature.
      weights: `[S, E*]`, which sum to 1 over S.
      kl: E*, the KL of the weights to the prior.
    """

    temperature_loss: jax.Array
    weights: jax.Array
    kl: jax.Array


def e_step(
    values: jax.Array,
    log_prior: jax.Array | float,
    temperature: jax.Array,
    epsilon: jax.Array,
    axis: int,
) -> EStep:
    """Reweight a prior by exponentiated values.

    Args:
      values: `[S, E*]`, with S at `axis`.
      log_prior: `[S, E*]`, with S at `axis`, or a scalar.
      temperature: E*, or a scalar.
      epsilon: bound on the KL, E* or a scalar.
      axis: the axis of S.
    """
    dtype = values.dtype
    values = values.astype(jnp.promote_types(dtype, jnp.float32))
    values, largest = below_largest(values, axis)
    scaled = values / (jnp.expand_dims(temperature, axis) if temperature.ndim else temperature)
    log_total = jax.nn.logsumexp(scaled + log_prior, axis=axis)
    weights = jax.nn.softmax(scaled + log_prior, axis=axis)
    kl = jnp.sum(weights * scaled, axis=axis) - log_total
    loss = temperature * (epsilon + log_total) + jnp.squeeze(largest, axis)
    return EStep(loss.astype(dtype), weights.astype(dtype), kl.astype(dtype))


@operator(static=("sample_axis",))
def _sampled_e_step(
    sample_q_values: ArrayLike, temperature: ArrayLike, epsilon: ArrayLike, sample_axis: int
) -> tuple[jax.Array, jax.Array]:
    """Check the arguments and return the loss and the weights of samples from the prior."""
    name, shape = "mpo_compute_weights_and_temperature_loss", jnp.shape(sample_q_values)
    steps = _without_axis(name, shape, sample_axis)
    same_shape(name, steps, temperature_constraint=temperature, epsilon=epsilon)
    q, temperature, epsilon = floats(
        sample_q_values=sample_q_values, temperature=temperature, epsilon=epsilon
    )
    log_prior = -math.log(shape[sample_axis])  # each sample has the prior probability 1 / S
    return e_step(q, log_prior, temperature, epsilon, sample_axis)[:2]


def _without_axis(name: str, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"{name}: 'sample_q_values' has no axis {axis}, its shape is {shape}.")
    axis %= len(shape)  # counts a negative axis from the front
    return shape[:axis] + shape[axis + 1 :]


def mpo_compute_weights_and_temperature_loss(
    sample_q_values: ArrayLike,
    temperature_constraint: LagrangePenalty,
    projection_operator: Projection,
    sample_axis: int = 0,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, int]:
    """Compute MPO's E-step, `weights = softmax(q / temperature)` over samples of the target policy.

    The loss of the temperature is `temperature * (epsilon + log mean exp(q / temperature))`. It is
    the dual of a bound on the KL of the weighted policy to the target policy; see
    https://arxiv.org/abs/1806.06920. Its gradient also reaches the action values; `mpo_loss` stops
    it.

    Args:
      sample_q_values: `[S, E*]` action values of the samples.
      temperature_constraint: the temperature (a scalar, or E*) and its bound.
      projection_operator: function that makes the dual variable positive, such as
        `clip_projection`.
      sample_axis: the axis of S.
      use_stop_gradient: whether the weights are constants.

    Returns:
      The loss of the temperature, E*; the weights, `[S, E*]`; and S.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    python_values(
        "mpo_compute_weights_and_temperature_loss",
        sample_axis=sample_axis,
        use_stop_gradient=use_stop_gradient,
    )
    temperature = projection_operator(jnp.asarray(temperature_constraint.alpha))
    loss, weights = _sampled_e_step(
        sample_q_values, temperature, temperature_constraint.epsilon, sample_axis
    )
    num_samples = jnp.shape(sample_q_values)[sample_axis]
    return loss, stop_gradient_if(use_stop_gradient, weights), num_samples


def weighted_sum(name: str, **terms: tuple[ArrayLike, jax.Array]) -> jax.Array:
    """Sum losses times their weights.

    Args:
      name: name for the error messages.
      **terms: the weight, a scalar, and the loss, under the name of the weight.
    """
    same_shape(name, (), **{argument: weight for argument, (weight, _) in terms.items()})
    return functools.reduce(
        jnp.add, (jnp.multiply(weight, loss) for weight, loss in terms.values())
    )


def mpo_loss(
    sample_log_probs: ArrayLike,
    sample_q_values: ArrayLike,
    temperature_constraint: LagrangePenalty,
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection = clip_projection,
    policy_loss_weight: ArrayLike = 1.0,
    temperature_loss_weight: ArrayLike = 1.0,
    kl_loss_weight: ArrayLike = 1.0,
    alpha_loss_weight: ArrayLike = 1.0,
    sample_axis: int = 0,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, MpoOutputs]:
    """Compute MPO's loss for any policy.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920). `gaussian_mpo_loss` and `categorical_mpo_loss` compute the
    arguments for the usual policies themselves.

    Args:
      sample_log_probs: `[S, E*]` log-probabilities, under the online policy, of actions sampled
        from the target policy.
      sample_q_values: `[S, E*]` values of the sampled actions.
      temperature_constraint: the temperature (a scalar, or E*) and the bound on the KL of the
        weighted policy to the target policy.
      kl_constraints: pairs of `KL(target policy || online policy)` and its penalty; may be empty.
        Each KL is E*, or `[E*, D]` with `per_dimension`. The parameters of the target policy must
        be constants in it.
      projection_operator: function that makes each dual variable positive. Use `clip_projection`
        for variables that are the duals themselves, and `softplus_projection` for free parameters.
      policy_loss_weight: weight of the policy loss in the sum, a scalar.
      temperature_loss_weight: weight of the temperature loss, a scalar.
      kl_loss_weight: weight of the KL penalty, a scalar.
      alpha_loss_weight: weight of the loss of the alphas, a scalar.
      sample_axis: the axis of S.
      use_stop_gradient: whether the weights and the action values are constants, the alphas are
        constants in the KL penalty, and the KLs are constants in the loss of the alphas.

    Returns:
      The loss, E*, which the caller averages, and its parts.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    python_values("mpo_loss", sample_axis=sample_axis, use_stop_gradient=use_stop_gradient)
    steps = _without_axis("mpo_loss", jnp.shape(sample_q_values), sample_axis)
    if jnp.shape(sample_log_probs) != jnp.shape(sample_q_values):
        raise ShapeError(
            f"mpo_loss: 'sample_log_probs' must have the shape of 'sample_q_values', "
            f"{jnp.shape(sample_q_values)}, but has {jnp.shape(sample_log_probs)}."
        )
    check_kl_constraints("mpo_loss", steps, kl_constraints)
    sample_log_probs, sample_q_values = floats(
        sample_log_probs=sample_log_probs, sample_q_values=sample_q_values
    )
    temperature_loss, weights, num_samples = mpo_compute_weights_and_temperature_loss(
        stop_gradient_if(use_stop_gradient, sample_q_values),
        temperature_constraint,
        projection_operator,
        sample_axis,
        use_stop_gradient,
    )
    policy_loss = -jnp.sum(weights * sample_log_probs, axis=sample_axis)
    kl_loss, alpha_loss = compute_parametric_kl_penalty_and_dual_loss(
        kl_constraints, projection_operator, use_stop_gradient
    )
    loss = weighted_sum(
        "mpo_loss",
        policy_loss_weight=(policy_loss_weight, policy_loss),
        temperature_loss_weight=(temperature_loss_weight, temperature_loss),
        kl_loss_weight=(kl_loss_weight, kl_loss),
        alpha_loss_weight=(alpha_loss_weight, alpha_loss),
    )
    return loss, MpoOutputs(
        temperature_loss, policy_loss, kl_loss, alpha_loss, weights, num_samples
    )


def mean_over_steps(name: str, weights: ArrayLike | None, num_axes: int, x: jax.Array) -> jax.Array:
    """Return the weighted mean over the first `num_axes` axes.

    If `x` has one axis more, each of its dimensions has a mean of its own.
    """
    if x.ndim > num_axes:
        return jax.vmap(functools.partial(mean_over_steps, name, weights, num_axes), in_axes=-1)(x)
    return reduce_loss(name, x, weights, "masked_mean")
