"""Targets for a policy, sampled and weighed, and their distillation into a distribution.

Distributions are whatever has `sample(seed=..., sample_shape=...)`, `log_prob` and `batch_shape`:
those of `core`, of distrax, or your own. Samples come first: S samples of a distribution with batch
shape `[...]` are `[S, ...]`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    ShapeError,
    floats,
    python_values,
    reduce_loss,
    stop_gradient_if,
)

__all__ = [
    "PolicyTarget",
    "constant_policy_targets",
    "sampled_policy_distillation_loss",
    "zero_policy_targets",
]


class PolicyTarget(NamedTuple):
    """Actions, and how much the probability of each should rise.

    Attributes:
      actions: `[S, ...]`, or `[S, ..., D]` if an action is a vector.
      weights: `[S, ...]`.
    """

    actions: jax.Array
    weights: jax.Array


def constant_policy_targets(
    distribution: Any, rng_key: jax.Array, num_samples: int, weights_scale: ArrayLike = 1.0
) -> PolicyTarget:
    """Samples targets that all weigh the same; distilling those of a uniform distribution keeps a policy from becoming certain.

    Args:
      distribution: what is sampled from, with batch shape `[...]`.
      rng_key: consumed by `distribution.sample(seed=rng_key, sample_shape=(num_samples,))`.
      num_samples: the number S of samples.
      weights_scale: the weight of each sample, a scalar.

    Returns:
      Targets with actions and weights of `[S, ...]`.
    """
    python_values("constant_policy_targets", num_samples=num_samples)
    (weights_scale,) = floats(weights_scale=weights_scale)
    return PolicyTarget(
        actions=distribution.sample(seed=rng_key, sample_shape=(num_samples,)),
        weights=jnp.full((num_samples, *distribution.batch_shape), weights_scale),
    )


def zero_policy_targets(
    distribution: Any, rng_key: jax.Array, num_samples: int, weights_scale: ArrayLike = 0.0
) -> PolicyTarget:
    """`constant_policy_targets` that weigh nothing, to fill in where there are none.

    Args:
      distribution: what is sampled from, with batch shape `[...]`.
      rng_key: as for `constant_policy_targets`.
      num_samples: the number S of samples.
      weights_scale: the weight of each sample, a scalar.

    Returns:
      Targets with actions and weights of `[S, ...]`.
    """
    return constant_policy_targets(distribution, rng_key, num_samples, weights_scale)


def sampled_policy_distillation_loss(
    distribution: Any,
    policy_targets: PolicyTarget,
    stop_target_gradients: bool = True,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Cross-entropy of sampled targets, `-mean(weights * distribution.log_prob(actions))`.

    See "Muesli: Combining Improvements in Policy Optimization" by Hessel et al. (2021,
    https://arxiv.org/abs/2104.06159), where the actions are sampled from a prior policy and the
    weights are their exponentiated, clipped advantages.

    Args:
      distribution: the policy to be trained, with batch shape `[...]`.
      policy_targets: actions and weights of `[S, ...]`.
      stop_target_gradients: whether actions and weights count as constants.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if the weights do not have the shape of the log-probabilities.
    """
    python_values(
        "sampled_policy_distillation_loss",
        stop_target_gradients=stop_target_gradients,
        reduction=reduction,
    )
    sample_actions, weights = policy_targets
    log_probs, weights = floats(
        log_probs=distribution.log_prob(stop_gradient_if(stop_target_gradients, sample_actions)),
        weights=stop_gradient_if(stop_target_gradients, weights),
    )
    if log_probs.shape != weights.shape:
        raise ShapeError(
            f"sampled_policy_distillation_loss: 'policy_targets.weights' must have the shape of the log-probabilities of the actions, "
            f"{log_probs.shape}, but has shape {weights.shape}."
        )
    return reduce_loss("sampled_policy_distillation_loss", -log_probs, weights, reduction)
