"""What a replay buffer holds, and how steps are read from it."""

from typing import Any, NamedTuple

import jax

from agentzoo.replay.frames import FrameRings
from agentzoo.types import Array, PyTree, Trajectory


class Replay(NamedTuple):
    """The contents of a buffer with L rows of steps for each of N environments.

    Attributes:
      frames: the rings of frames, or () if observations are stored with their steps.
      storage: steps, with leaves `[L * N, ...]`. If there are rings of frames, `obs_tm1` is (), and
        `obs_t` is the row of the newest frame of the observation.
      cursor: `[N]` the row to be written next.
      size: `[N]` how many rows can be drawn, at most L. They are the rows before the cursor.
      priorities: a sum tree over slots, or () without prioritisation.
      max_priority: the highest priority so far, or () without prioritisation.
    """

    frames: PyTree
    storage: Trajectory
    cursor: Array
    size: Array
    priorities: PyTree
    max_priority: PyTree


class Prioritisation(NamedTuple):
    """Replay in proportion to errors, https://arxiv.org/abs/1511.05952.

    Attributes:
      alpha: transitions are drawn in proportion to `(abs(error) + eps)^alpha`.
      beta0: transitions have the weight `(number of transitions * probability)^-beta`, where beta
        rises from `beta0` to 1 in the course of a run.
      eps: keeps every priority above 0.
    """

    alpha: Any = 0.6
    beta0: Any = 0.4
    eps: Any = 1e-6


class Layout(NamedTuple):
    """What is fixed when a buffer is made.

    Attributes:
      rows: L, the number of rows of each environment.
      num_envs: N, the number of environments.
      step: `[1, ...]` an example of a step as it is stored.
      rings: the rings of frames, or None if observations are stored with their steps.
      prioritisation: how priorities are formed, or None for uniform replay.
      gamma: the discount per step.
      n_step: the number of steps that a transition spans.
    """

    rows: int
    num_envs: int
    step: Trajectory
    rings: FrameRings | None
    prioritisation: Prioritisation | None
    gamma: float | Array
    n_step: int

    def slot(self, row: Array, env: Array) -> Array:
        """Return the slots of rows, which are counted modulo L: row -1 is the last row."""
        return row % self.rows * self.num_envs + env


def read(layout: Layout, replay: Replay, slot: Array) -> Trajectory:
    """Return the steps `[...]` in slots `[...]`, with their observations.

    The replay may belong to a buffer for another number of environments.
    """
    num_envs = len(replay.cursor)
    steps: Trajectory = jax.tree.map(lambda x: x[slot], replay.storage)
    if layout.rings is None:
        return steps
    env = slot % num_envs  # because slot = row * N + env
    # A step adds one frame: the frame before its newest one is the newest frame of `obs_tm1`.
    return steps._replace(
        obs_tm1=layout.rings.read(replay.frames, steps.obs_t - 1, env, num_envs),
        obs_t=layout.rings.read(replay.frames, steps.obs_t, env, num_envs),
    )
