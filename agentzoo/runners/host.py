"""The in-process runner: steps Python environments with `act` and hands trajectories to `learn`."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import Envs, make_buffers, spaces
from agentzoo.types import Agent, Array, Clock, PyTree, Trajectory

# On the CPU, programs run in the thread that calls them: to hand one over to another thread takes longer than `act` itself. It has an
# effect only before JAX runs its first program, and gives way to a user's own setting.
if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
    jax.config.update("jax_cpu_enable_async_dispatch", False)


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
    """What a runner yields after each trajectory, or after several: then the episodes are those of all, and the metrics of the last."""

    run: RunState
    episodes: list[Episode]
    metrics: dict[str, Array]


class Programs(NamedTuple):
    """An agent's functions, compiled to be called from Python."""

    init: Any
    act: Any
    predict: Any
    learn: Any
    queries: dict[str, Any]


def reset_memory(initial_memory: Callable[[int], PyTree], memory: PyTree, first: Array) -> PyTree:
    """Memory `[N, ...]` with that of the beginning where an episode begins."""

    def choose(initial: Array, old: Array) -> Array:
        return jnp.where(first.reshape(first.shape + (1,) * (old.ndim - first.ndim)), initial, old)

    return jax.tree.map(choose, initial_memory(first.shape[0]), memory)


def compile_agent(agent: Agent) -> Programs:
    """Compiles an agent. Memory is reset where an episode begins; learning overwrites the state that it is given.

    Numbers arrive packed in one array, since each argument that is passed to a compiled function costs time.
    """

    def act(params, memory, obs, first, key, numbers):
        step, total, moves = numbers
        memory = reset_memory(agent.initial_memory, memory, first)
        clock = Clock(step, jnp.zeros_like(step), total)
        return memory, *agent.act(params, memory, obs, jax.random.fold_in(key, moves), clock)

    def predict(params, memory, obs, first, key, deterministic):
        return agent.predict(params, reset_memory(agent.initial_memory, memory, first), obs, key, deterministic)

    def learn(state, trajectory, numbers):
        return agent.learn(state, trajectory, Clock(*numbers))

    return Programs(
        init=jax.jit(agent.init),
        act=jax.jit(act),
        predict=jax.jit(predict, static_argnums=5),
        learn=jax.jit(learn, donate_argnums=0),
        queries={name: jax.jit(query) for name, query in agent.queries.items()},
    )


class HostRunner:
    """Trains an agent in Gymnasium environments. It keeps the environments' episodes between runs.

    Attributes:
      worlds, name: None, since the state of a Python environment cannot be kept.
    """

    worlds: Any = None
    name: str | None = None

    def __init__(self, agent: Agent, programs: Programs, envs: Envs):
        self.agent, self.programs, self.envs = agent, programs, envs
        self._obs: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        num_envs = self.envs.spec.num_envs
        self._obs, self._first = self.envs.reset(seed), np.ones(num_envs, bool)
        self._memory = self.agent.initial_memory(num_envs)
        self._rewards, self._lengths = np.zeros(num_envs), np.zeros(num_envs, int)

    def run(self, run: RunState, total: int, pause: Callable[[int], float]) -> Iterator[Cycle]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each cycle, whenever `pause` asks for it."""
        del pause
        if self._obs is None:
            self.reset()
        while run.step < total:
            trajectory = self._rollout(run, total)
            steps = int(trajectory.mask.sum())
            step = run.step + steps
            state, metrics = self.programs.learn(run.agent, trajectory, np.array([step, steps, total], np.int32))
            run = RunState(state, run.key, step, run.moves + self.agent.unroll_length)
            yield Cycle(run, self._finished_episodes(trajectory), metrics)

    def _rollout(self, run: RunState, total: int) -> Trajectory:
        """Takes T steps in N environments."""
        length, num_envs = self.agent.unroll_length, self.envs.spec.num_envs
        out = make_buffers(self.envs.spec, length)  # new ones each time, since JAX may read them while we go on
        obs, first, first_memory, extras = self._obs, self._first, None, []
        self._obs = None  # until the rollout is complete: if an environment fails, the next run begins new episodes
        spaces.write(self.envs.spec.observation_space, out.obs_tm1, 0, obs)
        out.first_tm1[0] = first
        params, act = run.agent.params, self.programs.act
        for t in range(length):
            numbers = np.array([run.step + t * num_envs, total, (run.moves + t) % 2**31], np.int32)
            memory, action, self._memory, extra = act(params, self._memory, obs, first, run.key, numbers)
            first_memory = memory if t == 0 else first_memory
            extras.append(extra)
            out.a_tm1[t] = action
            self.envs.step(out.a_tm1[t], out, t)
            obs, first = spaces.at(out.obs_tm1, t + 1), out.first_tm1[t + 1]
        self._obs, self._first = obs, first
        extras = jax.tree.map(lambda *rows: np.stack(rows), *extras)
        obs_tm1, first_tm1 = spaces.at(out.obs_tm1, slice(length)), out.first_tm1[:length]
        return out._replace(obs_tm1=obs_tm1, first_tm1=first_tm1, extras=extras, memory=first_memory)

    def _finished_episodes(self, trajectory: Trajectory) -> list[Episode]:
        """Counts up rewards and lengths, and returns those of the episodes that ended."""
        rewards = self._rewards + (trajectory.r_t * trajectory.mask).cumsum(axis=0, dtype=float)
        lengths = self._lengths + trajectory.mask.cumsum(axis=0)
        episodes = []
        for t, n in zip(*trajectory.last_t.nonzero(), strict=True):
            episodes.append(Episode(float(rewards[t, n]), int(lengths[t, n])))
            rewards[t:, n] -= rewards[t, n].copy()
            lengths[t:, n] -= lengths[t, n].copy()
        self._rewards, self._lengths = rewards[-1], lengths[-1]
        return episodes
