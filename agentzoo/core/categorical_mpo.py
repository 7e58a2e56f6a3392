"""MPO's whole loss for a categorical policy, which sums over all actions instead of samples.

See `agentzoo.core.mpo` for the method and its parts.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    floats,
    operator,
    reduce_loss,
    same_shape,
    values_of,
)
from agentzoo.core.divergences import categorical_cross_entropy, categorical_kl_divergence
from agentzoo.core.lagrange import constraint_losses, log_of
from agentzoo.core.mpo import e_step, mean_over_steps

__all__ = ["CategoricalMpoDuals", "CategoricalMpoStatistics", "categorical_mpo_loss"]


class CategoricalMpoDuals(NamedTuple):
    """Logarithms of the dual variables of `categorical_mpo_loss`.

    The logarithm makes a gradient step a relative change, whatever the size of the variable. The
    duals are learned together with the policy, usually at a larger learning rate, such as 0.03 with
    Adam.

    Two limits on alpha are useful. Keep alpha from falling far below 1 while its constraint is
    idle, because it needs as long to rise again. Keep alpha from growing far beyond
    `sqrt(epsilon / epsilon_kl)`: if the steps of the policy are too large to obey the bound, alpha
    grows without end, and then nothing else is learned.

    Attributes:
      temperature: a scalar.
      alpha: a scalar.
    """

    temperature: jax.Array
    alpha: jax.Array

    @classmethod
    def init(cls, temperature: ArrayLike = 10.0, alpha: ArrayLike = 10.0) -> "CategoricalMpoDuals":
        """Return the logarithms of the given values.

        Args:
          temperature: initial temperature, in units of the action values.
          alpha: initial weight of the KL.
        """
        return cls(log_of(temperature), log_of(alpha))


class CategoricalMpoStatistics(NamedTuple):
    """Scalars to log from `categorical_mpo_loss`, averaged over the steps.

    Attributes:
      policy_loss: weighted negative log-likelihood.
      temperature_loss: dual loss of the temperature.
      kl_loss: KL penalty.
      alpha_loss: dual loss of alpha.
      temperature: the temperature itself, which is positive.
      alpha: weight of the KL, which is positive.
      kl_improved: KL of the improved policy to the target policy.
      epsilon: bound of `kl_improved`.
      kl: KL of the target policy to the online policy.
      epsilon_kl: bound of `kl`.
    """

    policy_loss: jax.Array
    temperature_loss: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array
    temperature: jax.Array
    alpha: jax.Array
    kl_improved: jax.Array
    epsilon: jax.Array
    kl: jax.Array
    epsilon_kl: jax.Array


@operator(static=("reduction",))
def categorical_mpo_loss(
    online_logits: ArrayLike,
    target_logits: ArrayLike,
    q_values: ArrayLike,
    duals: CategoricalMpoDuals,
    epsilon: ArrayLike = 0.1,
    epsilon_kl: ArrayLike = 0.01,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[jax.Array, CategoricalMpoStatistics]:
    """Compute MPO's whole loss for a categorical policy.

    The improved policy is `softmax(target_logits + q_values / temperature)`. The online policy is
    fitted to it under the constraint
    `KL(softmax(target_logits) || softmax(online_logits)) <= epsilon_kl`. The *target* logits come
    from a copy of the parameters of the policy network that is refreshed at intervals, such as
    every 100 gradient updates. The KL is zero just after a refresh. It would always be zero if the
    online parameters were used instead; see `gaussian_mpo_loss`. Gradients reach `online_logits`
    and `duals`; everything else is constant.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920). Logits of `-inf` in both policies mark illegal actions.

    Args:
      online_logits: `[..., A]` logits of the policy that is learned.
      target_logits: `[..., A]` logits of its earlier copy.
      q_values: `[..., A]` values of all actions, from the target critic.
      duals: dual variables from `CategoricalMpoDuals.init`.
      epsilon: bound on the KL of the improved policy to the target policy, a scalar.
      epsilon_kl: bound on the KL of the target policy to the online policy, a scalar.
      w_t: `[...]` weights of the steps, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss and the statistics to log.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "categorical_mpo_loss"
    steps = values_of(
        name, online_logits=online_logits, target_logits=target_logits, q_values=q_values
    )
    same_shape(name, (), epsilon=epsilon, epsilon_kl=epsilon_kl)
    online_logits, target_logits, q, epsilon, epsilon_kl = floats(
        online_logits=online_logits,
        target_logits=target_logits,
        q_values=q_values,
        epsilon=epsilon,
        epsilon_kl=epsilon_kl,
    )
    values: CategoricalMpoDuals = jax.tree.map(jnp.exp, duals)
    target_logits, q = jax.lax.stop_gradient((target_logits, q))
    log_prior = jax.nn.log_softmax(target_logits)
    # A large value of an illegal action would cost the legal actions precision.
    possible = target_logits > -jnp.inf
    q = jnp.where(possible, q, jnp.min(q, axis=-1, keepdims=True, where=possible, initial=jnp.inf))
    improved = e_step(q, log_prior, values.temperature, epsilon, axis=-1)
    policy_loss = categorical_cross_entropy(jax.lax.stop_gradient(improved.weights), online_logits)
    kl = categorical_kl_divergence(target_logits, online_logits)
    kl_loss, alpha_loss = constraint_losses(kl, values.alpha, epsilon_kl, per_dimension=False)
    loss = policy_loss + improved.temperature_loss + kl_loss + alpha_loss

    mean = functools.partial(mean_over_steps, name, w_t, len(steps))
    statistics = CategoricalMpoStatistics(
        policy_loss=mean(policy_loss),
        temperature_loss=mean(improved.temperature_loss),
        kl_loss=mean(kl_loss),
        alpha_loss=mean(alpha_loss),
        temperature=values.temperature,
        alpha=values.alpha,
        kl_improved=mean(improved.kl),
        epsilon=epsilon,
        kl=mean(kl),
        epsilon_kl=epsilon_kl,
    )
    return reduce_loss(name, loss, w_t, reduction), statistics
