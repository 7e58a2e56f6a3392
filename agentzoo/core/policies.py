"""Policies as distribution objects: what `agentzoo.core.distributions` has as functions, and what it lacks.

Each is a `distrax.Distribution`: `sample(seed=key, sample_shape=())`,
`sample_and_log_prob(seed=key)`, `log_prob(action)`, `entropy()`, `mode()`, `kl_divergence(other)`.
It is a pytree, which `jax.jit` takes and returns. `mode()` is the action to evaluate an agent by.
Parameters are `[..., A]` or `[..., D]`, with any leading axes; what is computed has those, after a
sample's own.

An action is illegal where its logit is -inf or a boolean `mask` is False: it has probability zero,
and entropies, divergences and all gradients stay finite. An impossible action has log-probability
-inf.

Importing this module imports distrax, which takes longer than importing JAX; nothing else in
`agentzoo.core` does.
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
    """distrax broadcasts parameters against several samples, also where `jax_numpy_rank_promotion="raise"` asks that nothing does."""

    def log_prob(self, value):
        """Log-probability, or log-density, of actions `value`."""
        with jax.numpy_rank_promotion("allow"):
            return super().log_prob(value)

    def prob(self, value):
        """Probability, or density, of actions `value`."""
        with jax.numpy_rank_promotion("allow"):
            return super().prob(value)

    def sample_and_log_prob(self, *, seed, sample_shape=()):
        """Samples, drawn with the key `seed`, as many as `sample_shape` has places for; and their log-probabilities."""
        with jax.numpy_rank_promotion("allow"):
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)


class Categorical(_Broadcasting, distrax.Categorical):
    """One of A actions, with probabilities `softmax(logits)`.

    Args:
      logits: `[..., A]`.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, logits: ArrayLike, mask: ArrayLike | None = None):
        super().__init__(logits=_masked("Categorical", logits, mask))


class Softmax(Categorical):
    """One of A actions, with probabilities `softmax(logits / temperature)`.

    Args:
      logits: `[..., A]`.
      temperature: a scalar or `[...]`; towards 0 the policy becomes greedy.
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
    """`Softmax` whose entropy counts only up to `entropy_clip` times the largest possible: above, it has no gradient.

    Args:
      logits: `[..., A]`.
      temperature: a scalar or `[...]`.
      entropy_clip: the part of the logarithm of the number of legal actions at which the entropy is
        cut off, in [0, 1].
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
        """Entropy in nats, clipped."""
        num_legal = jnp.sum(self.logits > -jnp.inf, axis=-1, dtype=self.logits.dtype)
        return jnp.minimum(super().entropy(), self._entropy_clip * jnp.log(num_legal))


class EpsilonGreedy(Categorical):
    """With probability `epsilon` any legal action, otherwise one of largest preference; ties share.

    Args:
      preferences: `[..., A]`, such as action values.
      epsilon: a scalar or `[...]`.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, preferences: ArrayLike, epsilon: ArrayLike, mask: ArrayLike | None = None):
        probs = epsilon_greedy(epsilon).probs(_masked("EpsilonGreedy", preferences, mask))
        # As logits: the gradients of distrax's probabilities are NaN where one is zero.
        super().__init__(jnp.where(probs == 0, -jnp.inf, jnp.log(jnp.where(probs == 0, 1, probs))))


class Greedy(EpsilonGreedy):
    """An action of largest preference; ties share.

    Args:
      preferences: `[..., A]`, such as action values.
      mask: `[..., A]`, True where an action is legal.
    """

    def __init__(self, preferences: ArrayLike, mask: ArrayLike | None = None):
        super().__init__(preferences, 0.0, mask)


class MultiCategorical(_Broadcasting, distrax.Independent):
    """D independent choices, the d-th among `num_values[d]`: actions `[..., D]` of a `MultiDiscrete` space.

    Args:
      logits: `[..., sum(num_values)]`, the choices one after the other.
      num_values: D Python integers.
      mask: of the shape of `logits`, True where a value is legal.
    """

    def __init__(self, logits: ArrayLike, num_values: Sequence[int], mask: ArrayLike | None = None):
        num_values = [int(n) for n in num_values]
        if jnp.shape(logits)[-1:] != (sum(num_values),):
            raise ShapeError(
                f"MultiCategorical: 'logits' must have {sum(num_values)} values on the last axis, the sum of {num_values}, "
                f"but has shape {jnp.shape(logits)}."
            )
        choices = jnp.split(
            _masked("MultiCategorical", logits, mask),
            [sum(num_values[:d]) for d in range(1, len(num_values))],
            axis=-1,
        )
        # Padded to the largest with values that are illegal.
        padded = [_pad_last(choice, max(num_values)) for choice in choices]
        super().__init__(
            distrax.Categorical(logits=jnp.stack(padded, axis=-2)), reinterpreted_batch_ndims=1
        )


class Bernoulli(_Broadcasting, distrax.Independent):
    """N independent bits, each 1 with probability `sigmoid(logits)`: actions `[..., N]` of a `MultiBinary` space.

    Args:
      logits: `[..., N]`.
      mask: `[..., N]`, True where 1 is legal.
    """

    def __init__(self, logits: ArrayLike, mask: ArrayLike | None = None):
        logits = _masked("Bernoulli", logits, mask)
        # As a choice of two: the gradients of distrax's Bernoulli are NaN where a logit is -inf.
        super().__init__(
            distrax.Categorical(logits=jnp.stack([jnp.zeros_like(logits), logits], axis=-1)),
            reinterpreted_batch_ndims=1,
        )


class DiagonalGaussian(_Broadcasting, distrax.Independent):
    """A real vector whose dimensions are independent, `N(mean, diag(std^2))`.

    Args:
      mean: `[..., D]`.
      std: standard deviation: `[..., D]`, `[D]` or a scalar.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        self.loc, self.scale = _mean_and_std("DiagonalGaussian", mean, std)
        super().__init__(distrax.Normal(self.loc, self.scale), reinterpreted_batch_ndims=1)

    def kl_divergence(self, other_dist: distrax.Distribution, **kwargs):
        """KL divergence to `other_dist`; to a `DiagonalGaussian`, without loss of digits where the two are nearly the same."""
        if not isinstance(other_dist, DiagonalGaussian):
            return super().kl_divergence(other_dist, **kwargs)
        return multivariate_normal_kl_divergence(
            self.loc, self.scale, other_dist.loc, other_dist.scale
        )


class TanhGaussian(distrax.Distribution):
    """A Gaussian squashed into the bounds of a `Box`, `low + (high - low) * (tanh(u) + 1) / 2` with `u ~ N(mean, diag(std^2))`.

    See "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
    Actor" by Haarnoja et al. (2018, https://arxiv.org/abs/1801.01290, appendix C).

    `sample_and_log_prob` computes the log-probability from `u` itself, where it is accurate
    everywhere. From the action alone, digits are lost near a bound, and at a bound all of them:
    `log_prob` counts such an action as the nearest number inside. To learn later from an action of
    which the log-probability matters, store `u`: draw it from `DiagonalGaussian(mean, std)`, act by
    `squash(u)`, and use `log_prob_pre_tanh(u)`.

    Args:
      mean: `[..., D]`, of `u`.
      std: standard deviation of `u`: `[..., D]`, `[D]` or a scalar.
      low: smallest action, finite: `[D]` or a scalar.
      high: largest action.
    """

    def __init__(
        self, mean: ArrayLike, std: ArrayLike, low: ArrayLike = -1.0, high: ArrayLike = 1.0
    ):
        self.pre_tanh_mean, self.pre_tanh_std = _mean_and_std("TanhGaussian", mean, std)
        for name, bound in (("low", low), ("high", high)):
            if jnp.shape(bound) not in ((), self.event_shape):
                raise ShapeError(
                    f"TanhGaussian: {name!r} must have shape {self.event_shape} or be a scalar, but has {jnp.shape(bound)}."
                )
        if not any(isinstance(bound, Tracer) for bound in (low, high)):
            with jax.ensure_compile_time_eval():
                width = jnp.subtract(high, low)
                if not jnp.all((width > 0) & jnp.isfinite(width)):
                    raise ValueError(
                        f"TanhGaussian: 'low' must be below 'high', and both finite, but they are {low} and {high}."
                    )
        # In the shape of the mean, so that `jax.vmap` may return one.
        self.low, self.high = (
            jnp.broadcast_to(jnp.asarray(x, self.pre_tanh_mean.dtype), jnp.shape(mean))
            for x in (low, high)
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """`(D,)`."""
        return self.pre_tanh_mean.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes."""
        return self.pre_tanh_mean.shape[:-1]

    def squash(self, u: ArrayLike) -> jax.Array:
        """The action of a value before the tanh."""
        return squash(*jnp.broadcast_arrays(u, self.low, self.high))

    def log_prob_pre_tanh(self, u: ArrayLike) -> jax.Array:
        """Log-density of the action `squash(u)`."""
        u, mean, std = jnp.broadcast_arrays(u, self.pre_tanh_mean, self.pre_tanh_std)
        return self._log_prob((u - mean) / std, u)

    def log_prob(self, value: ArrayLike) -> jax.Array:
        """Log-density of the action `value`; one at or beyond a bound counts as the nearest number inside, and has gradient zero."""
        return self.log_prob_pre_tanh(
            unsquash(*jnp.broadcast_arrays(jnp.asarray(value, self.low.dtype), self.low, self.high))
        )

    def mode(self) -> jax.Array:
        """The squashed mean: the median of each dimension.

        The density itself may be largest at a bound.
        """
        return self.squash(self.pre_tanh_mean)

    def entropy(self) -> jax.Array:
        """Entropy in nats, exact but for rounding."""
        mean, std = self.pre_tanh_mean, self.pre_tanh_std
        # E log(1 - tanh(u)^2) = 2 log 2 - 2 E|u| - 2 E log(1 + exp(-2 |u|)): the first expectation
        # has a closed form, and what the other is of vanishes away from 0.
        z = jnp.clip(mean / std, -20, 20)
        mean_size = 2 * std * jax.scipy.stats.norm.pdf(z) + mean * jax.lax.erf(z / math.sqrt(2))
        remainder = _half_line(mean, std) + _half_line(-mean, std)
        slope = jnp.log(0.5 * (self.high - self.low)) + 2 * (math.log(2) - mean_size - remainder)
        return jnp.sum(0.5 * math.log(2 * math.pi * math.e) + jnp.log(std) + slope, axis=-1)

    def kl_divergence(self, other_dist: distrax.Distribution, **kwargs):
        """KL divergence to `other_dist`, a `TanhGaussian`: that before the tanh, which changes nothing. NaN if their bounds differ."""
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


# Fejér's first quadrature rule on [-1, 1].
_ANGLES = [(k + 0.5) * math.pi / 32 for k in range(32)]
_NODES = [math.cos(angle) for angle in _ANGLES]
_WEIGHTS = [
    (1 - 2 * sum(math.cos(2 * j * angle) / (4 * j * j - 1) for j in range(1, 17))) / 16
    for angle in _ANGLES
]


def _half_line(mean, std):
    """`E[log(1 + exp(-2 u)); u > 0]` for `u ~ N(mean, std^2)`, by quadrature where neither factor vanishes; error below 1e-8."""
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
    """The two, checked, in one dtype and one shape."""
    values_of(name, mean=mean)
    shape = jnp.shape(mean)
    if jnp.shape(std) not in ((), shape[-1:], shape):
        raise ShapeError(
            f"{name}: 'std' must have shape {shape} or {shape[-1:]}, or be a scalar, but has shape {jnp.shape(std)}."
        )
    mean, std = floats(mean=mean, std=std)
    return mean, jnp.broadcast_to(std, shape)
