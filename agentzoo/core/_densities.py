"""Probabilities and samples that `distributions` and `divergences` are made of.

Discrete distributions are passed on as log-probabilities `[..., A]`, Gaussians as a mean and a
standard deviation.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator, pick, same_shape, values_of
from agentzoo.core._squash import log_slope, squash, tanh, unsquash
from agentzoo.core._support import below_largest, entropy_of


@operator
def log_softmax(logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Return `log softmax(logits / temperature)`, `[..., A]`."""
    leading = values_of("softmax", logits=logits)
    same_shape("softmax", leading, temperature=temperature)
    logits, temperature = floats(logits=logits, temperature=temperature)
    return jax.nn.log_softmax(
        below_largest(logits)[0] / jnp.broadcast_to(temperature, leading)[..., None]
    )


@operator
def epsilon_greedy_probs(preferences: ArrayLike, epsilon: ArrayLike) -> jax.Array:
    """Return the probabilities of an epsilon-greedy policy, `[..., A]`; equal actions share."""
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
def log_of_probs(probs: jax.Array) -> jax.Array:
    """Return `log(probs)`, whose gradient is finite where a probability is zero."""
    # Zeros are also replaced before the logarithm: its infinite derivative would make the gradient
    # NaN, although the result is not used.
    return jnp.where(probs == 0, -jnp.inf, jnp.log(jnp.where(probs == 0, 1, probs)))


@operator
def sample_index(key: jax.Array, log_probs: jax.Array) -> jax.Array:
    """Sample indices `[...]`; -1 where a log-probability is NaN or all are -inf."""
    valid = ~jnp.any(jnp.isnan(log_probs), axis=-1) & jnp.any(log_probs > -jnp.inf, axis=-1)
    return jnp.where(valid, jax.random.categorical(key, log_probs), -1)


@operator
def log_prob_of(sample: ArrayLike, log_probs: jax.Array) -> jax.Array:
    """Return the log-probability of actions, which may have more axes in front."""
    if not jnp.issubdtype(jnp.result_type(sample), jnp.integer):
        raise TypeError(
            f"logprob: 'sample' must hold integer action indices, but has dtype "
            f"{jnp.result_type(sample)}."
        )
    _ends_in("logprob", log_probs.shape[:-1], sample=sample)
    # One row of A log-probabilities for each action of the sample.
    rows = jnp.broadcast_to(log_probs, (*jnp.shape(sample), log_probs.shape[-1]))
    return pick(rows, sample)


entropy = operator(entropy_of)


@operator
def gaussian_sample(key: jax.Array, mu: ArrayLike, sigma: ArrayLike) -> jax.Array:
    """Sample `N(mu, diag(sigma^2))`, `[..., D]`."""
    mu, sigma = _gaussian(mu, sigma)
    return mu + sigma * jax.random.normal(key, mu.shape, mu.dtype)


@operator
def gaussian_log_prob(sample: ArrayLike, mu: ArrayLike, sigma: ArrayLike) -> jax.Array:
    """Return the log-density of samples, which may have more axes in front."""
    mu, sigma = _gaussian(mu, sigma)
    _ends_in("logprob", mu.shape, sample=sample)
    sample, mu, sigma = floats(sample=sample, mu=mu, sigma=sigma)
    mu, sigma = (jnp.broadcast_to(x, sample.shape) for x in (mu, sigma))
    return jnp.sum(
        -0.5 * jnp.square((sample - mu) / sigma) - jnp.log(sigma) - 0.5 * math.log(2 * math.pi),
        axis=-1,
    )


@operator
def gaussian_entropy(mu: ArrayLike, sigma: ArrayLike) -> jax.Array:
    """Return the entropy in nats, `[...]`."""
    return jnp.sum(jnp.log(_gaussian(mu, sigma)[1]) + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


def _gaussian(mu: ArrayLike, sigma: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Check `mu` and `sigma`, and return them with one dtype and one shape."""
    values_of("gaussian", mu=mu)
    per_dimension("gaussian", jnp.shape(mu), sigma=sigma)
    mu, sigma = floats(mu=mu, sigma=sigma)
    return mu, jnp.broadcast_to(sigma, mu.shape)


@operator
def squashed_base(
    mu: ArrayLike, sigma: ArrayLike, sigma_min: ArrayLike, sigma_max: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of RLax's Gaussian before squashing."""
    same_shape("squashed_gaussian", (), sigma_min=sigma_min, sigma_max=sigma_max)
    mu, sigma = _gaussian(mu, sigma)
    half = 0.5 * jnp.subtract(sigma_max, sigma_min)
    return tanh(mu), jnp.exp(sigma_min + half * (tanh(sigma) + 1))


@operator
def squashed_sample(
    key: jax.Array, mu: jax.Array, sigma: jax.Array, minimum: ArrayLike, maximum: ArrayLike
) -> jax.Array:
    """Sample the Gaussian and squash the sample into the bounds."""
    return squash(gaussian_sample(key, mu, sigma), *_bounds(mu, minimum, maximum))


@operator
def squashed_log_prob(
    sample: ArrayLike, mu: jax.Array, sigma: jax.Array, minimum: ArrayLike, maximum: ArrayLike
) -> jax.Array:
    """Return the log-density of a squashed sample."""
    _ends_in("logprob", mu.shape, sample=sample)
    sample, mu, sigma = floats(sample=sample, mu=mu, sigma=sigma)
    bounds = _bounds(sample, minimum, maximum)
    u = unsquash(sample, *bounds)
    return gaussian_log_prob(u, mu, sigma) - jnp.sum(log_slope(u, *bounds), axis=-1)


def _bounds(actions: jax.Array, minimum: ArrayLike, maximum: ArrayLike) -> list[jax.Array]:
    """Check the two bounds, and return them in the shape and dtype of the actions."""
    bounds = []
    for name, bound in (("minimum", minimum), ("maximum", maximum)):
        if jnp.shape(bound) not in ((), (1,), actions.shape[-1:]):
            raise ShapeError(
                f"squashed_gaussian: 'action_spec.{name}' must have shape {actions.shape[-1:]}, "
                f"but has {jnp.shape(bound)}."
            )
        bounds.append(jnp.broadcast_to(jnp.asarray(bound, actions.dtype), actions.shape))
    return bounds


def per_dimension(name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Raise `ShapeError` for an argument that is not of the shape, its last axis, or a scalar."""
    for argument, value in arrays.items():
        if jnp.shape(value) not in ((), shape[-1:], shape):
            raise ShapeError(
                f"{name}: {argument!r} must have shape {shape} or {shape[-1:]}, or be a scalar, "
                f"but has shape {jnp.shape(value)}."
            )


def _ends_in(name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Raise `ShapeError` for the first argument whose last axes do not have the given shape."""
    for argument, value in arrays.items():
        # An argument with fewer axes is compared whole.
        if jnp.shape(value)[max(jnp.ndim(value) - len(shape), 0) :] != shape:
            raise ShapeError(
                f"{name}: {argument!r} must have shape {shape}, or more axes in front, but has "
                f"shape {jnp.shape(value)}."
            )
