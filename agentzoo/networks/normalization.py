"""Normalising observations by statistics that live in an agent's state: those of vectors of numbers, and nothing else."""

import jax
from gymnasium import spaces

from agentzoo.core.moving_averages import RunningMeanStd
from agentzoo.networks.encoders import is_image
from agentzoo.types import Array, PyTree, zeros

Statistics = RunningMeanStd | tuple[()]


def init_statistics(space: spaces.Space) -> Statistics:
    """Statistics of no observations, by which normalising changes nothing; `()` if there are no numbers to be normalised."""
    numbers = _split(space, zeros(space))[0]
    return RunningMeanStd.init(numbers) if numbers else ()


def update_statistics(space: spaces.Space, statistics: Statistics, obs: PyTree, mask: Array) -> Statistics:
    """The statistics with more observations `[..., *obs]`, of which those with mask 0 do not count; `()` stays as it is."""
    return statistics.update(_split(space, obs)[0], mask) if isinstance(statistics, RunningMeanStd) else ()


def normalize(space: spaces.Space, statistics: Statistics, obs: PyTree, clip: float = 10.0) -> PyTree:
    """Observations with each number of a Box that is no image at mean 0 and variance 1, clipped; as they are if statistics are `()`."""
    if not isinstance(statistics, RunningMeanStd):
        return obs
    numbers, others = _split(space, obs)
    numbers = iter(statistics.normalize(numbers, clip))
    return jax.tree.map(lambda other: next(numbers) if other is None else other, others, is_leaf=lambda leaf: leaf is None)


def _split(space: spaces.Space, obs: PyTree) -> tuple[list[Array], PyTree]:
    """The leaves to be normalised, in order, and the observations with None in their places."""
    numbers = []

    def take(is_number: bool, leaf: Array) -> Array | None:
        return numbers.append(leaf) if is_number else leaf

    return numbers, jax.tree.map(take, _are_numbers(space), obs)


def _are_numbers(space: spaces.Space) -> PyTree:
    if isinstance(space, spaces.Dict):
        return {name: _are_numbers(part) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_are_numbers(part) for part in space)
    return isinstance(space, spaces.Box) and not is_image(space)
