"""Policies as functions of the outputs of a network, with the interface of RLax.

`agentzoo.core.policies` has the same policies as objects. A distribution here is a tuple of pure
functions: `softmax(temperature=0.5).sample(key, logits)`.

Preferences and logits are `[..., A]` and means are `[..., D]`, with any leading axes. A standard
deviation has the shape of the mean, or is `[D]` or a scalar. An action has the leading axes of the
logits or the mean, and may have more axes in front, such as `[N, ..., D]` for N samples of each.
An action whose logit or preference is -inf is illegal: it has probability zero and adds nothing to
an entropy, a KL or a gradient.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core import _densities
from agentzoo.core._operator import floats, operator, same_shape, values_of
from agentzoo.core.divergences import categorical_kl_divergence, multivariate_normal_kl_divergence

__all__ = [
    "ContinuousDistribution",
    "DiscreteDistribution",
    "categorical_sample",
    "clipped_entropy_softmax",
    "epsilon_greedy",
    "gaussian_diagonal",
    "greedy",
    "softmax",
    "squashed_gaussian",
]


class DiscreteDistribution(NamedTuple):
    """Functions of logits or preferences `[..., A]`.

    Attributes:
      sample: `(key, logits) -> [...]` actions; -1 where the logits are NaN or no action is legal.
      probs: `(logits) -> [..., A]` probabilities.
      logprob: `(sample, logits) -> [...]` log-probabilities; NaN where an action is out of range.
      entropy: `(logits) -> [...]` entropies in nats.
      kl: `(p_logits, q_logits) -> [...]` divergences in nats, or None where the KL would be
        infinite almost everywhere.
    """

    sample: Callable[..., jax.Array]
    probs: Callable[..., jax.Array]
    logprob: Callable[..., jax.Array]
    entropy: Callable[..., jax.Array]
    kl: Callable[..., jax.Array] | None


class ContinuousDistribution(NamedTuple):
    """Functions of a mean `[..., D]` and a standard deviation.

    Attributes:
      sample: `(key, mu, sigma) -> [..., D]` actions.
      prob: `(sample, mu, sigma) -> [...]` densities.
      logprob: `(sample, mu, sigma) -> [...]` log-densities.
      entropy: `(mu, sigma) -> [...]` entropies in nats.
      kl_to_standard_normal: `(mu, sigma) -> [...]` divergences in nats.
      kl: `(mu_0, sigma_0, mu_1, sigma_1) -> [...]` divergences in nats.
    """

    sample: Callable[..., jax.Array]
    prob: Callable[..., jax.Array]
    logprob: Callable[..., jax.Array]
    entropy: Callable[..., jax.Array]
    kl_to_standard_normal: Callable[..., jax.Array]
    kl: Callable[..., jax.Array]


def softmax(temperature: ArrayLike = 1.0) -> DiscreteDistribution:
    """Build a softmax policy, `probs[a] = exp(logits[a] / temperature) / normalizer`.

    The normalizer is `sum_b exp(logits[b] / temperature)`.

    Args:
      temperature: a scalar, or one value for each leading axis of the logits. The policy approaches
        the greedy policy as the temperature approaches 0.
    """

    def sample(key, logits):
        return _densities.sample_index(key, _densities.log_softmax(logits, temperature))

    def probs(logits):
        return jnp.exp(_densities.log_softmax(logits, temperature))

    def logprob(sample, logits):
        return _densities.log_prob_of(sample, _densities.log_softmax(logits, temperature))

    def entropy(logits):
        return _densities.entropy(_densities.log_softmax(logits, temperature))

    def kl(p_logits, q_logits):
        return categorical_kl_divergence(p_logits, q_logits, temperature)

    return DiscreteDistribution(sample, probs, logprob, entropy, kl)


def clipped_entropy_softmax(
    temperature: ArrayLike = 1.0, entropy_clip: ArrayLike = 1.0
) -> DiscreteDistribution:
    """Build a softmax policy whose entropy is clipped to `entropy_clip * log(A)`.

    Above the limit, an entropy bonus has no gradient.

    Args:
      temperature: see `softmax`.
      entropy_clip: limit of the entropy as a fraction of the largest possible entropy, in [0, 1]; a
        scalar, or one value for each leading axis.
    """
    plain = softmax(temperature)

    def sample(key, logits, action_spec=None):
        del action_spec  # RLax accepts it and does not use it either
        return plain.sample(key, logits)

    def probs(logits, action_spec=None):
        del action_spec
        return plain.probs(logits)

    def logprob(sample, logits, action_spec=None):
        del action_spec
        return plain.logprob(sample, logits)

    def entropy(logits):
        same_shape("clipped_entropy_softmax", jnp.shape(logits)[:-1], entropy_clip=entropy_clip)
        return jnp.minimum(plain.entropy(logits), entropy_clip * math.log(jnp.shape(logits)[-1]))

    return DiscreteDistribution(sample, probs, logprob, entropy, plain.kl)


def greedy() -> DiscreteDistribution:
    """Build a greedy policy, in which the actions with the largest preference share probability 1.

    Its `kl` is None.
    """
    return epsilon_greedy(0.0)


def epsilon_greedy(epsilon: ArrayLike | None = None) -> DiscreteDistribution:
    """Build an epsilon-greedy policy.

    With probability `epsilon` it takes any legal action, and otherwise an action with the largest
    preference. Its `kl` is None.

    Args:
      epsilon: a scalar, or one value for each leading axis of the preferences. Each function also
        takes an `epsilon`, which overrides this one.
    """

    def distribution(preferences, given):
        chosen = _given("epsilon_greedy", "epsilon", given, epsilon)
        return _densities.epsilon_greedy_probs(preferences, chosen)

    def log_probs(preferences, given):
        return _densities.log_of_probs(distribution(preferences, given))

    def sample(key, preferences, epsilon=None):
        return _densities.sample_index(key, log_probs(preferences, epsilon))

    def probs(preferences, epsilon=None):
        return distribution(preferences, epsilon)

    def logprob(sample, preferences, epsilon=None):
        return _densities.log_prob_of(sample, log_probs(preferences, epsilon))

    def entropy(preferences, epsilon=None):
        return _densities.entropy(log_probs(preferences, epsilon))

    return DiscreteDistribution(sample, probs, logprob, entropy, None)


def gaussian_diagonal(sigma: ArrayLike | None = None) -> ContinuousDistribution:
    """Build a Gaussian policy with independent dimensions, `N(mu, diag(sigma^2))`.

    Args:
      sigma: standard deviation. Each function also takes a `sigma`, which overrides this one.
    """

    def given(value):
        return _given("gaussian_diagonal", "sigma", value, sigma)

    def sample(key, mu, sigma=None):
        return _densities.gaussian_sample(key, mu, given(sigma))

    def prob(sample, mu, sigma=None):
        return jnp.exp(_densities.gaussian_log_prob(sample, mu, given(sigma)))

    def logprob(sample, mu, sigma=None):
        return _densities.gaussian_log_prob(sample, mu, given(sigma))

    def entropy(mu, sigma=None):
        return _densities.gaussian_entropy(mu, given(sigma))

    def kl_to_standard_normal(mu, sigma=None):
        return multivariate_normal_kl_divergence(mu, given(sigma), jnp.zeros_like(mu), 1.0)

    return ContinuousDistribution(
        sample, prob, logprob, entropy, kl_to_standard_normal, multivariate_normal_kl_divergence
    )


def squashed_gaussian(
    sigma_min: ArrayLike = -4, sigma_max: ArrayLike = 0.0
) -> ContinuousDistribution:
    """Build RLax's Gaussian policy that tanh squashes into the bounds of an action space.

    SAC's policy is `policies.TanhGaussian`. Here, the base Gaussian is computed from the raw
    outputs `mu` and `sigma` of a network::

        mean = tanh(mu)
        standard deviation = exp(sigma_min + (sigma_max - sigma_min) * (tanh(sigma) + 1) / 2)

    So the mode never comes nearer to a bound than tanh(1) = 0.76 of the way. `sample`, `prob` and
    `logprob` describe the squashed action. They take one more argument, `action_spec`, with
    attributes `minimum` and `maximum` that are scalars, `[1]` or `[D]`.

    **`entropy`, `kl_to_standard_normal` and `kl` describe the base Gaussian, before squashing**, as
    in RLax. The KL of two policies with the same bounds is the same before and after squashing. For
    the density of a squashed action see "Soft Actor-Critic" by Haarnoja et al. (2018,
    https://arxiv.org/abs/1801.01290, appendix C).

    `logprob` computes the value before squashing from the action. It treats an action at or beyond
    a bound as the nearest float32 inside the bounds.

    Args:
      sigma_min: smallest logarithm of the standard deviation of the base Gaussian.
      sigma_max: largest logarithm of the standard deviation of the base Gaussian.
    """

    def base(mu, sigma):
        return _densities.squashed_base(mu, sigma, sigma_min, sigma_max)

    def sample(key, mu, sigma, action_spec):
        bounds = action_spec.minimum, action_spec.maximum
        return _densities.squashed_sample(key, *base(mu, sigma), *bounds)

    def prob(sample, mu, sigma, action_spec):
        return jnp.exp(logprob(sample, mu, sigma, action_spec))

    def logprob(sample, mu, sigma, action_spec):
        bounds = action_spec.minimum, action_spec.maximum
        return _densities.squashed_log_prob(sample, *base(mu, sigma), *bounds)

    def entropy(mu, sigma):
        return _densities.gaussian_entropy(*base(mu, sigma))

    def kl_to_standard_normal(mu, sigma):
        return multivariate_normal_kl_divergence(*base(mu, sigma), jnp.zeros_like(mu), 1.0)

    def kl(mu_0, sigma_0, mu_1, sigma_1):
        return multivariate_normal_kl_divergence(*base(mu_0, sigma_0), *base(mu_1, sigma_1))

    return ContinuousDistribution(sample, prob, logprob, entropy, kl_to_standard_normal, kl)


@operator
def categorical_sample(key: jax.Array, probs: ArrayLike) -> jax.Array:
    """Sample indices with the given probabilities.

    Args:
      key: a PRNG key.
      probs: `[..., A]` probabilities, or weights that need not sum to 1.

    Returns:
      `[...]` indices; -1 where a probability is negative or not finite, or all are zero.
    """
    values_of("categorical_sample", probs=probs)
    (probs,) = floats(probs=probs)
    valid = jnp.all(jnp.isfinite(probs) & (probs >= 0), axis=-1, keepdims=True)
    return _densities.sample_index(key, jnp.log(jnp.where(valid, probs, 0)))


def _given(distribution: str, name: str, value: Any, default: Any) -> Any:
    if value is None and default is None:
        raise ValueError(
            f"{distribution}: {name!r} is missing. "
            f"Pass it to {distribution}({name}=...) or to this function."
        )
    return default if value is None else value
