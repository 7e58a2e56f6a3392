"""The in-process runner: steps Python environments with `act` and hands trajectories to `learn`."""

from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from agentzoo.envs import Envs, make_buffers, spaces
from agentzoo.runners.programs import (
    LIKELY_CAUSES,
    Cycle,
    Episode,
    Programs,
    Runner,
    RunState,
    compile_ahead,
    describe_fault,
)
from agentzoo.types import Agent, Array, InvalidStep, PyTree, TrainingError, Trajectory


class HostRunner(Runner):
    """Trains an agent in Gymnasium environments, whose state cannot be kept.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments, or an actor's share of them.
      actor: which of the actors this is.
      n_actors: how many there are, all with as many environments.
    """

    def __init__(
        self, agent: Agent, programs: Programs, envs: Envs, actor: int = 0, n_actors: int = 1
    ):
        self.agent, self.programs, self.envs, self.actor, self.n_actors = (
            agent,
            programs,
            envs,
            actor,
            n_actors,
        )
        self._obs: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        num_envs = self.envs.spec.num_envs
        self.envs.pop_finals()
        self._obs, self._first = self.envs.reset(seed), np.ones(num_envs, bool)
        self._memory = self.agent.initial_memory(num_envs)
        self._rewards, self._lengths = np.zeros(num_envs), np.zeros(num_envs, int)

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each cycle, whatever `next_stop` asks for."""
        if not self.continues:
            self.reset()
        compiled = compile_ahead(self.agent, self.programs, run, self.envs.spec)
        while run.step < total:
            if self.envs.disturbed:  # by a callback
                self.reset()
            trajectory = self.rollout(
                run.learner_state.params, run.key, run.step, run.act_calls, total
            )
            compiled.result()
            steps = int(trajectory.mask.sum())
            step = run.step + steps
            numbers = np.array([step, steps, total], np.int32)
            state, metrics, finite = self.programs.learn(run.learner_state, trajectory, numbers)
            run = RunState(state, run.key, step, run.act_calls + self.agent.unroll_length)
            fault = None if finite else describe_fault(state.params, metrics, step)
            yield Cycle(run, self.finished_episodes(trajectory), metrics, fault)

    @property
    def continues(self) -> bool:
        """Whether the environments stand where the last rollout has left them."""
        return self._obs is not None and not self.envs.disturbed

    def infos(self) -> list[dict[str, Any]]:
        """Returns the `info` of each environment's newest step."""
        return self.envs.infos()

    def rollout(
        self, params: PyTree, key: Array, step: int, act_calls: int, total: int
    ) -> Trajectory:
        """Takes T steps in N environments, from where `step` steps and `act_calls` calls of `act` have been made by all actors together."""
        length, num_envs = self.agent.unroll_length, self.envs.spec.num_envs
        out = make_buffers(
            self.envs.spec, length
        )  # new ones each time, since JAX may read them while we go on
        obs, first, first_memory, extras = self._obs, self._first, None, []
        self._obs = None  # until the rollout is complete: if an environment fails, the next run begins new episodes
        spaces.write(self.envs.spec.observation_space, out.obs_tm1, 0, obs)
        out.first_tm1[0] = first
        act, n_actors = self.programs.act, self.n_actors
        for t in range(length):
            numbers = np.array(
                [
                    step + t * n_actors * num_envs,
                    total,
                    (act_calls + t * n_actors + self.actor) % 2**31,
                ],
                np.int32,
            )
            memory, action, self._memory, extra = act(
                params, self._memory, obs, first, key, numbers
            )
            first_memory = memory if t == 0 else first_memory
            extras.append(extra)
            out.a_tm1[t] = action
            try:
                self.envs.step(out.a_tm1[t], out, t)
            except Exception as error:
                better = self._explain(
                    error, out.a_tm1[t], int(numbers[0]) + (self.actor + 1) * num_envs
                )
                if better is None:
                    raise
                raise better from (None if isinstance(error, InvalidStep) else error)
            obs, first = spaces.at(out.obs_tm1, t + 1), out.first_tm1[t + 1]
        self._obs, self._first = obs, first
        extras = jax.tree.map(lambda *rows: np.stack(rows), *extras)
        obs_tm1, first_tm1 = spaces.at(out.obs_tm1, slice(length)), out.first_tm1[:length]
        return out._replace(
            obs_tm1=obs_tm1, first_tm1=first_tm1, extras=extras, memory=first_memory
        )

    def _explain(self, error: Exception, actions: np.ndarray, step: int) -> Exception | None:
        """Return a better error than the one that the environments raised when they were given these actions."""
        if not (np.isfinite(actions).all() if actions.dtype.kind == "f" else (actions >= 0).all()):
            return TrainingError(
                f"Training ended at step {step} because the policy's outputs are not finite: its actions were "
                f"{actions.tolist()}. {LIKELY_CAUSES}"
            )
        return (
            error.at(self.actor * self.envs.spec.num_envs, step)
            if isinstance(error, InvalidStep)
            else None
        )

    def finished_episodes(self, trajectory: Trajectory) -> list[Episode]:
        """Counts up rewards and lengths, and returns those of the episodes that ended."""
        if not trajectory.last_t.any():  # which is the rule, and fast
            self._rewards = self._rewards + (trajectory.r_t * trajectory.mask).sum(
                axis=0, dtype=float
            )
            self._lengths = self._lengths + trajectory.mask.sum(axis=0)
            return []
        rewards = self._rewards + (trajectory.r_t * trajectory.mask).cumsum(axis=0, dtype=float)
        lengths = self._lengths + trajectory.mask.cumsum(axis=0)
        episodes, infos, offset = [], self.envs.pop_finals(), self.actor * self.envs.spec.num_envs
        for t, n in zip(*(axis.tolist() for axis in trajectory.last_t.nonzero()), strict=True):
            reward, length = float(rewards[t, n]), int(lengths[t, n])
            episodes.append(Episode(reward, length, infos.get((t, n), {}), offset + n))
            rewards[t:, n] -= rewards[t, n].copy()
            lengths[t:, n] -= lengths[t, n].copy()
        self._rewards, self._lengths = rewards[-1], lengths[-1]
        return episodes
