"""An actor: steps Python environments with `act`, and records what happens as trajectories."""

from typing import Any, NamedTuple

import numpy as np

from agentzoo.envs import Envs, EnvStep, make_trajectory, spaces, stack_rows
from agentzoo.runners.base import Episode
from agentzoo.runners.counters import ActCounters
from agentzoo.runners.faults import LIKELY_CAUSES
from agentzoo.runners.programs import Programs
from agentzoo.types import Agent, Array, InvalidStep, PyTree, TrainingError, Trajectory


class Rollout(NamedTuple):
    """A trajectory, and the episodes that ended in it."""

    trajectory: Trajectory
    episodes: list[Episode]


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
        self._obs = self.envs.reset(own_seed)
        self._first = np.ones(self.num_envs, bool)
        self._memory = self.agent.initial_memory(self.num_envs)
        self._rewards = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, int)

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
          TrainingError: if the policy's actions are not finite.
        """
        trajectory, env_steps = self._act(params, key, step, act_calls, total)
        return Rollout(trajectory, self._finished_episodes(trajectory, env_steps))

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
            env_step = self._step(action, counters.step)
            actions.append(action)
            env_steps.append(env_step)
            extras.append(extra)
            obs, first = env_step.obs, env_step.first
        self._obs, self._first = obs, first
        trajectory = make_trajectory(first_obs, first_flags, actions, env_steps)
        return trajectory._replace(extras=stack_rows(extras), memory=first_memory), env_steps

    def _step(self, actions: np.ndarray, step: int) -> EnvStep:
        """Step the environments with the agent's actions, or raise an error that explains more."""
        try:
            return self.envs.step(spaces.to_elements(self.envs.spec.action_space, actions))
        except Exception as error:
            # Actor i takes steps i * N + 1 to (i + 1) * N of those that all actors take together.
            better = self._explain(error, actions, step + (self.index + 1) * self.num_envs)
            if better is None:
                raise
            raise better from (None if isinstance(error, InvalidStep) else error)

    def _explain(self, error: Exception, actions: np.ndarray, step: int) -> Exception | None:
        """Return a better error than the one that the environments raised, if there is one."""
        is_float = actions.dtype.kind == "f"
        if not (np.isfinite(actions).all() if is_float else (actions >= 0).all()):
            return TrainingError(
                f"Training ended at step {step} because the policy's outputs are not finite: its "
                f"actions were {actions.tolist()}. {LIKELY_CAUSES}"
            )
        if isinstance(error, InvalidStep):
            return error.at(self.index * self.num_envs, step)
        return None

    def _finished_episodes(self, trajectory: Trajectory, env_steps: list[EnvStep]) -> list[Episode]:
        """Add up rewards and lengths, and return the episodes that ended."""
        counted = trajectory.r_t * trajectory.mask
        if not trajectory.last_t.any():  # the usual case, which is fast
            self._rewards = self._rewards + counted.sum(axis=0, dtype=float)
            self._lengths = self._lengths + trajectory.mask.sum(axis=0)
            return []
        rewards = self._rewards + counted.cumsum(axis=0, dtype=float)  # [T, N]
        lengths = self._lengths + trajectory.mask.cumsum(axis=0)  # [T, N]
        episodes = []
        for t, n in np.argwhere(trajectory.last_t).tolist():
            env = self.index * self.num_envs + n
            reward, length = float(rewards[t, n]), int(lengths[t, n])
            episodes.append(Episode(reward, length, env_steps[t].final_infos[n], env))
            # The next episode of this environment counts from here.
            rewards[t:, n] -= rewards[t, n].copy()
            lengths[t:, n] -= lengths[t, n].copy()
        self._rewards, self._lengths = rewards[-1], lengths[-1]
        return episodes
