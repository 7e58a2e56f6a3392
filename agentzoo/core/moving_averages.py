"""Running statistics of streams: moving averages, and normalisers of observations and rewards.

States are trees of arrays and functions of them are pure, so that they live in the state of an
agent. Samples may be trees of arrays too. Statistics are kept in float32 or wider, without
cancellation, and with a mapped axis named they are those of all devices together.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._moments import (
    AxisName,
    Moments,
    at_least_float32,
    hashable,
    map_moments,
    mix,
    moments,
)
from agentzoo.core._operator import ShapeError, floats, operator, same_shape
from agentzoo.core._recurrence import recurrence
from agentzoo.core.arrays import AllSum, lhs_broadcast

__all__ = ["EmaMoments", "EmaState", "RewardNormalizer", "RunningMeanStd", "create_ema"]


class EmaMoments(NamedTuple):
    """Moments of each leaf of a tree.

    Attributes:
      mean: a tree of means.
      variance: a tree of variances.
    """

    mean: Any
    variance: Any


class EmaState(NamedTuple):
    """What `create_ema` keeps.

    RLax's `mu` and `nu` are averages of `x` and `x^2` that begin at zero, from which no variance
    can be had where the mean is large. Here both are free of that beginning, and `nu` is centred.

    Attributes:
      mu: a tree of means.
      nu: a tree of variances.
      decay_product: `decay^n` after n updates.
      rest: a tree, what is to be added to `mu` but too small for its precision.
    """

    mu: Any
    nu: Any
    decay_product: ArrayLike
    rest: Any

    def debiased_moments(self) -> EmaMoments:
        """The moments so far; zeros before the first update."""
        return EmaMoments(self.mu, self.nu)


def create_ema(
    decay: float = 0.999, pmean_axis_name: AxisName = None, axis: int | Sequence[int] | None = None
) -> tuple[Callable[[Any], EmaState], Callable[[Any, EmaState], tuple[EmaMoments, EmaState]]]:
    """Exponential moving averages of the mean and the variance of each leaf of a tree.

    An update multiplies the weight of all earlier samples by `decay`. Weights are divided by their
    sum, so that zeros from before the first update count for nothing; see "Adam: A Method for
    Stochastic Optimization" by Kingma and Ba (https://arxiv.org/abs/1412.6980, section 3).

    Args:
      decay: in [0, 1).
      pmean_axis_name: a mapped axis, or several, to average over too.
      axis: of each leaf to average over; None for all, which leaves a scalar. For one mean per
        feature of `[T, B, F]` it is `(0, 1)`.

    Returns:
      `init(tree) -> state`, which reads the shapes of a tree, and `update(tree, state) -> (moments,
      state)`.
    """
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)

    def init(tree: Any) -> EmaState:
        zeros = _zeros(tree, axes)
        return EmaState(zeros, zeros, jnp.ones(()), zeros)

    def update(tree: Any, state: EmaState) -> tuple[EmaMoments, EmaState]:
        state = _update_ema(tree, state, decay, axes, hashable(pmean_axis_name))
        return state.debiased_moments(), state

    return init, update


@operator(static=("axes", "axis_name"))
def _update_ema(
    tree: Any,
    state: EmaState,
    decay: ArrayLike,
    axes: int | tuple[int, ...] | None,
    axis_name: AxisName,
) -> EmaState:
    weights = decay * (1 - state.decay_product), 1 - decay
    all_sum = AllSum(axis_name)

    def move(leaf, mean, rest, variance):
        reduced = (
            range(jnp.ndim(leaf)) if axes is None else axes if isinstance(axes, tuple) else (axes,)
        )
        reduced = tuple(i % jnp.ndim(leaf) for i in reduced)
        count = all_sum(jnp.size(leaf) // mean.size)
        batch = moments(
            leaf, lambda x: all_sum(x / count, reduced), lambda m: jnp.expand_dims(m, reduced)
        )
        return mix(Moments(mean, rest, variance), batch, *weights)

    mean, rest, variance = map_moments(move, tree, state.mu, state.rest, state.nu)
    return EmaState(mean, variance, state.decay_product * decay, rest)


class RunningMeanStd(NamedTuple):
    """Mean and variance of each element over all samples so far, to normalise observations with.

    However the samples are divided into batches and over devices, the statistics are those of all
    of them at once, up to rounding; see "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances" by Chan, Golub and LeVeque (1979).

    Attributes:
      count: sum of the weights of all samples.
      mean: a tree of means, each of the shape of one sample.
      variance: a tree of variances, `mean((x - mean(x))^2)`; ones before the first sample.
      rest: a tree, what is to be added to `mean` but too small for its precision.
    """

    count: jax.Array
    mean: Any
    variance: Any
    rest: Any

    @classmethod
    def init(cls, example: Any) -> "RunningMeanStd":
        """Statistics of no samples; normalising with them changes nothing.

        Args:
          example: one sample, a tree of arrays of which only the shapes are read.
        """
        zeros = _zeros(example, axes=())
        return cls(jnp.zeros(()), zeros, jax.tree.map(jnp.ones_like, zeros), zeros)

    def update(
        self, x: Any, weights: ArrayLike | None = None, axis_name: AxisName = None
    ) -> "RunningMeanStd":
        """The statistics with more samples.

        Args:
          x: samples, a tree of `[..., *sample]` with any leading axes.
          weights: `[...]` the weight of each sample, or a mask; None for ones. Samples of weight 0
            may be anything.
          axis_name: a mapped axis, or several, over which the samples are divided.

        Returns:
          Statistics that are the same on all devices if they were before.

        Raises:
          ShapeError: if the shapes are incompatible.
        """
        return _update(self, x, weights, hashable(axis_name))

    def merge(self, other: "RunningMeanStd") -> "RunningMeanStd":
        """The statistics of the samples of both, these and those of `other`."""
        return _merge(self, other)

    def normalize(self, x: Any, clip: ArrayLike = 10.0, epsilon: ArrayLike = 1e-8) -> Any:
        """`(x - mean) / sqrt(variance + epsilon)`, clipped to `[-clip, clip]`.

        Args:
          x: a tree of `[..., *sample]` with any leading axes.
          clip: `inf` for no limit.
          epsilon: keeps the result small where the variance is zero.

        Returns:
          A tree of floats of the same shapes.

        Raises:
          ShapeError: if the shapes are not those of samples.
        """
        return _normalize(self, x, clip, epsilon)


@operator(static=("axis_name",))
def _update(
    state: RunningMeanStd, x: Any, weights: ArrayLike | None, axis_name: AxisName
) -> RunningMeanStd:
    leading = _leading_axes("update", x, state)
    weights = jnp.ones(()) if weights is None else jnp.asarray(weights, float)
    same_shape("RunningMeanStd.update", leading, weights=weights)
    weights = jnp.broadcast_to(weights, leading)
    all_sum, axes = AllSum(axis_name), tuple(range(len(leading)))
    count = all_sum(weights)
    shares = weights / jnp.where(count == 0, 1, count)

    def mean(x):
        share = lhs_broadcast(shares, x)
        return all_sum(jnp.where(share == 0, 0, share * x), axes)

    batch = map_moments(
        lambda leaf: moments(leaf, mean, lambda m: jnp.broadcast_to(m, jnp.shape(leaf))), x
    )
    return _merge(state, RunningMeanStd(count, batch.mean, batch.variance, batch.rest))


@operator
def _merge(state: RunningMeanStd, other: RunningMeanStd) -> RunningMeanStd:
    def merged(mean, rest, variance, other_mean, other_rest, other_variance):
        old, new = Moments(mean, rest, variance), Moments(other_mean, other_rest, other_variance)
        mixed = mix(old, new, state.count, other.count)
        return jax.tree.map(lambda x, like: x.astype(jnp.result_type(like)), mixed, old)

    mean, rest, variance = map_moments(
        merged, state.mean, state.rest, state.variance, other.mean, other.rest, other.variance
    )
    count = jnp.asarray(state.count + other.count, jnp.result_type(state.count))
    return RunningMeanStd(count, mean, variance, rest)


@operator
def _normalize(state: RunningMeanStd, x: Any, clip: ArrayLike, epsilon: ArrayLike) -> Any:
    _leading_axes("normalize", x, state)
    same_shape("RunningMeanStd.normalize", (), clip=clip, epsilon=epsilon)

    def normalized(leaf, mean, rest, variance):
        mean, rest, scale = (
            jnp.broadcast_to(m, jnp.shape(leaf))
            for m in (mean, rest, jax.lax.rsqrt(variance + epsilon))
        )
        return jnp.clip(((leaf - mean) - rest) * scale, jnp.negative(clip), clip)

    return jax.tree.map(normalized, x, state.mean, state.rest, state.variance)


def _leading_axes(method: str, x: Any, state: RunningMeanStd) -> tuple[int, ...]:
    """The axes in front of those of a sample, which all leaves share."""
    if jax.tree.structure(x) != jax.tree.structure(state.mean):
        raise ShapeError(
            f"RunningMeanStd.{method}: 'x' must be a tree like {jax.tree.structure(state.mean)}, but is {jax.tree.structure(x)}."
        )
    found = set()
    for (path, leaf), mean in zip(
        jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(state.mean), strict=True
    ):
        split = jnp.ndim(leaf) - jnp.ndim(mean)
        if split < 0 or jnp.shape(leaf)[split:] != jnp.shape(mean):
            raise ShapeError(
                f"RunningMeanStd.{method}: 'x{jax.tree_util.keystr(path)}' must have the shape {jnp.shape(mean)} of a sample behind any "
                f"leading axes, but has {jnp.shape(leaf)}."
            )
        found.add(jnp.shape(leaf)[:split])
    if len(found) > 1:
        raise ShapeError(
            f"RunningMeanStd.{method}: the arrays of 'x' must share their leading axes, but have {sorted(found)}."
        )
    return found.pop()


class RewardNormalizer(NamedTuple):
    """Divides rewards by the running standard deviation of their discounted sum, so that returns have a scale of about one.

    The sum is `g_t = r_t + gamma * g_tm1`, from zero at the beginning of an episode: over rewards
    that have been, unlike a return. See "Implementation Matters in Deep Policy Gradients" by
    Engstrom et al. (https://arxiv.org/abs/2005.12729, algorithm 1).

    Attributes:
      returns: `[...]` the sum in each environment, zero where an episode is about to begin.
      statistics: of the sums so far.
    """

    returns: jax.Array
    statistics: RunningMeanStd

    @classmethod
    def init(cls, shape: int | Sequence[int] = ()) -> "RewardNormalizer":
        """Statistics of no rewards; dividing by them changes nothing.

        Args:
          shape: of the rewards of one step: the number of environments, or `()` for one.
        """
        return cls(jnp.zeros(shape), RunningMeanStd.init(0.0))

    def update(
        self,
        r_t: ArrayLike,
        last_t: ArrayLike,
        gamma: ArrayLike,
        mask: ArrayLike | None = None,
        axis_name: AxisName = None,
    ) -> "RewardNormalizer":
        """The statistics with more steps.

        Args:
          r_t: `[T, ...]` rewards, time first, going on where the last update ended.
          last_t: `[T, ...]` true where the episode ended. It may have been terminated or truncated:
            what comes next is another episode.
          gamma: discount per step, a scalar.
          mask: `[T, ...]` false for a step that never happened; None if all did.
          axis_name: a mapped axis, or several, over which environments are divided.

        Returns:
          A state of which `statistics` are the same on all devices, if they were before.

        Raises:
          ShapeError: if the shapes are incompatible.
        """
        return _update_rewards(self, r_t, last_t, gamma, mask, hashable(axis_name))

    def normalize(
        self, r_t: ArrayLike, clip: ArrayLike = 10.0, epsilon: ArrayLike = 1e-8
    ) -> jax.Array:
        """`r_t / sqrt(variance + epsilon)`, clipped to `[-clip, clip]`; the mean stays, as it tells how good a policy is.

        Args:
          r_t: rewards, any shape.
          clip: `inf` for no limit.
          epsilon: keeps the result small where the variance is zero.

        Returns:
          Floats of the same shape.
        """
        return _normalize_rewards(self.statistics.variance, r_t, clip, epsilon)


@operator(static=("axis_name",))
def _update_rewards(
    state: RewardNormalizer,
    r_t: ArrayLike,
    last_t: ArrayLike,
    gamma: ArrayLike,
    mask: ArrayLike | None,
    axis_name: AxisName,
) -> RewardNormalizer:
    r_t, happened = at_least_float32(r_t), jnp.asarray(True if mask is None else mask, bool)
    if r_t.ndim < 1 or r_t.shape[1:] != state.returns.shape:
        raise ShapeError(
            f"RewardNormalizer.update: 'r_t' must have shape [T{''.join(f', {n}' for n in state.returns.shape)}], but has {r_t.shape}."
        )
    same_shape("RewardNormalizer.update", r_t.shape, last_t=last_t, mask=happened)
    same_shape("RewardNormalizer.update", (), gamma=gamma)
    last_t, happened = (
        jnp.broadcast_to(x, r_t.shape) for x in (jnp.asarray(last_t, bool), happened)
    )

    def carry(g_t, r, last, real):  # the sum that the next step adds to
        return jnp.where(real, jnp.where(last, 0, r + gamma * g_t), g_t).astype(r_t.dtype)

    carried = recurrence(
        carry, state.returns.astype(r_t.dtype), r_t, last_t, happened, reverse=False
    )
    g_t = r_t + gamma * jnp.concatenate([state.returns[None], carried[:-1]])
    returns = carried[-1].astype(state.returns.dtype)
    return RewardNormalizer(returns, state.statistics.update(g_t, happened, axis_name))


@operator
def _normalize_rewards(
    variance: jax.Array, r_t: ArrayLike, clip: ArrayLike, epsilon: ArrayLike
) -> jax.Array:
    same_shape("RewardNormalizer.normalize", (), clip=clip, epsilon=epsilon)
    r_t, variance = floats(r_t=r_t, variance=variance)
    return jnp.clip(r_t * jax.lax.rsqrt(variance + epsilon), jnp.negative(clip), clip)


def _zeros(tree: Any, axes: int | tuple[int, ...] | None) -> Any:
    """Zeros of the shapes that means over the axes of each leaf have."""
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree
    )
    means = jax.eval_shape(
        lambda tree: jax.tree.map(lambda leaf: jnp.mean(at_least_float32(leaf), axes), tree), shapes
    )
    return jax.tree.map(lambda mean: jnp.zeros(mean.shape, mean.dtype), means)
