"""Normalisation of observations and rewards by statistics in the state of an agent.

Only the numbers of a Box that is no image are normalised.
"""

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
    """Return statistics of no observations, or `()` if there is nothing to normalise.

    Normalising by statistics of no observations changes nothing.
    """
    numbers, _ = _split(view, zeros(space))
    return _in_32_bits(RunningMeanStd.init(numbers)) if numbers else ()


def update_statistics(view: View, statistics: Statistics, obs: PyTree, mask: Array) -> Statistics:
    """Return the statistics with more observations `[..., *obs]`; mask 0 leaves one out."""
    if not isinstance(statistics, RunningMeanStd):
        return statistics
    return statistics.update(_split(view, obs)[0], mask)


def normalize(view: View, statistics: Statistics, obs: PyTree, clip: float = 10.0) -> PyTree:
    """Return observations with mean 0 and variance 1, clipped, or unchanged without statistics."""
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
    """Return statistics of no rewards. Dividing by them changes nothing."""
    return _in_32_bits(RewardNormalizer.init(num_envs))


def normalize_rewards(
    normalizer: RewardNormalizer, trajectory: Trajectory, gamma: float
) -> tuple[RewardNormalizer, Trajectory]:
    """Normalise the rewards of a trajectory by statistics that include these rewards.

    Args:
      normalizer: the statistics before the trajectory. Environments may have begun new episodes
        since the trajectory before.
      trajectory: `[T, N]`.
      gamma: the discount per step.

    Returns:
      The new statistics, and the trajectory with normalised rewards.
    """
    normalizer = normalizer._replace(
        returns=jnp.where(trajectory.first_tm1[0], 0.0, normalizer.returns)
    )
    normalizer = normalizer.update(trajectory.r_t, trajectory.last_t, gamma, trajectory.mask)
    return normalizer, trajectory._replace(
        r_t=normalizer.normalize(trajectory.r_t).astype(jnp.float32)
    )


def _in_32_bits(statistics: Any) -> Any:
    """Return statistics in float32, so that saved files fit whether or not JAX has 64 bits."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), statistics)


def _split(view: View, obs: PyTree) -> tuple[list[Array], PyTree]:
    """Return the leaves to normalise, in order, and the observations with None in their places."""
    numbers = []

    def take(part: Any, leaf: Array) -> Array | None:
        return (
            numbers.append(jnp.asarray(leaf, jnp.float32))
            if isinstance(part, Numbers) and part.is_box
            else leaf
        )

    return numbers, jax.tree.map(take, view, obs)
