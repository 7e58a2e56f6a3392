"""The in-process runner: steps Python environments with `act` and hands trajectories to `learn`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from agentzoo.envs import Envs
from agentzoo.types import Agent, Array, Clock, Trajectory


class Episode(NamedTuple):
    """A finished episode."""

    reward: float  # sum of its rewards
    length: int  # its number of steps


class RunState(NamedTuple):
    """All state of a training run as one pytree."""

    agent: Any  # the agent's own state
    key: Array  # randomness of acting
    step: int  # environment steps of this run
    moves: int  # calls of `act` since the agent was made; with the key, it determines the randomness of the next


class Cycle(NamedTuple):
    """What a runner yields after each trajectory."""

    run: RunState
    episodes: list[Episode]
    metrics: dict[str, Array]


class Programs(NamedTuple):
    """An agent's functions, compiled to be called from Python."""

    init: Any
    act: Any
    predict: Any
    learn: Any


def compile_agent(agent: Agent) -> Programs:
    """Compiles an agent. Memory is reset where an episode begins; learning overwrites the state that it is given."""

    def reset(memory, first):
        def choose(initial, old):
            return jax.numpy.where(first.reshape(first.shape + (1,) * (old.ndim - first.ndim)), initial, old)

        return jax.tree.map(choose, agent.initial_memory(first.shape[0]), memory)

    def act(params, memory, obs, first, key, clock, moves):
        memory = reset(memory, first)
        return memory, *agent.act(params, memory, obs, jax.random.fold_in(key, moves), clock)

    def predict(params, memory, obs, first, key, deterministic):
        return agent.predict(params, reset(memory, first), obs, key, deterministic)

    return Programs(
        jax.jit(agent.init), jax.jit(act), jax.jit(predict, static_argnums=5), jax.jit(agent.learn, donate_argnums=0)
    )


class HostRunner:
    """Trains an agent in Gymnasium environments. It keeps the environments' episodes between runs."""

    def __init__(self, agent: Agent, programs: Programs, envs: Envs):
        self.agent, self.programs, self.envs = agent, programs, envs
        self._obs: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        num_envs = self.envs.spec.num_envs
        self._obs, self._first = self.envs.reset(seed), np.ones(num_envs, bool)
        self._memory = self.agent.initial_memory(num_envs)
        self._rewards, self._lengths = np.zeros(num_envs), np.zeros(num_envs, int)

    def run(self, run: RunState, total: int) -> Iterator[Cycle]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each cycle."""
        if self._obs is None:
            self.reset()
        while run.step < total:
            trajectory, episodes, steps = self._rollout(run, total)
            step = run.step + steps
            clock = Clock(np.int32(step), np.int32(steps), np.int32(total))
            state, metrics = self.programs.learn(run.agent, trajectory, clock)
            run = RunState(state, run.key, step, run.moves + self.agent.unroll_length)
            yield Cycle(run, episodes, metrics)

    def _rollout(self, run: RunState, total: int) -> tuple[Trajectory, list[Episode], int]:
        """Takes T steps in N environments."""
        length, params, step = self.agent.unroll_length, run.agent.params, run.step
        buffers, structure, first_memory, episodes = [], None, None, []
        for t in range(length):
            clock = Clock(np.int32(step), np.int32(0), np.int32(total))
            memory, action, self._memory, extras = self.programs.act(
                params, self._memory, self._obs, self._first, run.key, clock, np.uint32(run.moves + t)
            )
            first_memory = memory if t == 0 else first_memory
            action, extras = jax.device_get((action, extras))
            result = self.envs.step(action)
            last = result.terminated | result.truncated
            row = Trajectory(
                obs_tm1=self._obs,
                a_tm1=action,
                r_t=result.r_t,
                discount_t=1.0 - result.terminated,
                obs_t=result.obs_t,
                last_t=last,
                first_tm1=self._first,
                mask=result.mask,
                extras=extras,
            )
            leaves, structure = jax.tree.flatten(row)
            if t == 0:  # New arrays for each trajectory, since JAX may read them while we go on.
                buffers = [np.empty((length, *leaf.shape), np.float32 if leaf.dtype == np.float64 else leaf.dtype) for leaf in leaves]
            for buffer, leaf in zip(buffers, leaves, strict=True):
                buffer[t] = leaf
            step += int(result.mask.sum())
            self._rewards += result.r_t * result.mask
            self._lengths += result.mask
            if last.any():
                for n in np.flatnonzero(last):
                    episodes.append(Episode(float(self._rewards[n]), int(self._lengths[n])))
                self._rewards[last], self._lengths[last] = 0.0, 0
            self._obs, self._first = result.next_obs, result.first
        trajectory: Trajectory = jax.tree.unflatten(structure, buffers)
        return trajectory._replace(memory=first_memory), episodes, step - run.step
