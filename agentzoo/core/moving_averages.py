"""Running statistics of streams: moving averages, and normalisers of observations and rewards.

States are trees of arrays, and the functions that update them are pure, so an agent can keep them
in its own state. Samples may be trees of arrays too. The statistics are kept in float32 or wider
and do not lose digits by cancellation. If a mapped axis is named, they cover all devices.
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
    """The moments of each leaf of a tree.

    Attributes:
      mean: a tree of means.
      variance: a tree of variances.
    """

    mean: Any
    variance: Any


class EmaState(NamedTuple):
    """The state of `create_ema`.

    RLax's `mu` and `nu` are averages of `x` and `x^2` that start at zero. They give no usable
    variance if the mean is large. Here, `mu` and `nu` have no bias towards their start, and `nu` is
    centred.

    Attributes:
      mu: a tree of means.
      nu: a tree of variances.
      decay_product: `decay^n` after n updates.
      rest: a tree of corrections of `mu` that are too small for its precision.
    """

    mu: Any
    nu: Any
    decay_product: ArrayLike
    rest: Any

    def debiased_moments(self) -> EmaMoments:
        """Return the moments so far; zeros before the first update."""
        return EmaMoments(self.mu, self.nu)


def create_ema(
    decay: ArrayLike = 0.999,
    pmean_axis_name: AxisName = None,
    axis: int | Sequence[int] | None = None,
) -> tuple[Callable[[Any], EmaState], Callable[[Any, EmaState], tuple[EmaMoments, EmaState]]]:
    """Return functions that keep exponential moving averages of the mean and variance of a tree.

    An update multiplies the weight of all earlier samples by `decay`. The weights are divided by
    their sum, so the zeros from before the first update do not count. See "Adam: A Method for
    Stochastic Optimization" by Kingma and Ba (https://arxiv.org/abs/1412.6980, section 3).

    Args:
      decay: scalar in [0, 1).
      pmean_axis_name: a mapped axis, or several, to average over too.
      axis: the axes of each leaf to average over. None averages over all axes, which leaves a
        scalar. `(0, 1)` gives one mean per feature of `[T, B, F]`.

    Returns:
      `init(tree) -> state`, which only reads the shapes of a tree, and
      `update(tree, state) -> (moments, state)`.
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

    def reduced_axes(leaf) -> tuple[int, ...]:
        if axes is None:
            return tuple(range(jnp.ndim(leaf)))
        # The modulus turns a negative axis, which counts from the end, into one from the start.
        return tuple(i % jnp.ndim(leaf) for i in (axes if isinstance(axes, tuple) else (axes,)))

    def move(leaf, mean, rest, variance):
        reduced = reduced_axes(leaf)
        count = all_sum(jnp.size(leaf) // mean.size)  # the elements that each mean averages
        batch = moments(
            leaf, lambda x: all_sum(x / count, reduced), lambda m: jnp.expand_dims(m, reduced)
        )
        return mix(Moments(mean, rest, variance), batch, *weights)

    mean, rest, variance = map_moments(move, tree, state.mu, state.rest, state.nu)
    return EmaState(mean, variance, state.decay_product * decay, rest)


class RunningMeanStd(NamedTuple):
    """Mean and variance of each element over all samples so far, to normalise observations.

    The statistics do not depend on how the samples are divided into batches and over devices, up to
    rounding. See "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" by
    Chan, Golub and LeVeque (1979).

    Attributes:
      count: sum of the weights of all samples.
      mean: a tree of means, each with the shape of one sample.
      variance: a tree of variances, `mean((x - mean(x))^2)`; ones before the first sample.
      rest: a tree of corrections of `mean` that are too small for its precision.
    """

    count: jax.Array
    mean: Any
    variance: Any
    rest: Any

    @classmethod
    def init(cls, example: Any) -> "RunningMeanStd":
        """Return the statistics of no samples, which normalise by doing nothing.

        Args:
          example: one sample, a tree of arrays. Only its shapes are read.
        """
        zeros = _zeros(example, axes=())
        return cls(jnp.zeros(()), zeros, jax.tree.map(jnp.ones_like, zeros), zeros)

    def update(
        self, x: Any, weights: ArrayLike | None = None, axis_name: AxisName = None
    ) -> "RunningMeanStd":
        """Return the statistics with more samples.

        Args:
          x: samples, a tree of `[..., *sample]` with any leading axes.
          weights: `[...]` the weight of each sample, or a mask; ones if None. A sample of weight 0
            may hold any values, including NaN.
          axis_name: a mapped axis, or several, over which the samples are divided.

        Returns:
          Statistics that are the same on all devices, if they were the same before.

        Raises:
          ShapeError: if the shapes are incompatible.
        """
        return _update(self, x, weights, hashable(axis_name))

    def merge(self, other: "RunningMeanStd") -> "RunningMeanStd":
        """Return the statistics of these samples and the samples of `other` together."""
        return _merge(self, other)

    def normalize(self, x: Any, clip: ArrayLike = 10.0, epsilon: ArrayLike = 1e-8) -> Any:
        """Normalise `x`: `(x - mean) / sqrt(variance + epsilon)`, clipped to `[-clip, clip]`.

        Args:
          x: a tree of `[..., *sample]` with any leading axes.
          clip: scalar limit of the result; `inf` for no limit.
          epsilon: scalar that keeps the result small where the variance is zero.

        Returns:
          A tree of floats with the same shapes.

        Raises:
          ShapeError: if the shapes do not match the samples.
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
        def like_leaf(statistic):
            return jnp.broadcast_to(statistic, jnp.shape(leaf))

        mean, rest = like_leaf(mean), like_leaf(rest)
        scale = like_leaf(jax.lax.rsqrt(variance + epsilon))
        return jnp.clip(((leaf - mean) - rest) * scale, jnp.negative(clip), clip)

    return jax.tree.map(normalized, x, state.mean, state.rest, state.variance)


def _leading_axes(method: str, x: Any, state: RunningMeanStd) -> tuple[int, ...]:
    """Return the axes in front of the axes of a sample, which all leaves of `x` share."""
    if jax.tree.structure(x) != jax.tree.structure(state.mean):
        raise ShapeError(
            f"RunningMeanStd.{method}: 'x' has the structure {jax.tree.structure(x)}. Pass a tree "
            f"with the structure {jax.tree.structure(state.mean)}."
        )
    found = set()
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for (path, leaf), mean in zip(leaves, jax.tree.leaves(state.mean), strict=True):
        split = jnp.ndim(leaf) - jnp.ndim(mean)  # the number of leading axes
        if split < 0 or jnp.shape(leaf)[split:] != jnp.shape(mean):
            raise ShapeError(
                f"RunningMeanStd.{method}: 'x{jax.tree_util.keystr(path)}' has shape "
                f"{jnp.shape(leaf)}. Pass an array whose last axes have the shape of a sample, "
                f"{jnp.shape(mean)}."
            )
        found.add(jnp.shape(leaf)[:split])
    if len(found) > 1:
        raise ShapeError(
            f"RunningMeanStd.{method}: the arrays of 'x' have different leading axes, "
            f"{sorted(found)}. Pass arrays that share their leading axes."
        )
    return found.pop()


class RewardNormalizer(NamedTuple):
    """Scales rewards so that returns have a standard deviation of about one.

    Rewards are divided by the running standard deviation of their discounted sum,
    `g_t = r_t + gamma * g_tm1`, which starts at zero in each episode. Unlike a return, it sums past
    rewards. See "Implementation Matters in Deep Policy Gradients" by Engstrom et al.
    (https://arxiv.org/abs/2005.12729, algorithm 1).

    Attributes:
      returns: `[...]` the sum in each environment; zero where an episode is about to start.
      statistics: statistics of all sums so far.
    """

    returns: jax.Array
    statistics: RunningMeanStd

    @classmethod
    def init(cls, shape: int | Sequence[int] = ()) -> "RewardNormalizer":
        """Return the statistics of no rewards, which normalise by doing nothing.

        Args:
          shape: the shape of the rewards of one step: the number of environments, or `()` for one.
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
        """Return the statistics with more steps.

        Args:
          r_t: `[T, ...]` rewards, which continue where the last update ended.
          last_t: `[T, ...]` true where the step ends an episode, by termination or by truncation.
          gamma: scalar discount per step.
          mask: `[T, ...]` true where the step happened; every step if None.
          axis_name: a mapped axis, or several, over which the environments are divided.

        Returns:
          A state whose `statistics` are the same on all devices, if they were the same before.

        Raises:
          ShapeError: if the shapes are incompatible.
        """
        return _update_rewards(self, r_t, last_t, gamma, mask, hashable(axis_name))

    def normalize(
        self, r_t: ArrayLike, clip: ArrayLike = 10.0, epsilon: ArrayLike = 1e-8
    ) -> jax.Array:
        """Scale rewards: `r_t / sqrt(variance + epsilon)`, clipped to `[-clip, clip]`.

        The mean is not subtracted, because it shows how good the policy is.

        Args:
          r_t: rewards of any shape.
          clip: scalar limit of the result; `inf` for no limit.
          epsilon: scalar that keeps the result small where the variance is zero.

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
            f"RewardNormalizer.update: 'r_t' has shape {r_t.shape}. Pass an array of shape "
            f"[T{''.join(f', {n}' for n in state.returns.shape)}]."
        )
    same_shape("RewardNormalizer.update", r_t.shape, last_t=last_t, mask=happened)
    same_shape("RewardNormalizer.update", (), gamma=gamma)
    last_t, happened = (
        jnp.broadcast_to(x, r_t.shape) for x in (jnp.asarray(last_t, bool), happened)
    )

    def carry(g_t, r, last, real):
        """Return the sum that the next step continues: 0 after the end of an episode."""
        return jnp.where(real, jnp.where(last, 0, r + gamma * g_t), g_t).astype(r_t.dtype)

    carried = recurrence(
        carry, state.returns.astype(r_t.dtype), r_t, last_t, happened, reverse=False
    )
    # Step t continues what step t - 1 carried, and the first step what the last update carried.
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
    """Return zeros with the shapes of the means over the given axes of each leaf."""
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree
    )
    means = jax.eval_shape(
        lambda tree: jax.tree.map(lambda leaf: jnp.mean(at_least_float32(leaf), axes), tree), shapes
    )
    return jax.tree.map(lambda mean: jnp.zeros(mean.shape, mean.dtype), means)
