"""The on-device runner: many cycles of acting in functional environments and learning, as one compiled program.

It does what the in-process runner does, with the same random numbers: a trajectory of T steps, then `learn`, then the next. Python comes
into it only between chunks of cycles. Where a chunk ends makes no difference to what is learned.
"""

import functools
import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import Envs, FunctionalEnv, spaces
from agentzoo.envs.functional import World, advance_all, begin_all
from agentzoo.envs.functional_gym import draw_keys
from agentzoo.runners.programs import Cycle, Episode, Programs, Runner, RunState, compile_agent, reset_memory
from agentzoo.sharding import Mesh, collect, of_first_host, spread
from agentzoo.types import Agent, Array, PyTree, Trajectory

# A chunk grows while it takes less than the first number of seconds, and shrinks if it takes more than the second.
_SECONDS = (0.1, 0.4)
# Steps of a chunk, over all environments, that there is room for (or one cycle).
_MOST_STEPS = 2**17


class Worlds(NamedTuple):
    """N environments between two steps."""

    envs: World
    obs: PyTree  # [N, ...] to act on next
    first: Array  # [N] whether it begins an episode
    memory: PyTree  # [N, ...] of the agent
    rewards: Array  # [N] sum of those of the episode so far


class Ends(NamedTuple):
    """Which steps `[..., T, N]` end an episode, with the sum of its rewards and its length."""

    last: Array
    reward: Array
    length: Array


class DeviceRunner(Runner):
    """Trains an agent in functional environments. It keeps their episodes between runs.

    Attributes:
      worlds: the state of the environments, or None before the first reset. It is all that the runner has to keep.
      name: tells environments apart, of which one can go on with the state of another.
    """

    def __init__(self, agent: Agent, programs: Programs, envs: Envs, env: FunctionalEnv):
        self.agent, self.env, self.num_envs, self.mesh = agent, env, envs.spec.num_envs, programs.mesh
        self.worlds: Worlds | None = None
        self.name = repr(env)
        self._cycle_steps = agent.unroll_length * self.num_envs
        self._cycles, self._most = 1, max(1, _MOST_STEPS // self._cycle_steps)
        parts = programs.act, programs.learn, agent.initial_memory
        self._begin, self._chunk = compile_chunk(*parts, agent.unroll_length, env, self.num_envs, self._most)

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes; without a seed, the random numbers go on."""
        keys = draw_keys(seed, self.num_envs) if seed is not None or self.worlds is None else self.worlds.envs.key
        self.worlds = spread(self._begin(keys), self.mesh)

    def run(self, run: RunState, total: int, pause: Callable[[int], float]) -> Generator[Cycle, None, None]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each chunk of cycles.

        A chunk ends with the cycle that reaches the step `pause(step)`, or earlier, so that it takes fractions of a second.
        """
        if self.worlds is None:
            self.reset()
        while run.step < total:
            wanted = math.ceil((min(total, pause(run.step)) - run.step) / self._cycle_steps)
            cycles = max(1, min(wanted, self._cycles, self._most))
            numbers = np.array([cycles, run.step, run.moves % 2**31, total], np.int32)
            start = time.perf_counter()
            (state, self.worlds), ends, metrics = self._chunk((run.agent, self.worlds), run.key, numbers)
            episodes = self._episodes(collect(ends, self.mesh), cycles)  # waits for the program
            seconds = of_first_host(time.perf_counter() - start, self.mesh)
            if cycles == self._cycles and seconds < _SECONDS[0]:
                self._cycles = min(2 * self._cycles, self._most)
            elif seconds > _SECONDS[1]:
                self._cycles = max(1, cycles // 2)
            run = RunState(state, run.key, run.step + cycles * self._cycle_steps, run.moves + cycles * self.agent.unroll_length)
            yield Cycle(run, episodes, metrics)

    def _episodes(self, ends: Ends, cycles: int) -> list[Any]:
        last, reward, length = (np.asarray(x)[:cycles] for x in ends)
        return [Episode(*one) for one in zip(reward[last].tolist(), length[last].tolist(), strict=True)]


class GroupRunner(DeviceRunner):
    """Trains S agents, which differ in seeds and in hyperparameters that are numbers, by one program.

    What it is given and yields has a leading axis S, and episodes are a list for each agent.

    Args:
      runners: those of the agents, in the same environments.
      make_agent: of the hyperparameters' values, by name. Equal ones share what is compiled.
      values: `[S]` of the hyperparameters that differ.
    """

    def __init__(self, runners: Sequence[DeviceRunner], make_agent: Callable[[dict[str, Array]], Agent], values: dict[str, Array]):
        one = runners[0]
        self.agent, self.env, self.num_envs, self.name, self.mesh = one.agent, one.env, one.num_envs, one.name, one.mesh
        self._cycle_steps, self._cycles = one._cycle_steps, 1
        self._most = max(1, one._most // len(runners))
        self.worlds, self._begin = None, one._begin

        compiled = compile_group(make_agent, one.env, one.num_envs, self._most, one.mesh)
        self._chunk = lambda carry, key, numbers: compiled(carry, key, values, numbers)

    def can_run(self, states: Any, keys: Array) -> bool:
        """Whether hyperparameters may be arrays: an algorithm may decide by them what to compute."""
        worlds = jax.eval_shape(jax.vmap(self._begin), jax.vmap(lambda key: jax.random.split(key, self.num_envs))(keys))
        try:
            jax.eval_shape(self._chunk, (states, worlds), keys, np.zeros(4, np.int32))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return False
        return True

    def _episodes(self, ends: Ends, cycles: int) -> list[Any]:
        each = zip(*(np.asarray(x) for x in ends), strict=True)
        return [super(GroupRunner, self)._episodes(Ends(*one), cycles) for one in each]


@functools.lru_cache(maxsize=16)
def compile_group(make_agent: Callable[[dict[str, Array]], Agent], env: FunctionalEnv, num_envs: int, most: int, mesh: Mesh | None) -> Any:
    """Compiles the function of `make_chunk` for several agents, with the values of their hyperparameters after the key."""

    def chunk(carry: Any, key: Array, values: dict[str, Array], numbers: Array) -> Any:
        agent = make_agent(values)
        programs = compile_agent(agent, mesh)
        one = make_chunk(programs.act, programs.learn, agent.initial_memory, agent.unroll_length, env, num_envs, most)
        return one(carry, key, numbers)

    return jax.jit(jax.vmap(chunk, in_axes=(0, 0, 0, None)), donate_argnums=0)


@jax.jit
def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees as one, with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def unstack(tree: PyTree) -> list[PyTree]:
    """The trees that `stack` has put together."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, each) for each in zip(*leaves, strict=True)]


@functools.lru_cache(maxsize=16)
def compile_chunk(act: Any, learn: Any, initial_memory: Any, length: int, env: FunctionalEnv, num_envs: int, most: int) -> tuple[Any, Any]:
    """Compiles the functions `(keys) -> worlds`, which begins episodes, and that of `make_chunk`."""

    def begin(keys: Array) -> Worlds:
        envs, obs = begin_all(env, keys)
        return Worlds(envs, obs, jnp.ones(num_envs, bool), initial_memory(num_envs), jnp.zeros(num_envs))

    chunk = make_chunk(act, learn, initial_memory, length, env, num_envs, most)
    return jax.jit(begin), jax.jit(chunk, donate_argnums=0)


def make_chunk(act: Any, learn: Any, initial_memory: Any, length: int, env: FunctionalEnv, num_envs: int, most: int) -> Callable[..., Any]:
    """Makes the function `((state, worlds), key, numbers) -> (state, worlds), ends, metrics`.

    The numbers are how many cycles to do, at most `most`, and step, moves and total of the run; metrics are those of the last cycle.
    """
    offset, dtype = getattr(env.action_space, "start", 0), spaces.dtype(env.action_space)

    def rollout(params: PyTree, worlds: Worlds, key: Array, step: Array, total: Array, moves: Array) -> tuple[Worlds, Trajectory, Ends]:
        def move(worlds: Worlds, t: Array) -> tuple[Worlds, tuple[Trajectory, Ends]]:
            numbers = jnp.stack([step + t * num_envs, total, (moves + t) & (2**31 - 1)])
            _, action, memory, extras = act(params, worlds.memory, worlds.obs, worlds.first, key, numbers)
            a_tm1 = action.astype(dtype)
            envs, obs, (obs_t, r_t, terminated, truncated) = advance_all(env, worlds.envs, a_tm1 + offset)
            last_t, rewards = terminated | truncated, worlds.rewards + r_t
            discount_t = 1.0 - terminated.astype(jnp.float32)
            row = Trajectory(worlds.obs, a_tm1, r_t, discount_t, obs_t, last_t, worlds.first, mask=(), extras=extras)
            after = Worlds(envs, obs, last_t, memory, jnp.where(last_t, 0.0, rewards))
            return after, (row, Ends(last_t, rewards, worlds.envs.t + 1))

        memory = reset_memory(initial_memory, worlds.memory, worlds.first)
        worlds, (trajectory, ends) = jax.lax.scan(move, worlds, jnp.arange(length))
        return worlds, trajectory._replace(mask=jnp.ones((length, num_envs), bool), memory=memory), ends

    def cycle(state: Any, worlds: Worlds, key: Array, step: Array, moves: Array, total: Array) -> Any:
        worlds, trajectory, ends = rollout(state.params, worlds, key, step, total, moves)
        steps = length * num_envs
        state, metrics = learn(state, trajectory, jnp.stack([step + steps, jnp.full_like(step, steps), total]))
        return state, worlds, ends, metrics

    def chunk(carry: tuple[Any, Worlds], key: Array, numbers: Array) -> tuple[tuple[Any, Worlds], Ends, dict[str, Array]]:
        cycles, step, moves, total = numbers

        def one(i: Array, carry: Any) -> Any:
            (state, worlds), ends, _ = carry
            state, worlds, new, metrics = cycle(state, worlds, key, step + i * length * num_envs, moves + i * length, total)
            return (state, worlds), jax.tree.map(lambda all, x: all.at[i].set(x), ends, new), metrics

        *_, ends, metrics = jax.eval_shape(cycle, *carry, key, step, moves, total)
        ends = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), ends)
        metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        return jax.lax.fori_loop(0, cycles, one, (carry, ends, metrics))

    return chunk
