"""Policies as functions of a network's outputs, with the interface of RLax; `agentzoo.core.policies` has the same as objects.

A distribution is a tuple of pure functions: `softmax(temperature=0.5).sample(key, logits)`.
Preferences and logits are `[..., A]`, means `[..., D]`, with any leading axes. A standard deviation
has the shape of the mean, or is `[D]` or a scalar that all share. An action has the leading axes of
what it is scored by, and may have more axes in front: several samples `[N, ..., D]` of each. An
action whose logit or preference is -inf is illegal: it has probability zero and adds nothing to an
entropy, a KL or a gradient.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator, pick, same_shape, values_of
from agentzoo.core._squash import log_slope, squash, tanh, unsquash
from agentzoo.core._support import below_largest, entropy_of

__all__ = [
    "ContinuousDistribution",
    "DiscreteDistribution",
    "categorical_cross_entropy",
    "categorical_importance_sampling_ratios",
    "categorical_kl_divergence",
    "categorical_sample",
    "clipped_entropy_softmax",
    "epsilon_greedy",
    "gaussian_diagonal",
    "greedy",
    "multivariate_normal_kl_divergence",
    "softmax",
    "squashed_gaussian",
]


class DiscreteDistribution(NamedTuple):
    """Functions of logits or preferences `[..., A]`.

    Attributes:
      sample: `(key, logits) -> [...]` actions; -1 where the logits are NaN or no action is legal.
      probs: `(logits) -> [..., A]`.
      logprob: `(sample, logits) -> [...]`; NaN where the action is no index.
      entropy: `(logits) -> [...]`, in nats.
      kl: `(p_logits, q_logits) -> [...]`, or None where it would be infinite nearly everywhere.
    """

    sample: Callable
    probs: Callable
    logprob: Callable
    entropy: Callable
    kl: Callable | None


class ContinuousDistribution(NamedTuple):
    """Functions of a mean `[..., D]` and a standard deviation.

    Attributes:
      sample: `(key, mu, sigma) -> [..., D]` actions.
      prob: `(sample, mu, sigma) -> [...]` densities.
      logprob: `(sample, mu, sigma) -> [...]` log-densities.
      entropy: `(mu, sigma) -> [...]`, in nats.
      kl_to_standard_normal: `(mu, sigma) -> [...]`.
      kl: `(mu_0, sigma_0, mu_1, sigma_1) -> [...]`.
    """

    sample: Callable
    prob: Callable
    logprob: Callable
    entropy: Callable
    kl_to_standard_normal: Callable
    kl: Callable


def softmax(temperature: ArrayLike = 1.0) -> DiscreteDistribution:
    """Softmax policy, `probs[a] = exp(logits[a] / temperature) / sum_b exp(logits[b] / temperature)`.

    Args:
      temperature: a scalar, or one for each leading axis of the logits; towards 0 the policy
        becomes greedy.
    """

    def sample(key, logits):
        return _sample(key, _softmax(logits, temperature))

    def probs(logits):
        return jnp.exp(_softmax(logits, temperature))

    def logprob(sample, logits):
        return _logprob(sample, _softmax(logits, temperature))

    def entropy(logits):
        return _entropy(_softmax(logits, temperature))

    def kl(p_logits, q_logits):
        return categorical_kl_divergence(p_logits, q_logits, temperature)

    return DiscreteDistribution(sample, probs, logprob, entropy, kl)


def clipped_entropy_softmax(
    temperature: ArrayLike = 1.0, entropy_clip: ArrayLike = 1.0
) -> DiscreteDistribution:
    """Softmax policy whose entropy counts only up to `entropy_clip * log(A)`: above it, an entropy bonus has no gradient.

    Args:
      temperature: see `softmax`.
      entropy_clip: the part of the largest possible entropy at which it is cut off, in [0, 1]; a
        scalar, or one for each leading axis.
    """
    plain = softmax(temperature)

    def sample(key, logits, action_spec=None):
        del action_spec  # RLax accepts one, and has no use for it either
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
    """Greedy policy: the probability is shared by the actions of largest preference.

    Its `kl` is None.
    """
    return epsilon_greedy(0.0)


def epsilon_greedy(epsilon: ArrayLike | None = None) -> DiscreteDistribution:
    """Mixture of the greedy policy, and with probability `epsilon` the uniform one over all legal actions. Its `kl` is None.

    Args:
      epsilon: a scalar or one for each leading axis of the preferences. Each function also takes
        one, which then counts instead.
    """

    def distribution(preferences, given):
        return _epsilon_greedy(preferences, _given("epsilon_greedy", "epsilon", given, epsilon))

    def sample(key, preferences, epsilon=None):
        return _sample(key, _log(distribution(preferences, epsilon)))

    def probs(preferences, epsilon=None):
        return distribution(preferences, epsilon)

    def logprob(sample, preferences, epsilon=None):
        return _logprob(sample, _log(distribution(preferences, epsilon)))

    def entropy(preferences, epsilon=None):
        return _entropy(_log(distribution(preferences, epsilon)))

    return DiscreteDistribution(sample, probs, logprob, entropy, None)


def gaussian_diagonal(sigma: ArrayLike | None = None) -> ContinuousDistribution:
    """Gaussian policy with independent dimensions, `N(mu, diag(sigma^2))`.

    Args:
      sigma: standard deviation. Each function also takes one, which then counts instead.
    """

    def given(value):
        return _given("gaussian_diagonal", "sigma", value, sigma)

    def sample(key, mu, sigma=None):
        return _gaussian_sample(key, mu, given(sigma))

    def prob(sample, mu, sigma=None):
        return jnp.exp(_gaussian_logprob(sample, mu, given(sigma)))

    def logprob(sample, mu, sigma=None):
        return _gaussian_logprob(sample, mu, given(sigma))

    def entropy(mu, sigma=None):
        return _gaussian_entropy(mu, given(sigma))

    def kl_to_standard_normal(mu, sigma=None):
        return multivariate_normal_kl_divergence(mu, given(sigma), jnp.zeros_like(mu), 1.0)

    return ContinuousDistribution(
        sample, prob, logprob, entropy, kl_to_standard_normal, multivariate_normal_kl_divergence
    )


def squashed_gaussian(
    sigma_min: ArrayLike = -4, sigma_max: ArrayLike = 0.0
) -> ContinuousDistribution:
    """Gaussian policy of RLax that is squashed by tanh into the bounds of an action space; `policies.TanhGaussian` is SAC's.

    Of raw outputs `mu` and `sigma`, the base Gaussian has mean `tanh(mu)`, so that its mode never
    comes nearer to a bound than tanh(1) = 0.76 of the way, and standard deviation `exp(sigma_min +
    (sigma_max - sigma_min) * (tanh(sigma) + 1) / 2)`. `sample`, `prob` and `logprob` are those of
    the squashed action and take one more argument, `action_spec`, with attributes `minimum` and
    `maximum` that are scalars, `[1]` or `[D]`. **`entropy`, `kl_to_standard_normal` and `kl` are
    those of the base Gaussian, before squashing**, as in RLax; a KL between two policies with the
    same bounds is the same before and after. For the density of a squashed action see "Soft
    Actor-Critic" by Haarnoja et al. (2018, https://arxiv.org/abs/1801.01290, appendix C).

    `logprob` finds the Gaussian's value from the action; an action at or beyond a bound counts as
    the nearest float32 inside.

    Args:
      sigma_min: smallest logarithm of the base Gaussian's standard deviation.
      sigma_max: largest.
    """

    def base(mu, sigma):
        return _squashed_base(mu, sigma, sigma_min, sigma_max)

    def sample(key, mu, sigma, action_spec):
        return _squashed_sample(key, *base(mu, sigma), action_spec.minimum, action_spec.maximum)

    def prob(sample, mu, sigma, action_spec):
        return jnp.exp(logprob(sample, mu, sigma, action_spec))

    def logprob(sample, mu, sigma, action_spec):
        return _squashed_logprob(sample, *base(mu, sigma), action_spec.minimum, action_spec.maximum)

    def entropy(mu, sigma):
        return _gaussian_entropy(*base(mu, sigma))

    def kl_to_standard_normal(mu, sigma):
        return multivariate_normal_kl_divergence(*base(mu, sigma), jnp.zeros_like(mu), 1.0)

    def kl(mu_0, sigma_0, mu_1, sigma_1):
        return multivariate_normal_kl_divergence(*base(mu_0, sigma_0), *base(mu_1, sigma_1))

    return ContinuousDistribution(sample, prob, logprob, entropy, kl_to_standard_normal, kl)


@operator
def categorical_sample(key: jax.Array, probs: ArrayLike) -> jax.Array:
    """Samples an index with the given probabilities.

    Args:
      key: a PRNG key.
      probs: `[..., A]` probabilities, or weights that need not sum to one.

    Returns:
      `[...]` indices; -1 where a probability is negative or not finite, or all are zero.
    """
    values_of("categorical_sample", probs=probs)
    (probs,) = floats(probs=probs)
    valid = jnp.all(jnp.isfinite(probs) & (probs >= 0), axis=-1, keepdims=True)
    return _sample(key, jnp.log(jnp.where(valid, probs, 0)))


@operator
def categorical_cross_entropy(labels: ArrayLike, logits: ArrayLike) -> jax.Array:
    """Cross-entropy between labels and a softmax, `-sum_a labels[a] * log softmax(logits)[a]`.

    See "Deep Learning" by Goodfellow, Bengio and Courville, section 3.13
    (https://www.deeplearningbook.org).

    Args:
      labels: `[..., A]` probabilities; they are divided by their sum.
      logits: `[..., A]`.

    Returns:
      `[...]` cross-entropies in nats.

    Raises:
      ShapeError: if the shapes differ.
    """
    values_of("categorical_cross_entropy", labels=labels, logits=logits)
    labels, logits = floats(labels=labels, logits=logits)
    total = jnp.sum(labels, axis=-1)
    log_probs = jax.nn.log_softmax(logits)
    log_probs = jnp.where(
        (labels == 0) & (log_probs == -jnp.inf), 0, log_probs
    )  # an illegal action that no label asks for
    return -jnp.sum(labels * log_probs, axis=-1) / jnp.where(total == 0, 1, total)


@operator
def categorical_importance_sampling_ratios(
    pi_logits_t: ArrayLike, mu_logits_t: ArrayLike, a_t: ArrayLike
) -> jax.Array:
    """Importance sampling ratios of two softmax policies, `pi(a_t) / mu(a_t)`.

    Args:
      pi_logits_t: `[..., A]` logits of the policy that is evaluated.
      mu_logits_t: `[..., A]` logits of the policy that acted.
      a_t: `[...]` actions, drawn from `mu`.

    Returns:
      `[...]` ratios. NaN where neither policy can take the action, or it is no index.

    Raises:
      ShapeError: if the shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    values_of(
        "categorical_importance_sampling_ratios", pi_logits_t=pi_logits_t, mu_logits_t=mu_logits_t
    )
    pi_logits_t, mu_logits_t = floats(pi_logits_t=pi_logits_t, mu_logits_t=mu_logits_t)
    return jnp.exp(
        _logprob(a_t, jax.nn.log_softmax(pi_logits_t))
        - _logprob(a_t, jax.nn.log_softmax(mu_logits_t))
    )


@operator
def categorical_kl_divergence(
    p_logits: ArrayLike, q_logits: ArrayLike, temperature: ArrayLike = 1.0
) -> jax.Array:
    """KL divergence of two softmax distributions, `sum_a p[a] * log(p[a] / q[a])`.

    Args:
      p_logits: `[..., A]`.
      q_logits: `[..., A]`.
      temperature: by which both logits are divided; a scalar or `[...]`.

    Returns:
      `[...]` divergences in nats; infinite where `q` forbids what `p` does.

    Raises:
      ShapeError: if the shapes do not fit together.
    """
    values_of("categorical_kl_divergence", p_logits=p_logits, q_logits=q_logits)
    p_logits, q_logits = floats(p_logits=p_logits, q_logits=q_logits)
    log_p, log_q = _softmax(p_logits, temperature), _softmax(q_logits, temperature)
    p = jnp.exp(log_p)
    return jnp.sum(p * jnp.where(p == 0, 0, log_p - log_q), axis=-1)


@operator
def multivariate_normal_kl_divergence(
    mu_0: ArrayLike, sigma_0: ArrayLike, mu_1: ArrayLike, sigma_1: ArrayLike
) -> jax.Array:
    """KL divergence of two Gaussians with independent dimensions, `KL(N(mu_0, sigma_0^2) || N(mu_1, sigma_1^2))`.

    It is the sum over dimensions of `((sigma_0 / sigma_1)^2 - 1 + ((mu_0 - mu_1) / sigma_1)^2) / 2
    - log(sigma_0 / sigma_1)`.

    Args:
      mu_0: `[..., D]` mean.
      sigma_0: standard deviation: `[..., D]`, `[D]` or a scalar.
      mu_1: `[..., D]` mean.
      sigma_1: standard deviation.

    Returns:
      `[...]` divergences in nats.

    Raises:
      ShapeError: if the shapes do not fit together.
    """
    name = "multivariate_normal_kl_divergence"
    values_of(name, mu_0=mu_0, mu_1=mu_1)
    for which, mu, sigma in (("sigma_0", mu_0, sigma_0), ("sigma_1", mu_1, sigma_1)):
        _per_dimension(name, jnp.shape(mu), **{which: sigma})
    mu_0, sigma_0, mu_1, sigma_1 = floats(mu_0=mu_0, sigma_0=sigma_0, mu_1=mu_1, sigma_1=sigma_1)
    sigma_0, sigma_1 = (jnp.broadcast_to(sigma, mu_0.shape) for sigma in (sigma_0, sigma_1))
    log_ratio = jnp.log(sigma_0 / sigma_1)
    # expm1 keeps the digits of (sigma_0 / sigma_1)^2 - 1 where the two are nearly equal.
    return jnp.sum(
        0.5 * (jnp.expm1(2 * log_ratio) + jnp.square((mu_0 - mu_1) / sigma_1)) - log_ratio, axis=-1
    )


# What the functions above are made of. Discrete distributions are passed on as log-probabilities.


@operator
def _softmax(logits, temperature):
    leading = values_of("softmax", logits=logits)
    same_shape("softmax", leading, temperature=temperature)
    logits, temperature = floats(logits=logits, temperature=temperature)
    return jax.nn.log_softmax(
        below_largest(logits)[0] / jnp.broadcast_to(temperature, leading)[..., None]
    )


@operator
def _epsilon_greedy(preferences, epsilon):
    leading = values_of("epsilon_greedy", preferences=preferences)
    same_shape("epsilon_greedy", leading, epsilon=epsilon)
    preferences, epsilon = floats(preferences=preferences, epsilon=epsilon)
    epsilon = jnp.broadcast_to(epsilon, leading)[..., None]
    legal = preferences != -jnp.inf
    best = (preferences == jnp.max(preferences, axis=-1, keepdims=True)) & legal
    greedy, uniform = (
        x / jnp.sum(x, axis=-1, keepdims=True, dtype=preferences.dtype) for x in (best, legal)
    )
    return (1 - epsilon) * greedy + epsilon * uniform


@operator
def _log(probs):
    # Zeros are replaced before the logarithm too: otherwise its infinite derivative makes their
    # gradient NaN.
    return jnp.where(probs == 0, -jnp.inf, jnp.log(jnp.where(probs == 0, 1, probs)))


@operator
def _sample(key, log_probs):
    valid = ~jnp.any(jnp.isnan(log_probs), axis=-1) & jnp.any(log_probs > -jnp.inf, axis=-1)
    return jnp.where(valid, jax.random.categorical(key, log_probs), -1)


@operator
def _logprob(sample, log_probs):
    if not jnp.issubdtype(jnp.result_type(sample), jnp.integer):
        raise TypeError(
            f"logprob: 'sample' must hold integer action indices, but has dtype {jnp.result_type(sample)}."
        )
    _ends_in("logprob", log_probs.shape[:-1], sample=sample)
    return pick(jnp.broadcast_to(log_probs, (*jnp.shape(sample), log_probs.shape[-1])), sample)


_entropy = operator(entropy_of)


@operator
def _gaussian_sample(key, mu, sigma):
    mu, sigma = _gaussian(mu, sigma)
    return mu + sigma * jax.random.normal(key, mu.shape, mu.dtype)


@operator
def _gaussian_logprob(sample, mu, sigma):
    mu, sigma = _gaussian(mu, sigma)
    _ends_in("logprob", mu.shape, sample=sample)
    sample, mu, sigma = floats(sample=sample, mu=mu, sigma=sigma)
    mu, sigma = (jnp.broadcast_to(x, sample.shape) for x in (mu, sigma))
    return jnp.sum(
        -0.5 * jnp.square((sample - mu) / sigma) - jnp.log(sigma) - 0.5 * math.log(2 * math.pi),
        axis=-1,
    )


@operator
def _gaussian_entropy(mu, sigma):
    return jnp.sum(jnp.log(_gaussian(mu, sigma)[1]) + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


def _gaussian(mu, sigma):
    """`mu` and `sigma`, checked, in one dtype and one shape."""
    values_of("gaussian", mu=mu)
    _per_dimension("gaussian", jnp.shape(mu), sigma=sigma)
    mu, sigma = floats(mu=mu, sigma=sigma)
    return mu, jnp.broadcast_to(sigma, mu.shape)


@operator
def _squashed_base(mu, sigma, sigma_min, sigma_max):
    same_shape("squashed_gaussian", (), sigma_min=sigma_min, sigma_max=sigma_max)
    mu, sigma = _gaussian(mu, sigma)
    return tanh(mu), jnp.exp(sigma_min + 0.5 * (sigma_max - sigma_min) * (tanh(sigma) + 1))


@operator
def _squashed_sample(key, mu, sigma, minimum, maximum):
    return squash(_gaussian_sample(key, mu, sigma), *_bounds(mu, minimum, maximum))


@operator
def _squashed_logprob(sample, mu, sigma, minimum, maximum):
    _ends_in("logprob", mu.shape, sample=sample)
    sample, mu, sigma = floats(sample=sample, mu=mu, sigma=sigma)
    bounds = _bounds(sample, minimum, maximum)
    u = unsquash(sample, *bounds)
    return _gaussian_logprob(u, mu, sigma) - jnp.sum(log_slope(u, *bounds), axis=-1)


def _bounds(actions, minimum, maximum):
    """The two, checked, in the shape and dtype of the actions."""
    bounds = []
    for name, bound in (("minimum", minimum), ("maximum", maximum)):
        if jnp.shape(bound) not in ((), (1,), actions.shape[-1:]):
            raise ShapeError(
                f"squashed_gaussian: 'action_spec.{name}' must have shape {actions.shape[-1:]}, but has {jnp.shape(bound)}."
            )
        bounds.append(jnp.broadcast_to(jnp.asarray(bound, actions.dtype), actions.shape))
    return bounds


def _per_dimension(name: str, shape: tuple[int, ...], **arrays: Any) -> None:
    """Raises `ShapeError` naming the first argument that is neither of the given shape, nor of its last axis, nor a scalar."""
    for argument, value in arrays.items():
        if jnp.shape(value) not in ((), shape[-1:], shape):
            raise ShapeError(
                f"{name}: {argument!r} must have shape {shape} or {shape[-1:]}, or be a scalar, but has shape {jnp.shape(value)}."
            )


def _ends_in(name: str, shape: tuple[int, ...], **arrays: Any) -> None:
    """Raises `ShapeError` naming the first argument whose last axes are not of the given shape."""
    for argument, value in arrays.items():
        if jnp.shape(value)[max(jnp.ndim(value) - len(shape), 0) :] != shape:
            raise ShapeError(
                f"{name}: {argument!r} must have shape {shape}, or more axes in front, but has shape {jnp.shape(value)}."
            )


def _given(distribution: str, name: str, value: Any, default: Any) -> Any:
    if value is None and default is None:
        raise ValueError(
            f"{distribution}: {name!r} is missing; give it to {distribution}({name}=...) or to this function."
        )
    return default if value is None else value
