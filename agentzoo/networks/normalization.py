"""Normalisation of observations and rewards by statistics in an agent's state."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agentzoo.core.moving_averages import RewardNormalizer, RunningMeanStd
from agentzoo.elements import zeros
from agentzoo.networks.observations import Numbers, View
from agentzoo.types import Array, PyTree, Trajectory

Statistics = RunningMeanStd | tuple[()]


def init_statistics(space: spaces.Space, view: View) -> Statistics:
    """Return the statistics before the first observation, which normalise nothing.

    The statistics are `()` if the observations have no part that can be normalised.
    """
    numbers, _ = _split(view, zeros(space))
    return _in_32_bits(RunningMeanStd.init(numbers)) if numbers else ()


def update_statistics(view: View, statistics: Statistics, obs: PyTree, mask: Array) -> Statistics:
    """Add observations `[..., *obs]` to the statistics, except those whose mask `[...]` is 0."""
    if not isinstance(statistics, RunningMeanStd):
        return statistics
    return statistics.update(_split(view, obs)[0], mask)


def normalize(view: View, statistics: Statistics, obs: PyTree, clip: float = 10.0) -> PyTree:
    """Normalise each number of a Box that is not an image to mean 0 and variance 1.

    Args:
      view: how a network takes observations, from `make_view`.
      statistics: the statistics of earlier observations. `()` leaves observations unchanged.
      obs: observations `[..., *obs]`.
      clip: the largest absolute value of a normalised number.
    """
    if not isinstance(statistics, RunningMeanStd):
        return obs
    numbers, others = _split(view, obs)
    numbers = iter(statistics.normalize(numbers, clip))
    return jax.tree.map(
        lambda other: next(numbers) if other is None else other,
        others,
        is_leaf=lambda leaf: leaf is None,
    )


def init_reward_normalizer(num_envs: int) -> RewardNormalizer:
    """Return the statistics before the first reward, which scale nothing."""
    return _in_32_bits(RewardNormalizer.init(num_envs))


def normalize_rewards(
    normalizer: RewardNormalizer, trajectory: Trajectory, gamma: float
) -> tuple[RewardNormalizer, Trajectory]:
    """Normalise the rewards of a trajectory `[T, N]` by statistics that include these rewards.

    Returns:
      The new statistics, and the trajectory with normalised rewards.
    """
    # Environments may have begun new episodes since the last trajectory, so their running returns
    # [N] start from 0 again. A step that never happened breaks an episode off, too.
    mask = jnp.asarray(trajectory.mask, bool)
    normalizer = normalizer._replace(
        returns=jnp.where(trajectory.first_tm1[0] | ~mask[0], 0.0, normalizer.returns)
    )
    over = jnp.asarray(trajectory.last_t, bool)
    over = over.at[:-1].set(over[:-1] | ~mask[1:])
    normalizer = normalizer.update(trajectory.r_t, over, gamma, mask)
    return normalizer, trajectory._replace(
        r_t=normalizer.normalize(trajectory.r_t).astype(jnp.float32)
    )


def _in_32_bits(statistics: Any) -> Any:
    """Convert to float32, so that saved files fit whether or not JAX has 64 bits enabled."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), statistics)


def _split(view: View, obs: PyTree) -> tuple[list[Array], PyTree]:
    """Return the leaves to be normalised in order, and the observations with None instead."""
    numbers = []

    def take(part: Any, leaf: Array) -> Array | None:
        if not (isinstance(part, Numbers) and part.is_box):
            return leaf
        numbers.append(jnp.asarray(leaf, jnp.float32))
        return None

    return numbers, jax.tree.map(take, view, obs)
