"""Several agents in compiled environments, trained by one program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.runners.chunks import EpisodeEnds, compile_group_chunk
from agentzoo.runners.device import DeviceRunner
from agentzoo.runners.faults import Faults
from agentzoo.types import PyTree


class GroupRunner(DeviceRunner):
    """Trains S agents that differ in their seeds and in hyperparameters that are numbers.

    States and metrics have a leading axis S, and episodes are a list for each agent.

    Args:
      runners: the agents' own runners, in the same environments.
      labels: what messages call each agent.
    """

    def __init__(self, runners: Sequence[DeviceRunner], labels: Sequence[str]):
        one = runners[0]
        self.env = one.env
        self.num_envs = one.num_envs
        self.mesh = one.mesh
        self.name = one.name
        self.programs = one.programs
        self.rollout_state = None
        self._labels = labels
        self._length = one._length
        self._cycle_steps = one._cycle_steps
        self._cycles = 1
        self._most = max(1, one._most // len(runners))
        numbers = jnp.stack([runner.programs.numbers for runner in runners])  # [S, P]
        self._chunk = compile_group_chunk(self.chunk_spec(self._most)).bind(numbers)
        self._handover = None

    def _episodes(self, ends: EpisodeEnds, cycles: int) -> list[Any]:
        each = zip(*(np.asarray(x) for x in ends), strict=True)
        return [super(GroupRunner, self)._episodes(EpisodeEnds(*one), cycles) for one in each]

    def _describe(self, faults: Faults, params: PyTree, metrics: Any, step: int) -> str | None:
        bad = np.flatnonzero(np.asarray(faults.cycle) >= 0)
        if not bad.size:
            return None
        first = bad[0]
        own = jax.tree.map(lambda x: x[first], (faults, params, metrics))
        own_faults, own_params, own_metrics = own
        message = super()._describe(own_faults, own_params, own_metrics, step)
        return f"{self._labels[first]}: {message}"


@jax.jit
def stack(trees: Sequence[PyTree]) -> PyTree:
    """Return one tree whose arrays have a leading axis, from trees of the same structure."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def unstack(tree: PyTree) -> list[PyTree]:
    """Return the trees that `stack` has put together."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, each) for each in zip(*leaves, strict=True)]
