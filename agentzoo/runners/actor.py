"""An actor: steps Python environments with `act`, and records what happens as trajectories."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from agentzoo.envs import Envs, EnvStep, episodes, make_trajectory, spaces, stack_rows
from agentzoo.runners.base import Episode
from agentzoo.runners.counters import ActCounters
from agentzoo.runners.faults import LIKELY_CAUSES
from agentzoo.runners.programs import Programs
from agentzoo.types import (
    Agent,
    Array,
    ConfigurationError,
    EnvError,
    InvalidStep,
    PyTree,
    TrainingError,
    Trajectory,
)

LONG = 100_000
"""An episode of more steps than this is reported, because it may never end."""


class Position(NamedTuple):
    """The state of an actor between two rollouts. It is never changed, only replaced.

    Attributes:
      obs: `[N, ...]`, the observations to act on next.
      first: bool `[N]`, whether these observations begin an episode.
      memory: `[N, ...]`, the agent's recurrent state.
      rewards: `[N]`, the sum of the rewards of each running episode.
      lengths: `[N]`, the number of steps of each running episode.
      journal: the actions of the running episodes.
      own_state: the state of the environments, if they can give it.
    """

    obs: PyTree
    first: np.ndarray
    memory: PyTree
    rewards: np.ndarray
    lengths: np.ndarray
    journal: episodes.Journal
    own_state: PyTree


class ActorState(NamedTuple):
    """A position as arrays that can be saved. The names of the fields are part of saved files.

    Attributes:
      obs: as in `Position`.
      first: as in `Position`.
      memory: as in `Position`.
      rewards: as in `Position`.
      lengths: as in `Position`.
      episodes: the running episodes.
      own_state: as in `Position`.
      seed: the seed of the run, as a single uint64.
    """

    obs: PyTree
    first: np.ndarray
    memory: PyTree
    rewards: np.ndarray
    lengths: np.ndarray
    episodes: episodes.EpisodesState
    own_state: PyTree
    seed: np.ndarray

    def check(self) -> None:
        """Raise `ConfigurationError` if no actor can have been in this state."""
        steps, number = self.episodes.steps, self.episodes.number
        possible = (number >= 0).all() and (steps <= episodes.MAX_STEPS).all()
        if not possible or np.maximum(steps, 0).sum() != len(self.episodes.actions):
            raise ConfigurationError(
                f"The saved episodes are damaged: they have {steps.tolist()} steps, but "
                f"{len(self.episodes.actions)} actions. Use an earlier checkpoint."
            )

    def without_episodes(self) -> "ActorState":
        """Return the same state if all running episodes are broken off."""
        steps = np.full_like(self.episodes.steps, episodes.BROKEN_OFF)
        return self._replace(
            episodes=self.episodes._replace(steps=steps, actions=self.episodes.actions[:0])
        )


class Rollout(NamedTuple):
    """A trajectory, the episodes that ended in it, and where the actor stands after it.

    Attributes:
      trajectory: the trajectory `[T, N]`.
      episodes: the episodes.
      restarts: how often the actor's environments were created again so far.
      position: where the actor stands; None if it is in another process.
    """

    trajectory: Trajectory
    episodes: list[Episode]
    restarts: int = 0
    position: Position | None = None


class Actor:
    """Acts in N environments, T steps at a time. Its episodes continue from rollout to rollout.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments, or this actor's share of them.
      index: which of the actors this is.
      n_actors: how many actors there are, all with the same number of environments.

    Attributes:
      position: where the actor stood after the last rollout, or None.
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
        self.position: Position | None = None
        self._seed = 0
        # Whether the environments are where the position says.
        self._stands = False
        # Whether an environment failed, so that its episode must not be tried again.
        self._failed = False
        # Environments that give their state need no journal, and others cannot use one.
        self._has_journal = envs.replayable is None and envs.own_state == ()
        self._numbers = np.zeros(self.num_envs, int)  # of the running episodes, from 1 on
        self._warned = False  # about an episode that may never end

    @property
    def num_envs(self) -> int:
        """Number of environments in which this actor acts."""
        return self.envs.spec.num_envs

    @property
    def continues(self) -> bool:
        """Whether the environments are where the last rollout left them."""
        return self._stands and not self.envs.disturbed and self.envs.alive

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes. The seed is the one of all actors together."""
        self._stands = False
        self._seed = self._seed if seed is None else seed
        self._numbers = self._numbers + 1
        try:
            obs = self.envs.reset(seed, self.index * self.num_envs)
        except (EnvError, InvalidStep) as error:
            raise self._locate(error, []) from error.__cause__
        num = self.num_envs
        self._stand_at(
            Position(
                obs=obs,
                first=np.ones(num, bool),
                memory=self.agent.initial_memory(num),
                rewards=np.zeros(num),
                lengths=np.zeros(num, int),
                journal=episodes.Journal.begin(self.envs.starts),
                own_state=self.envs.own_state,
            )
        )

    def _stand_at(self, position: Position) -> None:
        self.position = position
        self._stands, self._failed = True, False

    def return_to(self, position: Position | None) -> dict[int, str]:
        """Bring the environments to where they were after an earlier rollout.

        New episodes begin in environments that cannot be brought there, and in all environments if
        another user has stepped them, or if one of them has failed.

        Returns:
          Why episodes could not be resumed that should have been, by index of the environment.
        """
        if self.continues and self.position is position:
            return {}
        lost = self._failed or self.envs.disturbed or self.envs.replayable is not None
        if position is None or lost:
            self.reset()
            return {}
        return self.restore(self.to_state(position))

    def to_state(self, position: Position) -> ActorState:
        """Return a position as arrays."""
        journal = position.journal
        if self._failed or self.envs.disturbed:
            journal = journal.break_off()
        shape = spaces.shape(self.envs.spec.action_space)
        return ActorState(
            obs=position.obs,
            first=position.first,
            memory=jax.device_get(position.memory),
            rewards=position.rewards,
            lengths=position.lengths,
            episodes=journal.to_arrays(np.empty((0, *shape), self._action_dtype)),
            own_state=position.own_state,
            seed=np.array(self._seed, np.uint64),
        )

    def state_template(self) -> ActorState:
        """Return an `ActorState` with the shapes and dtypes of this actor's, apart from actions."""
        num = self.num_envs
        starts = [episodes.Start(0, 0)] * num
        position = Position(
            obs=spaces.make_empty(self.envs.spec.observation_space, num)(),
            first=np.ones(num, bool),
            memory=self.agent.initial_memory(num),
            rewards=np.zeros(num),
            lengths=np.zeros(num, int),
            journal=episodes.Journal.begin(starts),
            own_state=self.envs.own_state_template(),
        )
        return self.to_state(position)

    def restore(self, state: ActorState) -> dict[int, str]:
        """Bring the environments to where a state says; see `return_to`."""
        self._stands = False
        self._seed = int(state.seed)
        running = episodes.read(state.episodes, state.obs)
        first = self.index * self.num_envs
        try:
            resumed = self.envs.resume(self._seed, first, running, state.own_state)
        except (EnvError, InvalidStep) as error:
            raise self._locate(error, []) from error.__cause__
        begun = resumed.begun
        self._numbers = np.array([start.number + 1 for start in self.envs.starts])
        self._stand_at(
            Position(
                obs=resumed.obs,
                first=state.first | begun,
                memory=state.memory,  # `act` resets it where an episode begins
                rewards=np.where(begun, 0.0, state.rewards),
                lengths=np.where(begun, 0, state.lengths),
                journal=episodes.Journal.from_running(running, self.envs.starts),
                own_state=self.envs.own_state,
            )
        )
        return {first + n: problem for n, problem in resumed.problems.items()}

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
        assert self.position is not None
        before = self.position
        self._stands = False  # until the rollout is complete
        trajectory, env_steps, memory = self._act(before, params, key, step, act_calls, total)
        ended, rewards, lengths = self._finished_episodes(before, trajectory, env_steps)
        journal = before.journal
        if self._has_journal:
            journal = journal.add(trajectory, self.envs.starts)
        newest = env_steps[-1]
        self._stand_at(
            Position(
                newest.obs, newest.first, memory, rewards, lengths, journal, self.envs.own_state
            )
        )
        return Rollout(trajectory, ended, self.envs.restarts, self.position)

    def _act(
        self, before: Position, params: PyTree, key: Array, step: int, act_calls: int, total: int
    ) -> tuple[Trajectory, list[EnvStep], PyTree]:
        """Act for T steps.

        Returns:
          The trajectory, what the environments returned, and the agent's recurrent state.
        """
        obs, first, last_memory = before.obs, before.first, before.memory
        first_memory: Any = None
        actions, env_steps, extras = [], [], []
        for t in range(self.agent.unroll_length):
            # All actors take their steps t at the same time, one call of `act` each.
            counters = ActCounters(
                step + t * self.n_actors * self.num_envs,
                total,
                act_calls + t * self.n_actors + self.index,
            )
            memory, action, last_memory, extra = self.programs.act(
                params, last_memory, obs, first, key, counters.pack()
            )
            first_memory = memory if t == 0 else first_memory
            # A copy, so that JAX can use the memory of its array again.
            action = np.array(action, self._action_dtype)
            env_step = self._step(action, counters.step, env_steps)
            actions.append(action)
            env_steps.append(env_step)
            extras.append(extra)
            obs, first = env_step.obs, env_step.first
        trajectory = make_trajectory(before.obs, before.first, actions, env_steps)
        trajectory = trajectory._replace(extras=stack_rows(extras), memory=first_memory)
        return trajectory, env_steps, last_memory

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
            self._failed = True
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
            position = self.position if step is not None else None  # None outside of a rollout
            number = int(self._numbers[n])
            length = int(position.lengths[n]) if position is not None else 0
            for one in before:
                length += int(one.mask[n])
                if one.last[n] or (length and not one.mask[n]):  # the end, or a restart
                    number, length = number + 1, 0
            error.env = first_env + n
            # A reset in a rollout begins the next episode.
            error.episode = number + (error.in_reset and step is not None)
            error.episode_step = length + 1
        return error

    def _finished_episodes(
        self, before: Position, trajectory: Trajectory, env_steps: list[EnvStep]
    ) -> tuple[list[Episode], np.ndarray, np.ndarray]:
        """Return the episodes that ended, and the rewards and lengths of running episodes."""
        counted = trajectory.r_t * trajectory.mask
        over = trajectory.last_t | ~trajectory.mask  # [T, N]
        if not over.any():  # the usual case, which is fast
            rewards = before.rewards + counted.sum(axis=0, dtype=float)
            lengths = before.lengths + trajectory.mask.sum(axis=0)
            if lengths.max() > LONG:
                self._warn_of_long_episode(int(lengths.argmax()))
            return [], rewards, lengths
        rewards = before.rewards + counted.cumsum(axis=0, dtype=float)  # [T, N]
        lengths = before.lengths + trajectory.mask.cumsum(axis=0)  # [T, N]
        ended = []
        for t, n in np.argwhere(over).tolist():
            env = self.index * self.num_envs + n
            reward, length = float(rewards[t, n]), int(lengths[t, n])
            if trajectory.last_t[t, n]:
                ended.append(Episode(reward, length, env_steps[t].final_infos[n], env))
            # A step that never happened follows the end of an episode, or breaks an episode off.
            self._numbers[n] += bool(length)
            # The next episode of this environment counts from here.
            rewards[t:, n] -= rewards[t, n].copy()
            lengths[t:, n] -= lengths[t, n].copy()
        return ended, rewards[-1], lengths[-1]

    def _warn_of_long_episode(self, n: int) -> None:
        """Warn once that an episode of environment n may never end."""
        if self._warned:
            return
        self._warned = True
        env = self.index * self.num_envs + n
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
