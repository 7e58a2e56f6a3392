"""V-MPO: on-policy maximum a posteriori policy optimisation, from advantages instead of samples.

V-MPO weights the steps of a batch by `exp(advantage / temperature)`, keeps only the steps with the
largest advantages, and fits the policy to the weighted actions under KL constraints, as MPO does.
See "V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and Continuous Control"
by Song et al. (2020, https://arxiv.org/abs/1909.12238).

`E*` stands for any axes of the steps: `[]`, `[B]`, `[T, B]`, ...
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    ShapeError,
    floats,
    operator,
    python_values,
    same_shape,
    stop_gradient_if,
)
from agentzoo.core.lagrange import (
    LagrangePenalty,
    Projection,
    check_kl_constraints,
    clip_projection,
    compute_parametric_kl_penalty_and_dual_loss,
)
from agentzoo.core.mpo import MpoOutputs, weighted_sum

__all__ = ["get_top_k_weights", "vmpo_compute_weights_and_temperature_loss", "vmpo_loss"]


@operator(static=("top_k_fraction", "axis_name", "use_stop_gradient", "exact"))
def get_top_k_weights(
    top_k_fraction: float,
    restarting_weights: ArrayLike,
    scaled_advantages: ArrayLike,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact: bool = False,
) -> jax.Array:
    """Keep the restarting weights of the largest advantages and set all others to 0.

    See "V-MPO" by Song et al. (2020, https://arxiv.org/abs/1909.12238).

    Args:
      top_k_fraction: fraction to keep, in (0, 1]. The `floor(top_k_fraction * N)` largest of N
        advantages are kept.
      restarting_weights: E*, 0 for a step that never counts, otherwise 1.
      scaled_advantages: E*.
      axis_name: name of a mapped axis whose devices hold parts of the batch. The largest advantages
        of all devices together are then kept.
      use_stop_gradient: whether the weights are constants.
      exact: whether to keep exactly that number, with the earliest of equal advantages. Otherwise,
        as in RLax, all advantages that equal the smallest kept one are kept too; if all are equal,
        that is every step.

    Returns:
      The weights, E*.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    same_shape(
        "get_top_k_weights", jnp.shape(scaled_advantages), restarting_weights=restarting_weights
    )
    if not 0 < top_k_fraction <= 1:
        raise ValueError(
            f"get_top_k_weights: 'top_k_fraction' must be in (0, 1], but is {top_k_fraction}."
        )
    weights, advantages = floats(
        restarting_weights=restarting_weights, scaled_advantages=scaled_advantages
    )
    eligible = weights > 0
    candidates = jnp.where(eligible, advantages, -jnp.inf)
    # `[N]` candidates of all devices, those of the first device first.
    everywhere = (
        candidates.ravel()
        if axis_name is None
        else jax.lax.all_gather(candidates.ravel(), axis_name, tiled=True)
    )
    # The small number is there because 0.29 * 100 is less than 29 in floating point.
    k = math.floor(top_k_fraction * everywhere.size + 1e-9)
    if k < 1:
        raise ValueError(
            f"get_top_k_weights: top_k_fraction={top_k_fraction} keeps none of {everywhere.size} "
            f"advantages. Use a larger fraction or a larger batch."
        )
    largest, indices = jax.lax.top_k(everywhere, k)
    if exact:
        # This device's candidates start at its index times their number.
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * candidates.size
        chosen = jnp.zeros(everywhere.shape, bool).at[indices].set(True)
        own = jax.lax.dynamic_slice_in_dim(chosen, first, candidates.size)
        kept = own.reshape(candidates.shape)
    else:
        # The negation is true where either side is NaN, so that a NaN stays visible.
        kept = ~(candidates < largest[-1])
    return stop_gradient_if(use_stop_gradient, jnp.where(eligible & kept, weights, 0))


@operator(static=("top_k_fraction", "axis_name", "use_stop_gradient", "exact_top_k"))
def _vmpo_e_step(
    advantages: ArrayLike,
    restarting_weights: ArrayLike,
    importance_weights: ArrayLike,
    temperature: ArrayLike,
    epsilon: ArrayLike,
    top_k_fraction: float,
    axis_name: str | None,
    use_stop_gradient: bool,
    exact_top_k: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute V-MPO's E-step with a temperature that is positive."""
    name, shape = "vmpo_compute_weights_and_temperature_loss", jnp.shape(advantages)
    same_shape(
        name, shape, restarting_weights=restarting_weights, importance_weights=importance_weights
    )
    same_shape(name, (), temperature_constraint=temperature, epsilon=epsilon)
    *arguments, temperature, epsilon = floats(
        advantages=advantages,
        restarting_weights=restarting_weights,
        importance_weights=importance_weights,
        temperature=temperature,
        epsilon=epsilon,
    )
    dtype = temperature.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    advantages, restarting_weights, importance_weights = (
        jnp.broadcast_to(x, shape).astype(wide) for x in arguments
    )

    def over_devices(reduce, x):
        return x if axis_name is None else reduce(x, axis_name)

    top_k = get_top_k_weights(
        top_k_fraction, restarting_weights, advantages, axis_name, use_stop_gradient, exact_top_k
    )
    weights = top_k * stop_gradient_if(use_stop_gradient, importance_weights)
    # The largest advantage is subtracted before the exponential and added to the loss again.
    largest = jnp.max(jax.lax.stop_gradient(advantages), initial=-jnp.inf, where=top_k > 0)
    largest = over_devices(jax.lax.pmax, largest)
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    weights = weights * jnp.exp(jnp.where(top_k > 0, advantages - largest, 0) / temperature)
    total, num_samples = over_devices(jax.lax.psum, (jnp.sum(weights), jnp.sum(top_k)))
    empty = total == 0
    total = jnp.where(empty, 1, total)
    log_mean = jnp.where(empty, 0, jnp.log(total) - jnp.log(jnp.where(empty, 1, num_samples)))
    loss = temperature * (epsilon + log_mean) + jnp.where(empty, 0, largest)
    normalized = stop_gradient_if(use_stop_gradient, weights / total)
    return loss.astype(dtype), normalized.astype(dtype), num_samples.astype(dtype)


def vmpo_compute_weights_and_temperature_loss(
    advantages: ArrayLike,
    restarting_weights: ArrayLike,
    importance_weights: ArrayLike,
    temperature_constraint: LagrangePenalty,
    projection_operator: Projection,
    top_k_fraction: float,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact_top_k: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute V-MPO's E-step: the weights of the steps, and the loss of the temperature.

    The weights are proportional to `exp(advantages / temperature)` over the steps with the largest
    advantages. The loss of the temperature is
    `temperature * (epsilon + log mean exp(advantages / temperature))` over the same steps; see
    https://arxiv.org/abs/1909.12238. Its gradient also reaches the advantages; `vmpo_loss` stops
    it.

    Args:
      advantages: E*.
      restarting_weights: E*, 0 for a step that does not count, such as the first step of an
        episode, otherwise 1.
      importance_weights: E*, importance-sampling ratios, or 1.
      temperature_constraint: the temperature and its bound, scalars.
      projection_operator: function that makes the dual variable positive, such as
        `clip_projection`.
      top_k_fraction: fraction of the steps that are used, in (0, 1].
      axis_name: name of a mapped axis whose devices hold parts of the batch.
      use_stop_gradient: whether the weights are constants.
      exact_top_k: whether exactly that fraction is used if advantages are equal; see
        `get_top_k_weights`.

    Returns:
      The loss of the temperature, a scalar; the weights, E*, which sum to 1; and the number of
      steps used. If no step is left, the weights are 0 and the loss is `temperature * epsilon`.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    options = {
        "top_k_fraction": top_k_fraction,
        "axis_name": axis_name,
        "use_stop_gradient": use_stop_gradient,
        "exact_top_k": exact_top_k,
    }
    python_values("vmpo_compute_weights_and_temperature_loss", **options)
    temperature = projection_operator(jnp.asarray(temperature_constraint.alpha))
    return _vmpo_e_step(
        advantages,
        restarting_weights,
        importance_weights,
        temperature,
        temperature_constraint.epsilon,
        top_k_fraction,
        axis_name,
        use_stop_gradient,
        exact_top_k,
    )


def vmpo_loss(
    sample_log_probs: ArrayLike,
    advantages: ArrayLike,
    temperature_constraint: LagrangePenalty,
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection = clip_projection,
    restarting_weights: ArrayLike | None = None,
    importance_weights: ArrayLike | None = None,
    top_k_fraction: float = 0.5,
    policy_loss_weight: ArrayLike = 1.0,
    temperature_loss_weight: ArrayLike = 1.0,
    kl_loss_weight: ArrayLike = 1.0,
    alpha_loss_weight: ArrayLike = 1.0,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact_top_k: bool = False,
) -> tuple[jax.Array, MpoOutputs]:
    """Compute V-MPO's loss for any policy.

    See "V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and Continuous
    Control" by Song et al. (2020, https://arxiv.org/abs/1909.12238).

    Args:
      sample_log_probs: E*, log-probabilities, under the online policy, of the actions that the
        target policy took.
      advantages: E*, advantages of these actions.
      temperature_constraint: the temperature and its bound, scalars.
      kl_constraints: as in `mpo_loss`.
      projection_operator: as in `mpo_loss`.
      restarting_weights: E*, 0 for a step that does not count, such as the first step of an
        episode, otherwise 1; None means 1.
      importance_weights: E*, importance-sampling ratios; None means 1.
      top_k_fraction: fraction of the steps, those with the largest advantages, that the policy is
        fitted to.
      policy_loss_weight: weight of the policy loss in the sum, a scalar.
      temperature_loss_weight: weight of the temperature loss, a scalar.
      kl_loss_weight: weight of the KL penalty, a scalar.
      alpha_loss_weight: weight of the loss of the alphas, a scalar.
      axis_name: name of a mapped axis whose devices hold parts of the batch. The caller then
        averages the losses over this axis.
      use_stop_gradient: whether the weights and the advantages are constants, the alphas are
        constants in the KL penalty, and the KLs are constants in the loss of the alphas.
      exact_top_k: whether exactly that fraction is used if advantages are equal; see
        `get_top_k_weights`.

    Returns:
      The loss, E*, which the caller averages, and its parts. The policy loss is scaled so that its
      mean is the weighted sum.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    python_values(
        "vmpo_loss",
        top_k_fraction=top_k_fraction,
        use_stop_gradient=use_stop_gradient,
        exact_top_k=exact_top_k,
    )
    sample_log_probs, advantages = floats(sample_log_probs=sample_log_probs, advantages=advantages)
    steps = advantages.shape
    if sample_log_probs.shape != steps:
        raise ShapeError(
            f"vmpo_loss: 'sample_log_probs' must have shape {steps}, but has shape "
            f"{sample_log_probs.shape}."
        )
    check_kl_constraints("vmpo_loss", steps, kl_constraints)
    temperature_loss, weights, num_samples = vmpo_compute_weights_and_temperature_loss(
        stop_gradient_if(use_stop_gradient, advantages),
        1.0 if restarting_weights is None else restarting_weights,
        1.0 if importance_weights is None else importance_weights,
        temperature_constraint,
        projection_operator,
        top_k_fraction,
        axis_name,
        use_stop_gradient,
        exact_top_k,
    )
    num_steps = advantages.size * (1 if axis_name is None else jax.lax.psum(1, axis_name))
    policy_loss = -weights * sample_log_probs * num_steps
    kl_loss, alpha_loss = compute_parametric_kl_penalty_and_dual_loss(
        kl_constraints, projection_operator, use_stop_gradient
    )
    loss = weighted_sum(
        "vmpo_loss",
        policy_loss_weight=(policy_loss_weight, policy_loss),
        temperature_loss_weight=(temperature_loss_weight, temperature_loss),
        kl_loss_weight=(kl_loss_weight, kl_loss),
        alpha_loss_weight=(alpha_loss_weight, alpha_loss),
    )
    return loss, MpoOutputs(
        temperature_loss, policy_loss, kl_loss, alpha_loss, weights, num_samples
    )
