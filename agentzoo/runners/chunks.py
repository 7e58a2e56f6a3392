"""Training cycles in compiled environments: many cycles of acting and learning as one program."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.envs import FunctionalEnv, spaces
from agentzoo.envs.functional import EnvState, advance_all, begin_all
from agentzoo.runners.counters import LIMIT, ActCounters, ChunkCounters, LearnCounters
from agentzoo.runners.faults import Faults, find_fault, no_fault
from agentzoo.runners.kept import kept
from agentzoo.runners.programs import InPlace, MakeAgent, act, learn, reset_memory, with_precision
from agentzoo.sharding import Mesh
from agentzoo.types import Agent, Array, PyTree, Trajectory


class RolloutState(NamedTuple):
    """N environments between two steps.

    Attributes:
      envs: the state of the environments.
      obs: `[N, ...]` the observations to act on next.
      first: `[N]` whether these observations begin an episode.
      memory: `[N, ...]` the agent's recurrent state.
      rewards: `[N]` the sum of the rewards of each running episode.
    """

    envs: EnvState
    obs: PyTree
    first: Array
    memory: PyTree
    rewards: Array


class EpisodeEnds(NamedTuple):
    """Which steps `[..., T, N]` end an episode, with its sum of rewards and its length."""

    last: Array
    reward: Array
    length: Array


class Chunk(NamedTuple):
    """What a chunk of up to C cycles returns.

    Attributes:
      ends: `[C, T, N]` where episodes ended. Rows of cycles that were not run are undefined.
      faults: the first number that was not finite.
      metrics: the metrics of the last cycle, or of the first one that had a fault.
    """

    ends: EpisodeEnds
    faults: Faults
    metrics: Any


class ChunkSpec(NamedTuple):
    """What a compiled chunk depends on besides its arguments.

    Attributes:
      make_agent: makes the agent from the numbers among its hyperparameters.
      unroll_length: T, the steps of a trajectory.
      env: the environment.
      num_envs: N, the number of environments.
      most: the largest number of cycles that a chunk has room for.
      mesh: the devices that share the work; None for one device.
    """

    make_agent: MakeAgent
    unroll_length: int
    env: FunctionalEnv
    num_envs: int
    most: int
    mesh: Mesh | None


@kept
def compile_begin(spec: ChunkSpec) -> Callable[..., RolloutState]:
    """Compile the function `(numbers, keys) -> rollout_state` that begins episodes."""

    def begin(numbers: Array, keys: Array) -> RolloutState:
        envs, obs = begin_all(spec.env, keys)
        memory = spec.make_agent(numbers).initial_memory(spec.num_envs)
        first, rewards = jnp.ones(spec.num_envs, bool), jnp.zeros(spec.num_envs)
        return RolloutState(envs, obs, first, memory, rewards)

    return jax.jit(begin)


@kept
def compile_chunk(spec: ChunkSpec) -> InPlace:
    """Compile the function of `make_chunk`."""
    return InPlace(with_precision(make_chunk(spec)), overwritten=1)


@kept
def compile_group_chunk(spec: ChunkSpec) -> InPlace:
    """Compile the function of `make_chunk` for several agents, with a leading axis of agents.

    All arguments but the counters have that axis.
    """
    chunk = jax.vmap(make_chunk(spec), in_axes=(0, 0, 0, 0, None))
    return InPlace(with_precision(chunk), overwritten=1)


def make_chunk(spec: ChunkSpec) -> Callable[..., tuple[tuple[Any, RolloutState], Chunk]]:
    """Make `(numbers, state, rollout_state, key, counters) -> (state, rollout_state), chunk`.

    The counters are packed `ChunkCounters`.
    """
    length, num_envs = spec.unroll_length, spec.num_envs
    cycle_steps = length * num_envs

    def cycle(
        agent: Agent, state: Any, rollout_state: RolloutState, key: Array, now: ChunkCounters
    ) -> tuple[Any, RolloutState, Chunk]:
        """Act for T steps and learn from them."""
        rollout_state, trajectory, ends = rollout(
            spec, agent, state.params, rollout_state, key, now
        )
        trajectory, faults = find_fault(trajectory)
        counters = LearnCounters(now.step + cycle_steps, jnp.int32(cycle_steps), now.total)
        state, metrics, finite = learn(agent, spec.mesh, state, trajectory, counters)
        faults = faults._replace(
            cycle=jnp.where(finite, faults.cycle, 0),
            kind=jnp.where(faults.cycle < 0, 0, faults.kind),
        )
        return state, rollout_state, Chunk(ends, faults, metrics)

    def chunk(
        numbers: Array, state: Any, rollout_state: RolloutState, key: Array, packed: Array
    ) -> tuple[tuple[Any, RolloutState], Chunk]:
        agent, counters = spec.make_agent(numbers), ChunkCounters.unpack(packed)

        def one(i: Array, carry: Any) -> Any:
            (state, rollout_state), before = carry
            now = counters._replace(
                step=counters.step + i * cycle_steps, act_calls=counters.act_calls + i * length
            )
            state, rollout_state, new = cycle(agent, state, rollout_state, key, now)
            ends = jax.tree.map(lambda rows, row: rows.at[i].set(row), before.ends, new.ends)
            found = new.faults._replace(cycle=jnp.where(new.faults.cycle < 0, -1, i))

            def choose(old: Array, x: Array) -> Array:
                """Keep what belongs to the first fault."""
                return jnp.where(before.faults.cycle < 0, x, old)

            faults = jax.tree.map(choose, before.faults, found)
            metrics = jax.tree.map(choose, before.metrics, new.metrics)
            return (state, rollout_state), Chunk(ends, faults, metrics)

        run_cycle = functools.partial(cycle, agent)
        *_, shapes = jax.eval_shape(run_cycle, state, rollout_state, key, counters)
        ends = jax.tree.map(lambda x: jnp.zeros((spec.most, *x.shape), x.dtype), shapes.ends)
        metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.metrics)
        start = (state, rollout_state), Chunk(ends, no_fault(), metrics)
        return jax.lax.fori_loop(0, counters.cycles, one, start)

    return chunk


def rollout(
    spec: ChunkSpec,
    agent: Agent,
    params: PyTree,
    start: RolloutState,
    key: Array,
    now: ChunkCounters,
) -> tuple[RolloutState, Trajectory, EpisodeEnds]:
    """Act for T steps in N environments, inside of a compiled function.

    The random numbers are the ones that an actor of the host runner uses.
    """
    env, num_envs = spec.env, spec.num_envs
    dtype = spaces.dtype(env.action_space)

    def move(before: RolloutState, t: Array) -> tuple[RolloutState, tuple[Trajectory, EpisodeEnds]]:
        # `LIMIT - 1` is 31 ones in binary, so the mask is the remainder of a division by `LIMIT`.
        act_calls = (now.act_calls + t) & (LIMIT - 1)
        counters = ActCounters(now.step + t * num_envs, now.total, act_calls)
        _, action, memory, extras = act(
            agent, params, before.memory, before.obs, before.first, key, counters
        )
        a_tm1 = action.astype(dtype)
        envs, obs, step = advance_all(env, before.envs, spaces.to_elements(env.action_space, a_tm1))
        obs_t, r_t, terminated, truncated = step
        last_t, rewards = terminated | truncated, before.rewards + r_t
        row = Trajectory(
            obs_tm1=before.obs,
            a_tm1=a_tm1,
            r_t=r_t,
            discount_t=1.0 - terminated.astype(jnp.float32),
            obs_t=obs_t,
            last_t=last_t,
            first_tm1=before.first,
            mask=(),
            extras=extras,
        )
        after = RolloutState(envs, obs, last_t, memory, jnp.where(last_t, 0.0, rewards))
        return after, (row, EpisodeEnds(last_t, rewards, before.envs.t + 1))

    memory = reset_memory(agent.initial_memory, start.memory, start.first)
    steps = jnp.arange(spec.unroll_length, dtype=jnp.int32)
    end, (trajectory, ends) = jax.lax.scan(move, start, steps)
    mask = jnp.ones((spec.unroll_length, num_envs), bool)
    return end, trajectory._replace(mask=mask, memory=memory), ends
