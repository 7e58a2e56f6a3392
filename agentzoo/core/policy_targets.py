"""Sampled and weighted targets for a policy, and the loss that distils them into a distribution.

A distribution is any object with `sample(seed=..., sample_shape=...)`, `log_prob` and
`batch_shape`, from `core`, distrax, or your own code. The axis of samples comes first: S samples of
a distribution with batch shape `[...]` are `[S, ...]`.
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
    """Actions and their weights in a distillation loss.

    Attributes:
      actions: `[S, ...]`, or `[S, ..., D]` if an action is a vector.
      weights: `[S, ...]`.
    """

    actions: jax.Array
    weights: jax.Array


def constant_policy_targets(
    distribution: Any, rng_key: jax.Array, num_samples: int, weights_scale: ArrayLike = 1.0
) -> PolicyTarget:
    """Sample targets that all have the same weight.

    Distilling targets sampled from a uniform distribution keeps a policy from becoming
    deterministic.

    Args:
      distribution: distribution with batch shape `[...]` to sample from.
      rng_key: key for `distribution.sample(seed=rng_key, sample_shape=(num_samples,))`.
      num_samples: number S of samples.
      weights_scale: weight of each sample, a scalar.

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
    """Sample targets with weight 0, as placeholders where there are no targets.

    Args:
      distribution: distribution with batch shape `[...]` to sample from.
      rng_key: as for `constant_policy_targets`.
      num_samples: number S of samples.
      weights_scale: weight of each sample, a scalar.

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
    """Return the cross-entropy of sampled targets, `-mean(weights * log_prob(actions))`.

    See "Muesli: Combining Improvements in Policy Optimization" by Hessel et al. (2021,
    https://arxiv.org/abs/2104.06159). There, the actions are sampled from a prior policy, and the
    weights are their exponentiated, clipped advantages.

    Args:
      distribution: policy to train, with batch shape `[...]`.
      policy_targets: actions and weights of `[S, ...]`.
      stop_target_gradients: whether actions and weights are constants for the gradient.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss.

    Raises:
      ShapeError: if the weights do not have the shape of the log-probabilities.
    """
    name = "sampled_policy_distillation_loss"
    python_values(name, stop_target_gradients=stop_target_gradients, reduction=reduction)
    sample_actions, weights = policy_targets
    log_probs, weights = floats(
        log_probs=distribution.log_prob(stop_gradient_if(stop_target_gradients, sample_actions)),
        weights=stop_gradient_if(stop_target_gradients, weights),
    )
    if log_probs.shape != weights.shape:
        raise ShapeError(
            f"{name}: 'policy_targets.weights' must have the shape of the log-probabilities of the "
            f"actions, {log_probs.shape}, but has shape {weights.shape}."
        )
    return reduce_loss(name, -log_probs, weights, reduction)
