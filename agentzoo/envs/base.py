"""The interface of environments that a runner steps, and trajectories of their steps.

`GymEnvs`, `VectorEnvs` and `SharedEnvs` implement the interface for different environments.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from agentzoo.envs import spaces
from agentzoo.envs.episodes import Resumed, Running, Start
from agentzoo.envs.infos import Info
from agentzoo.types import EnvSpec, PyTree, Trajectory


class EnvStep(NamedTuple):
    """The step that N environments took: NumPy arrays `[N, ...]`.

    The arrays are new at each step, and nobody writes to them. Fields with equal values may be the
    same array.

    Attributes:
      obs: observations to act on next. Where an episode ended, this is the first observation of
        the next episode.
      first: bool, whether `obs` is the first observation of an episode.
      successor: the observations that the actions led to, also where an episode ended.
      reward: float32, rewards.
      discount: float32, 0 where the episode terminated and 1 elsewhere.
      last: bool, whether the episode ended, by termination or truncation.
      mask: bool, False for a dummy step, with which a NEXT_STEP vector environment begins an
        episode, and in which an environment that failed is created again. Nothing may count or
        learn from such a step.
      final_infos: by index of the environment, the `info` of each step that ended an episode,
        reduced to plain entries (see `agentzoo.envs.infos.plain`).
    """

    obs: PyTree
    first: np.ndarray
    successor: PyTree
    reward: np.ndarray
    discount: np.ndarray
    last: np.ndarray
    mask: np.ndarray
    final_infos: dict[int, Info]


class Envs(Protocol):
    """N environments that a runner steps together.

    Attributes:
      spec: the spaces and the number of the environments.
    """

    spec: EnvSpec

    @property
    def restarts(self) -> int:
        """How often an environment was created again after it failed."""
        ...

    @property
    def replayable(self) -> str | None:
        """Why running episodes cannot be resumed in new environments, as a sentence.

        None if they can, which requires that the same seed and the same actions lead to the same
        episode.
        """
        ...

    @property
    def starts(self) -> tuple[Start, ...]:
        """How the running episode of each environment began."""
        ...

    @property
    def own_state(self) -> PyTree:
        """The state of the environments, if they can give it; `()` otherwise."""
        ...

    @property
    def disturbed(self) -> bool:
        """Whether another user has reset or stepped the environments since `reset`."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the environments stand where they were left, as far as is known."""
        ...

    def disturb(self) -> None:
        """Record that another user has reset or stepped the environments."""
        ...

    def occupy(self, busy: bool) -> None:
        """Record whether actors in threads are stepping the environments, so that others must not.

        Args:
          busy: True when the actors begin, False when they have stopped.
        """
        ...

    def reset(self, seed: int | None = None, first: int = 0) -> PyTree:
        """Begin new episodes, and return the first observations `[N, ...]`.

        Args:
          seed: the seed of the run. Environment i is seeded with `seed + first + i`, and its later
            episodes have seeds that follow from the three numbers. Without a seed, the random
            number generators of the environments continue.
          first: the index of the first of these environments among those of all actors.

        Raises:
          InvalidStep: if an observation does not belong to the observation space.
          ConfigurationError: if actors in threads are stepping one of the environments.
        """
        ...

    def resume(
        self, seed: int, first: int, running: Sequence[Running], own_state: PyTree
    ) -> Resumed:
        """Bring each environment back to where its episode stood, or else begin a new episode.

        Args:
          seed: the seed of the run.
          first: as in `reset`.
          running: the N episodes.
          own_state: what `own_state` was.

        Raises:
          InvalidStep: as `reset` does.
          ConfigurationError: as `reset` does.
        """
        ...

    def own_state_template(self) -> PyTree:
        """Return a tree with the structure, shapes and dtypes of `own_state`."""
        ...

    def step(self, actions: np.ndarray) -> EnvStep:
        """Take one action in each environment, and begin the next episode where one ends.

        Args:
          actions: `[N, ...]`, elements of the action space.

        Raises:
          InvalidStep: if an environment returns values that cannot be stored without a change; see
            `agentzoo.envs.checking`.
        """
        ...

    def infos(self) -> list[Info]:
        """Return the `info` of each environment's newest step."""
        ...

    def render(self) -> None:
        """Render the environments."""
        ...

    def close(self) -> None:
        """Close the environments."""
        ...


def trajectory_shapes(spec: EnvSpec, length: int) -> Trajectory:
    """Return the shapes and dtypes of trajectories, as `jax.ShapeDtypeStruct`.

    Args:
      spec: the environments.
      length: number of steps, T.

    Returns:
      The fields `[T, N, ...]`. `extras` and `memory`, which depend on the agent, are empty.
    """
    leading = (length, spec.num_envs)
    numbers = jax.ShapeDtypeStruct(leading, np.dtype(np.float32))
    flags = jax.ShapeDtypeStruct(leading, np.dtype(bool))
    obs = spaces.shapes(spec.observation_space, *leading)
    return Trajectory(
        obs_tm1=obs,
        a_tm1=spaces.shapes(spec.action_space, *leading),
        r_t=numbers,
        discount_t=numbers,
        obs_t=obs,
        last_t=flags,
        first_tm1=flags,
        mask=flags,
    )


def stack_rows(rows: Sequence[PyTree]) -> PyTree:
    """Return T trees of arrays `[N, ...]` as one tree of NumPy arrays `[T, N, ...]`.

    A single NumPy array (T = 1) is not copied.
    """
    if not isinstance(rows[0], np.ndarray):
        return jax.tree.map(lambda *each: stack_rows([np.asarray(x) for x in each]), *rows)
    if len(rows) == 1:
        return rows[0][None]
    if rows[0] is rows[-1] and all(row is rows[0] for row in rows):  # flags are often constant
        return np.repeat(rows[0][None], len(rows), axis=0)
    # Joining along N to `[T * N, ...]` is faster than `np.stack`.
    return np.concatenate(rows).reshape(len(rows), *rows[0].shape)


def make_trajectory(
    obs: PyTree, first: np.ndarray, actions: Sequence[np.ndarray], steps: Sequence[EnvStep]
) -> Trajectory:
    """Return T steps of N environments as a trajectory, without `extras` and `memory`.

    Args:
      obs: `[N, ...]`, the observations that the first actions were chosen from.
      first: `[N]`, whether these observations begin an episode.
      actions: T arrays `[N, ...]`, the agent's actions.
      steps: T steps, what the environments returned for these actions.
    """
    # `zip` transposes T steps to one tuple of T arrays for each field. The last step's `obs` and
    # `first` belong to the next trajectory.
    rows: Any = EnvStep._make(zip(*steps, strict=True))
    return Trajectory(
        obs_tm1=stack_rows((obs, *rows.obs[:-1])),
        a_tm1=stack_rows(actions),
        r_t=stack_rows(rows.reward),
        discount_t=stack_rows(rows.discount),
        obs_t=stack_rows(rows.successor),
        last_t=stack_rows(rows.last),
        first_tm1=stack_rows((first, *rows.first[:-1])),
        mask=stack_rows(rows.mask),
    )
