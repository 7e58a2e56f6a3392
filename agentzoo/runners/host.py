"""The in-process runner: steps Python environments with `act` and hands trajectories to `learn`."""

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import Envs, make_buffers, spaces
from agentzoo.types import Agent, Array, Clock, EnvSpec, PyTree, Trajectory

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
    moves: int  # calls of `act` since the agent was made, by all actors; with the key, it determines the randomness of the next


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
    queries: dict[str, Any]


def compile_agent(agent: Agent) -> Programs:
    """Compiles an agent. Memory is reset where an episode begins; learning overwrites the state that it is given.

    Numbers arrive packed in one array, since each argument that is passed to a compiled function costs time.
    """

    def reset(memory, first):
        def choose(initial, old):
            return jnp.where(first.reshape(first.shape + (1,) * (old.ndim - first.ndim)), initial, old)

        return jax.tree.map(choose, agent.initial_memory(first.shape[0]), memory)

    def act(params, memory, obs, first, key, numbers):
        step, total, moves = numbers
        memory = reset(memory, first)
        clock = Clock(step, jnp.zeros_like(step), total)
        return memory, *agent.act(params, memory, obs, jax.random.fold_in(key, moves), clock)

    def predict(params, memory, obs, first, key, deterministic):
        return agent.predict(params, reset(memory, first), obs, key, deterministic)

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

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments, or an actor's share of them.
      actor: which of the actors this is.
      n_actors: how many there are, all with as many environments.
    """

    def __init__(self, agent: Agent, programs: Programs, envs: Envs, actor: int = 0, n_actors: int = 1):
        self.agent, self.programs, self.envs, self.actor, self.n_actors = agent, programs, envs, actor, n_actors
        self._obs: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        num_envs = self.envs.spec.num_envs
        self._obs, self._first = self.envs.reset(seed), np.ones(num_envs, bool)
        self._memory = self.agent.initial_memory(num_envs)
        self._rewards, self._lengths = np.zeros(num_envs), np.zeros(num_envs, int)

    def run(self, run: RunState, total: int) -> Generator[Cycle, None, None]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each cycle."""
        if self._obs is None:
            self.reset()
        with ThreadPoolExecutor(1) as pool:  # compiles `learn` while `act` is compiled and used for the first time
            compiled = pool.submit(compile_learn, self.agent, self.programs, run, self.envs.spec)
            while run.step < total:
                trajectory = self.rollout(run.agent.params, run.key, run.step, run.moves, total)
                compiled.result()
                steps = int(trajectory.mask.sum())
                step = run.step + steps
                state, metrics = self.programs.learn(run.agent, trajectory, np.array([step, steps, total], np.int32))
                run = RunState(state, run.key, step, run.moves + self.agent.unroll_length)
                yield Cycle(run, self.finished_episodes(trajectory), metrics)

    def rollout(self, params: PyTree, key: Array, step: int, moves: int, total: int) -> Trajectory:
        """Takes T steps in N environments, from where `step` steps and `moves` calls of `act` have been made by all actors together."""
        length, num_envs = self.agent.unroll_length, self.envs.spec.num_envs
        out = make_buffers(self.envs.spec, length)  # new ones each time, since JAX may read them while we go on
        obs, first, first_memory, extras = self._obs, self._first, None, []
        self._obs = None  # until the rollout is complete: if an environment fails, the next run begins new episodes
        spaces.write(self.envs.spec.observation_space, out.obs_tm1, 0, obs)
        out.first_tm1[0] = first
        act, n_actors = self.programs.act, self.n_actors
        for t in range(length):
            numbers = np.array([step + t * n_actors * num_envs, total, (moves + t * n_actors + self.actor) % 2**31], np.int32)
            memory, action, self._memory, extra = act(params, self._memory, obs, first, key, numbers)
            first_memory = memory if t == 0 else first_memory
            extras.append(extra)
            out.a_tm1[t] = action
            self.envs.step(out.a_tm1[t], out, t)
            obs, first = spaces.at(out.obs_tm1, t + 1), out.first_tm1[t + 1]
        self._obs, self._first = obs, first
        extras = jax.tree.map(lambda *rows: np.stack(rows), *extras)
        obs_tm1, first_tm1 = spaces.at(out.obs_tm1, slice(length)), out.first_tm1[:length]
        return out._replace(obs_tm1=obs_tm1, first_tm1=first_tm1, extras=extras, memory=first_memory)

    def finished_episodes(self, trajectory: Trajectory) -> list[Episode]:
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


def compile_learn(agent: Agent, programs: Programs, run: RunState, spec: EnvSpec) -> None:
    """Compiles `learn` for trajectories of these environments before there is one."""
    length, num_envs = agent.unroll_length, spec.num_envs
    out, memory = make_buffers(spec, length), agent.initial_memory(num_envs)
    out = out._replace(obs_tm1=spaces.at(out.obs_tm1, slice(length)), first_tm1=out.first_tm1[:length], memory=memory)
    numbers = np.zeros(3, np.int32)
    *_, extras = jax.eval_shape(programs.act, run.agent.params, memory, spaces.at(out.obs_t, 0), out.last_t[0], run.key, numbers)
    extras = jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, *x.shape), x.dtype), extras)
    programs.learn.lower(run.agent, out._replace(extras=extras), numbers).compile()
