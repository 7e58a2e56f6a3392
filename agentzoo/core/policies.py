"""Policies as distribution objects, for all action spaces.

`agentzoo.core.distributions` has some of them as functions. Each policy here is a
`distrax.Distribution` with `sample(seed=key, sample_shape=())`, `sample_and_log_prob(seed=key)`,
`log_prob(action)`, `entropy()`, `mode()` and `kl_divergence(other)`. `mode()` is the action to
evaluate an agent with. A policy is a pytree, so `jax.jit` takes and returns it.

Parameters are `[..., A]` or `[..., D]`, with any leading axes. Results have the same leading axes,
after the axes of a sample.

An action is illegal where its logit is -inf or a boolean `mask` is False. It has probability zero
and log-probability -inf, and entropies, divergences and all gradients stay finite.

Importing this module imports distrax, which takes longer than importing JAX. No other module of
`agentzoo.core` imports distrax.
"""

import math
from collections.abc import Sequence

import distrax
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, same_shape, values_of
from agentzoo.core._squash import log_slope, squash, unsquash
from agentzoo.core._support import below_largest
from agentzoo.core.distributions import epsilon_greedy
from agentzoo.core.divergences import multivariate_normal_kl_divergence

__all__ = [
    "Bernoulli",
    "Categorical",
    "ClippedEntropySoftmax",
    "DiagonalGaussian",
    "EpsilonGreedy",
    "Greedy",
    "MultiCategorical",
    "Softmax",
    "TanhGaussian",
]


class _Broadcasting(distrax.Distribution):
    """A distribution that works with `jax_numpy_rank_promotion="raise"`.

    distrax broadcasts its parameters against several samples, which this setting forbids.
    """

    def log_prob(self, value):
        """Return the log-probability or log-density of the actions `value`."""
        with jax.numpy_rank_promotion("allow"):
            return super().log_prob(value)

    def prob(self, value):
        """Return the probability or density of the actions `value`."""
        with jax.numpy_rank_promotion("allow"):
            return super().prob(value)

    def sample_and_log_prob(self, *, seed, sample_shape=()):
        """Return samples with leading axes `sample_shape`, and their log-probabilities.

        Args:
          seed: a PRNG key.
          sample_shape: leading axes of the samples.
        """
        with jax.numpy_rank_promotion("allow"):
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)


class Categorical(_Broadcasting, distrax.Categorical):
    """A choice of one of A actions, with probabilities `softmax(logits)`.

    Args:
      logits: `[..., A]` logits.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, logits: ArrayLike, mask: ArrayLike | None = None):
        super().__init__(logits=_masked("Categorical", logits, mask))


class Softmax(Categorical):
    """A choice of one of A actions, with probabilities `softmax(logits / temperature)`.

    Args:
      logits: `[..., A]` logits.
      temperature: a scalar or `[...]`. The policy approaches the greedy policy as the temperature
        approaches 0.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(
        self, logits: ArrayLike, temperature: ArrayLike = 1.0, mask: ArrayLike | None = None
    ):
        leading = values_of("Softmax", logits=logits)
        same_shape("Softmax", leading, temperature=temperature)
        logits, temperature = floats(
            logits=_masked("Softmax", logits, mask), temperature=temperature
        )
        super().__init__(
            below_largest(logits)[0] / jnp.broadcast_to(temperature, leading)[..., None]
        )


class ClippedEntropySoftmax(Softmax):
    """A `Softmax` policy whose entropy is clipped, so that a larger entropy has no gradient.

    Args:
      logits: `[..., A]` logits.
      temperature: a scalar or `[...]`.
      entropy_clip: limit of the entropy, as a fraction of the logarithm of the number of legal
        actions, in [0, 1].
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(
        self,
        logits: ArrayLike,
        temperature: ArrayLike = 1.0,
        entropy_clip: ArrayLike = 1.0,
        mask: ArrayLike | None = None,
    ):
        super().__init__(logits, temperature, mask)
        same_shape("ClippedEntropySoftmax", jnp.shape(logits)[:-1], entropy_clip=entropy_clip)
        self._entropy_clip = entropy_clip

    def entropy(self) -> jax.Array:
        """Return the clipped entropy in nats."""
        num_legal = jnp.sum(self.logits > -jnp.inf, axis=-1, dtype=self.logits.dtype)
        return jnp.minimum(super().entropy(), self._entropy_clip * jnp.log(num_legal))


class EpsilonGreedy(Categorical):
    """A policy that explores with probability `epsilon` and is greedy otherwise.

    It explores by taking any legal action. Actions that share the largest preference are equally
    likely.

    Args:
      preferences: `[..., A]` preferences, such as action values.
      epsilon: a scalar or `[...]`.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, preferences: ArrayLike, epsilon: ArrayLike, mask: ArrayLike | None = None):
        probs = epsilon_greedy(epsilon).probs(_masked("EpsilonGreedy", preferences, mask))
        # Logits are used because the gradients of distrax's probabilities are NaN at zero.
        super().__init__(jnp.where(probs == 0, -jnp.inf, jnp.log(jnp.where(probs == 0, 1, probs))))


class Greedy(EpsilonGreedy):
    """A policy that takes an action with the largest preference.

    Actions that share the largest preference are equally likely.

    Args:
      preferences: `[..., A]` preferences, such as action values.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, preferences: ArrayLike, mask: ArrayLike | None = None):
        super().__init__(preferences, 0.0, mask)


class MultiCategorical(_Broadcasting, distrax.Independent):
    """D independent choices, for actions `[..., D]` of a `MultiDiscrete` space.

    Args:
      logits: `[..., sum(num_values)]` logits of all choices, concatenated.
      num_values: D Python integers, the number of values of each choice.
      mask: array of the shape of `logits`, True where a value is legal.
    """

    def __init__(self, logits: ArrayLike, num_values: Sequence[int], mask: ArrayLike | None = None):
        num_values = [int(n) for n in num_values]
        if jnp.shape(logits)[-1:] != (sum(num_values),):
            raise ShapeError(
                f"MultiCategorical: 'logits' must have {sum(num_values)} values on the last axis, "
                f"the sum of {num_values}, but has shape {jnp.shape(logits)}."
            )
        # Choice d begins where the values of all earlier choices end.
        starts = [sum(num_values[:d]) for d in range(1, len(num_values))]
        choices = jnp.split(_masked("MultiCategorical", logits, mask), starts, axis=-1)
        # All choices are padded with illegal values to the size of the largest, `[..., D, A]`.
        padded = [_pad_last(choice, max(num_values)) for choice in choices]
        super().__init__(
            distrax.Categorical(logits=jnp.stack(padded, axis=-2)), reinterpreted_batch_ndims=1
        )


class Bernoulli(_Broadcasting, distrax.Independent):
    """N independent bits, for actions `[..., N]` of a `MultiBinary` space.

    Args:
      logits: `[..., N]` logits. A bit is 1 with probability `sigmoid(logits)`.
      mask: `[..., N]`, True where 1 is legal.
    """

    def __init__(self, logits: ArrayLike, mask: ArrayLike | None = None):
        logits = _masked("Bernoulli", logits, mask)
        # A choice of two values, because the gradients of distrax's Bernoulli are NaN where a logit
        # is -inf.
        super().__init__(
            distrax.Categorical(logits=jnp.stack([jnp.zeros_like(logits), logits], axis=-1)),
            reinterpreted_batch_ndims=1,
        )


class DiagonalGaussian(_Broadcasting, distrax.Independent):
    """A Gaussian with independent dimensions, `N(mean, diag(std^2))`.

    Args:
      mean: `[..., D]` means.
      std: standard deviation, `[..., D]`, `[D]` or a scalar.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        self.loc, self.scale = _mean_and_std("DiagonalGaussian", mean, std)
        super().__init__(distrax.Normal(self.loc, self.scale), reinterpreted_batch_ndims=1)

    def kl_divergence(self, other_dist: distrax.Distribution, **kwargs):
        """Return the KL divergence to `other_dist`.

        It is precise for another `DiagonalGaussian` that is nearly the same.
        """
        if not isinstance(other_dist, DiagonalGaussian):
            return super().kl_divergence(other_dist, **kwargs)
        return multivariate_normal_kl_divergence(
            self.loc, self.scale, other_dist.loc, other_dist.scale
        )


class TanhGaussian(distrax.Distribution):
    """A Gaussian that tanh squashes into the bounds of a `Box`.

    The action is `low + (high - low) * (tanh(u) + 1) / 2` with `u ~ N(mean, diag(std^2))`. See
    "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
    Actor" by Haarnoja et al. (2018, https://arxiv.org/abs/1801.01290, appendix C).

    `sample_and_log_prob` computes the log-probability from `u` itself, which is precise everywhere.
    The action alone has less precision near a bound, and none at a bound, where `log_prob` uses the
    nearest number inside the bounds instead. If a later update needs a precise log-probability,
    store `u`: sample it from `DiagonalGaussian(mean, std)`, act with `squash(u)`, and use
    `log_prob_pre_tanh(u)`.

    Args:
      mean: `[..., D]` mean of `u`.
      std: standard deviation of `u`, `[..., D]`, `[D]` or a scalar.
      low: smallest action, finite, `[D]` or a scalar.
      high: largest action, finite, `[D]` or a scalar.
    """

    def __init__(
        self, mean: ArrayLike, std: ArrayLike, low: ArrayLike = -1.0, high: ArrayLike = 1.0
    ):
        self.pre_tanh_mean, self.pre_tanh_std = _mean_and_std("TanhGaussian", mean, std)
        for name, bound in (("low", low), ("high", high)):
            if jnp.shape(bound) not in ((), self.event_shape):
                raise ShapeError(
                    f"TanhGaussian: {name!r} must have shape {self.event_shape} or be a scalar, "
                    f"but has {jnp.shape(bound)}."
                )
        if not any(isinstance(bound, Tracer) for bound in (low, high)):
            with jax.ensure_compile_time_eval():
                width = jnp.subtract(high, low)
                if not jnp.all((width > 0) & jnp.isfinite(width)):
                    raise ValueError(
                        f"TanhGaussian: 'low' must be below 'high', and both finite, but they are "
                        f"{low} and {high}."
                    )
        # Both have the shape of the mean, so that `jax.vmap` can return a policy.
        self.low, self.high = (
            jnp.broadcast_to(jnp.asarray(x, self.pre_tanh_mean.dtype), jnp.shape(mean))
            for x in (low, high)
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an action, `(D,)`."""
        return self.pre_tanh_mean.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes of the mean."""
        return self.pre_tanh_mean.shape[:-1]

    def squash(self, u: ArrayLike) -> jax.Array:
        """Return the action for a value before the tanh."""
        return squash(*jnp.broadcast_arrays(u, self.low, self.high))

    def log_prob_pre_tanh(self, u: ArrayLike) -> jax.Array:
        """Return the log-density of the action `squash(u)`."""
        u, mean, std = jnp.broadcast_arrays(u, self.pre_tanh_mean, self.pre_tanh_std)
        return self._log_prob((u - mean) / std, u)

    def log_prob(self, value: ArrayLike) -> jax.Array:
        """Return the log-density of the action `value`.

        An action at or beyond a bound is treated as the nearest number inside the bounds, with
        gradient zero.
        """
        return self.log_prob_pre_tanh(
            unsquash(*jnp.broadcast_arrays(jnp.asarray(value, self.low.dtype), self.low, self.high))
        )

    def mode(self) -> jax.Array:
        """Return the squashed mean, which is the median of each dimension.

        The density itself may be largest at a bound.
        """
        return self.squash(self.pre_tanh_mean)

    def entropy(self) -> jax.Array:
        """Return the entropy in nats, up to rounding errors."""
        mean, std = self.pre_tanh_mean, self.pre_tanh_std
        # E log(1 - tanh(u)^2) = 2 log 2 - 2 E|u| - 2 E log(1 + exp(-2 |u|)). The first expectation
        # has a closed form. The second is computed by quadrature near 0, because its integrand
        # vanishes elsewhere.
        z = jnp.clip(mean / std, -20, 20)
        mean_size = 2 * std * jax.scipy.stats.norm.pdf(z) + mean * jax.lax.erf(z / math.sqrt(2))
        remainder = _half_line(mean, std) + _half_line(-mean, std)
        slope = jnp.log(0.5 * (self.high - self.low)) + 2 * (math.log(2) - mean_size - remainder)
        return jnp.sum(0.5 * math.log(2 * math.pi * math.e) + jnp.log(std) + slope, axis=-1)

    def kl_divergence(self, other_dist: distrax.Distribution, **kwargs):
        """Return the KL divergence to `other_dist`.

        The KL to another `TanhGaussian` is the KL of the Gaussians before the tanh, or NaN if the
        bounds differ.
        """
        if not isinstance(other_dist, TanhGaussian):
            return super().kl_divergence(other_dist, **kwargs)
        kl = multivariate_normal_kl_divergence(
            self.pre_tanh_mean, self.pre_tanh_std, other_dist.pre_tanh_mean, other_dist.pre_tanh_std
        )
        same = jnp.all((self.low == other_dist.low) & (self.high == other_dist.high), axis=-1)
        return jnp.where(same, kl, jnp.nan)

    def _sample_n(self, key, n):
        return self._sample_n_and_log_prob(key, n)[0]

    def _sample_n_and_log_prob(self, key, n):
        noise = jax.random.normal(key, (n, *self.pre_tanh_mean.shape), self.pre_tanh_mean.dtype)
        u = self.pre_tanh_mean[None] + self.pre_tanh_std[None] * noise
        return self.squash(u), self._log_prob(noise, u)

    def _log_prob(self, noise, u):
        noise, u, std, low, high = jnp.broadcast_arrays(
            noise, u, self.pre_tanh_std, self.low, self.high
        )
        log_prob = -0.5 * jnp.square(noise) - 0.5 * math.log(2 * math.pi) - jnp.log(std)
        return jnp.sum(log_prob - log_slope(u, low, high), axis=-1)


# Fejér's first quadrature rule on [-1, 1] with 32 nodes.
_ANGLES = [(k + 0.5) * math.pi / 32 for k in range(32)]
_NODES = [math.cos(angle) for angle in _ANGLES]
_WEIGHTS = [
    (1 - 2 * sum(math.cos(2 * j * angle) / (4 * j * j - 1) for j in range(1, 17))) / 16
    for angle in _ANGLES
]


def _half_line(mean, std):
    """Return `E[log(1 + exp(-2 u)); u > 0]` for `u ~ N(mean, std^2)`, with an error below 1e-8.

    The quadrature covers the interval in which neither factor of the integrand vanishes.
    """
    # The interval of z = (u - mean) / std, `[..., 1]`, and the nodes in it, `[..., 32]`.
    first, last = (jnp.clip((u - mean) / std, -6, 6)[..., None] for u in (0, 9))
    nodes, weights = (
        jnp.expand_dims(jnp.asarray(x, mean.dtype), range(mean.ndim)) for x in (_NODES, _WEIGHTS)
    )
    z = first + 0.5 * (last - first) * (nodes + 1)
    values = jax.scipy.stats.norm.pdf(z) * jax.nn.softplus(
        -2 * (mean[..., None] + std[..., None] * z)
    )
    return jnp.sum(0.5 * (last - first) * weights * values, axis=-1)


def _masked(name, logits, mask):
    values_of(name, logits=logits)
    (logits,) = floats(logits=logits)
    if mask is None:
        return logits
    values_of(name, logits=logits, mask=mask)
    return jnp.where(mask, logits, -jnp.inf)


def _pad_last(x, size):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])], constant_values=-jnp.inf)


def _mean_and_std(name, mean, std):
    """Check mean and standard deviation, and return them with one dtype and one shape."""
    values_of(name, mean=mean)
    shape = jnp.shape(mean)
    if jnp.shape(std) not in ((), shape[-1:], shape):
        raise ShapeError(
            f"{name}: 'std' must have shape {shape} or {shape[-1:]}, or be a scalar, but has shape "
            f"{jnp.shape(std)}."
        )
    mean, std = floats(mean=mean, std=std)
    return mean, jnp.broadcast_to(std, shape)
