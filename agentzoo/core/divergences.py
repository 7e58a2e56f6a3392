"""Comparisons of two distributions: cross-entropies, KL divergences and importance ratios.

Logits are `[..., A]` and means are `[..., D]`, with any leading axes. An action whose logit is -inf
is illegal: it has probability zero and adds nothing to a divergence or a gradient.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._densities import log_prob_of, log_softmax, per_dimension
from agentzoo.core._operator import floats, operator, values_of

__all__ = [
    "categorical_cross_entropy",
    "categorical_importance_sampling_ratios",
    "categorical_kl_divergence",
    "multivariate_normal_kl_divergence",
]


@operator
def categorical_cross_entropy(labels: ArrayLike, logits: ArrayLike) -> jax.Array:
    """Return the cross-entropy of a softmax, `-sum_a labels[a] * log softmax(logits)[a]`.

    See "Deep Learning" by Goodfellow, Bengio and Courville, section 3.13
    (https://www.deeplearningbook.org).

    Args:
      labels: `[..., A]` probabilities, which are divided by their sum.
      logits: `[..., A]` logits.

    Returns:
      `[...]` cross-entropies in nats.

    Raises:
      ShapeError: if the shapes differ.
    """
    values_of("categorical_cross_entropy", labels=labels, logits=logits)
    labels, logits = floats(labels=labels, logits=logits)
    total = jnp.sum(labels, axis=-1)
    log_probs = jax.nn.log_softmax(logits)
    # An illegal action with label 0 adds nothing, instead of 0 * inf.
    log_probs = jnp.where((labels == 0) & (log_probs == -jnp.inf), 0, log_probs)
    return -jnp.sum(labels * log_probs, axis=-1) / jnp.where(total == 0, 1, total)


@operator
def categorical_importance_sampling_ratios(
    pi_logits_t: ArrayLike, mu_logits_t: ArrayLike, a_t: ArrayLike
) -> jax.Array:
    """Return the importance sampling ratios of two softmax policies, `pi(a_t) / mu(a_t)`.

    Args:
      pi_logits_t: `[..., A]` logits of the policy that is evaluated.
      mu_logits_t: `[..., A]` logits of the policy that acted.
      a_t: `[...]` actions sampled from `mu`.

    Returns:
      `[...]` ratios; NaN where neither policy can take the action or the action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    values_of(
        "categorical_importance_sampling_ratios", pi_logits_t=pi_logits_t, mu_logits_t=mu_logits_t
    )
    pi_logits_t, mu_logits_t = floats(pi_logits_t=pi_logits_t, mu_logits_t=mu_logits_t)
    return jnp.exp(
        log_prob_of(a_t, jax.nn.log_softmax(pi_logits_t))
        - log_prob_of(a_t, jax.nn.log_softmax(mu_logits_t))
    )


@operator
def categorical_kl_divergence(
    p_logits: ArrayLike, q_logits: ArrayLike, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Return the KL divergence of two softmax distributions, `sum_a p[a] * log(p[a] / q[a])`.

    Args:
      p_logits: `[..., A]` logits of `p`.
      q_logits: `[..., A]` logits of `q`.
      temperature: divisor of both logits, a scalar or `[...]`.

    Returns:
      `[...]` divergences in nats; infinite where `p` can take an action that `q` cannot.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    values_of("categorical_kl_divergence", p_logits=p_logits, q_logits=q_logits)
    p_logits, q_logits = floats(p_logits=p_logits, q_logits=q_logits)
    log_p, log_q = log_softmax(p_logits, temperature), log_softmax(q_logits, temperature)
    p = jnp.exp(log_p)
    return jnp.sum(p * jnp.where(p == 0, 0, log_p - log_q), axis=-1)


@operator
def multivariate_normal_kl_divergence(
    mu_0: ArrayLike, sigma_0: ArrayLike, mu_1: ArrayLike, sigma_1: ArrayLike
) -> jax.Array:
    """Return `KL(N(mu_0, sigma_0^2) || N(mu_1, sigma_1^2))` for independent dimensions.

    It is the sum over the dimensions of::

        ((sigma_0 / sigma_1)^2 - 1 + ((mu_0 - mu_1) / sigma_1)^2) / 2 - log(sigma_0 / sigma_1)

    Args:
      mu_0: `[..., D]` mean.
      sigma_0: standard deviation, `[..., D]`, `[D]` or a scalar.
      mu_1: `[..., D]` mean.
      sigma_1: standard deviation, `[..., D]`, `[D]` or a scalar.

    Returns:
      `[...]` divergences in nats.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "multivariate_normal_kl_divergence"
    values_of(name, mu_0=mu_0, mu_1=mu_1)
    for which, mu, sigma in (("sigma_0", mu_0, sigma_0), ("sigma_1", mu_1, sigma_1)):
        per_dimension(name, jnp.shape(mu), **{which: sigma})
    mu_0, sigma_0, mu_1, sigma_1 = floats(mu_0=mu_0, sigma_0=sigma_0, mu_1=mu_1, sigma_1=sigma_1)
    sigma_0, sigma_1 = (jnp.broadcast_to(sigma, mu_0.shape) for sigma in (sigma_0, sigma_1))
    log_ratio = jnp.log(sigma_0 / sigma_1)
    # expm1 keeps the precision of (sigma_0 / sigma_1)^2 - 1 where the two are nearly equal.
    return jnp.sum(
        0.5 * (jnp.expm1(2 * log_ratio) + jnp.square((mu_0 - mu_1) / sigma_1)) - log_ratio, axis=-1
    )
