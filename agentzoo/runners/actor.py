"""An actor: steps Python environments with `act`, and records what happens as trajectories."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from agentzoo.envs import Envs, EnvStep, make_trajectory, spaces, stack_rows
from agentzoo.runners.base import Episode
from agentzoo.runners.counters import ActCounters
from agentzoo.runners.faults import LIKELY_CAUSES
from agentzoo.runners.programs import Programs
from agentzoo.types import (
    Agent,
    Array,
    EnvError,
    InvalidStep,
    PyTree,
    TrainingError,
    Trajectory,
)

LONG = 100_000
"""An episode of more steps than this is reported, because it may never end."""


class Rollout(NamedTuple):
    """A trajectory, and the episodes that ended in it.

    Attributes:
      trajectory: the trajectory `[T, N]`.
      episodes: the episodes.
      restarts: how often the actor's environments were made again so far.
    """

    trajectory: Trajectory
    episodes: list[Episode]
    restarts: int = 0


class Actor:
    """Acts in N environments, T steps at a time. Its episodes continue from rollout to rollout.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments, or this actor's share of them.
      index: which of the actors this is.
      n_actors: how many actors there are, all with the same number of environments.
    """

    def __init__(
        self, agent: Agent, programs: Programs, envs: Envs, index: int = 0, n_actors: int = 1
    ):
        self.agent = agent
        self.programs = programs
        self.envs = envs
        self.index = index
        self.n_actors = n_actors
        self._action_dtype = spaces.dtype(envs.spec.action_space)
        self._obs: Any = None
        self._numbers = np.zeros(self.num_envs, int)  # of the running episodes, from 1 on
        self._warned = False  # about an episode that may never end

    @property
    def num_envs(self) -> int:
        """Number of environments in which this actor acts."""
        return self.envs.spec.num_envs

    @property
    def continues(self) -> bool:
        """Whether the environments are where the last rollout left them."""
        return self._obs is not None and not self.envs.disturbed

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes. The seed is the one of all actors together."""
        own_seed = None if seed is None else seed + self.index * self.num_envs
        self._numbers = self._numbers + 1
        self._rewards = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, int)
        try:
            self._obs = self.envs.reset(own_seed)
        except (EnvError, InvalidStep) as error:
            raise self._locate(error, []) from error.__cause__
        self._first = np.ones(self.num_envs, bool)
        self._memory = self.agent.initial_memory(self.num_envs)

    def rollout(self, params: PyTree, key: Array, step: int, act_calls: int, total: int) -> Rollout:
        """Take T steps in each environment.

        Args:
          params: the parameters to act with.
          key: the key of the run.
          step: environment steps of the run so far, by all actors together.
          act_calls: calls of `act` so far, by all actors together.
          total: the step at which the run ends.

        Raises:
          InvalidStep: if an environment returns what its spaces do not allow.
          EnvError: if an environment fails.
          TrainingError: if the policy's actions are not finite.
        """
        trajectory, env_steps = self._act(params, key, step, act_calls, total)
        episodes = self._finished_episodes(trajectory, env_steps)
        return Rollout(trajectory, episodes, self.envs.restarts)

    def _act(
        self, params: PyTree, key: Array, step: int, act_calls: int, total: int
    ) -> tuple[Trajectory, list[EnvStep]]:
        """Act for T steps, and return the trajectory and what the environments returned."""
        first_obs, first_flags = self._obs, self._first
        obs, first = first_obs, first_flags
        # If an environment fails, the next rollout begins new episodes.
        self._obs = None
        first_memory: Any = None
        actions, env_steps, extras = [], [], []
        for t in range(self.agent.unroll_length):
            # All actors take their steps t at the same time, one call of `act` each.
            counters = ActCounters(
                step + t * self.n_actors * self.num_envs,
                total,
                act_calls + t * self.n_actors + self.index,
            )
            memory, action, self._memory, extra = self.programs.act(
                params, self._memory, obs, first, key, counters.pack()
            )
            first_memory = memory if t == 0 else first_memory
            # A copy, so that JAX can use the memory of its array again.
            action = np.array(action, self._action_dtype)
            env_step = self._step(action, counters.step, env_steps)
            actions.append(action)
            env_steps.append(env_step)
            extras.append(extra)
            obs, first = env_step.obs, env_step.first
        self._obs, self._first = obs, first
        trajectory = make_trajectory(first_obs, first_flags, actions, env_steps)
        return trajectory._replace(extras=stack_rows(extras), memory=first_memory), env_steps

    def _step(self, actions: np.ndarray, step: int, before: list[EnvStep]) -> EnvStep:
        """Step the environments with the agent's actions, or raise an error that explains more.

        Args:
          actions: the agent's actions.
          step: environment steps of the run so far.
          before: the steps of this rollout so far.
        """
        try:
            return self.envs.step(spaces.to_elements(self.envs.spec.action_space, actions))
        except Exception as error:
            is_float = actions.dtype.kind == "f"
            if not (np.isfinite(actions).all() if is_float else (actions >= 0).all()):
                raise TrainingError(
                    f"Training ended at step {step + (self.index + 1) * self.num_envs} because the "
                    f"policy's outputs are not finite: its actions were {actions.tolist()}. "
                    f"{LIKELY_CAUSES}"
                ) from error
            if not isinstance(error, EnvError | InvalidStep):
                raise
            raise self._locate(error, before, step) from error.__cause__

    def _locate(
        self, error: EnvError | InvalidStep, before: list[EnvStep], step: int | None = None
    ) -> Exception:
        """Return the error with its place among all environments and in the run.

        Args:
          error: the error of one of this actor's environments.
          before: the steps of this rollout so far.
          step: environment steps of the run so far; None outside of a rollout.
        """
        first_env = self.index * self.num_envs
        # Actor i takes steps i * N + 1 to (i + 1) * N of those that all actors take together.
        step = None if step is None else step + first_env + self.num_envs
        if isinstance(error, InvalidStep):
            return error if step is None else error.at(first_env, step)
        error.step, n = step, error.env
        if n is not None:
            number, length = int(self._numbers[n]), int(self._lengths[n])
            for one in before:
                length += int(one.mask[n])
                if one.last[n] or (length and not one.mask[n]):  # the end, or a restart
                    number, length = number + 1, 0
            error.env = first_env + n
            # A reset in a rollout begins the next episode.
            error.episode = number + (error.in_reset and step is not None)
            error.episode_step = length + 1
        return error

    def _finished_episodes(self, trajectory: Trajectory, env_steps: list[EnvStep]) -> list[Episode]:
        """Add up rewards and lengths, and return the episodes that ended."""
        counted = trajectory.r_t * trajectory.mask
        over = trajectory.last_t | ~trajectory.mask  # [T, N]
        if not over.any():  # the usual case, which is fast
            self._rewards = self._rewards + counted.sum(axis=0, dtype=float)
            self._lengths = self._lengths + trajectory.mask.sum(axis=0)
            if self._lengths.max() > LONG:
                self._warn_of_long_episode()
            return []
        rewards = self._rewards + counted.cumsum(axis=0, dtype=float)  # [T, N]
        lengths = self._lengths + trajectory.mask.cumsum(axis=0)  # [T, N]
        episodes = []
        for t, n in np.argwhere(over).tolist():
            env = self.index * self.num_envs + n
            reward, length = float(rewards[t, n]), int(lengths[t, n])
            if trajectory.last_t[t, n]:
                episodes.append(Episode(reward, length, env_steps[t].final_infos[n], env))
            # A step that never happened follows the end of an episode, or breaks an episode off.
            self._numbers[n] += bool(length)
            # The next episode of this environment counts from here.
            rewards[t:, n] -= rewards[t, n].copy()
            lengths[t:, n] -= lengths[t, n].copy()
        self._rewards, self._lengths = rewards[-1], lengths[-1]
        return episodes

    def _warn_of_long_episode(self) -> None:
        """Warn once that an episode may never end."""
        if self._warned:
            return
        self._warned = True
        env = self.index * self.num_envs + int(self._lengths.argmax())
        warnings.warn(
            f"An episode of environment {env} has more than {LONG:,} steps. If its episodes never "
            "end by themselves, limit them with gymnasium.wrappers.TimeLimit; otherwise no return "
            "is logged.",
            stacklevel=2,
        )


def count_restarts(restarts: Sequence[int]) -> dict[str, float]:
    """Return the entry of the log for environments that were made again, from each actor's number.

    Without any, there is no entry.
    """
    total = sum(restarts)
    return {"env/restarts": float(total)} if total else {}
