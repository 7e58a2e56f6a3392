"""The on-device runner: many cycles of acting in functional environments and learning, as one compiled program.

It does what the in-process runner does, with the same random numbers: a trajectory of T steps, then
`learn`, then the next. Python comes into it only between chunks of cycles. Where a chunk ends makes
no difference to what is learned.
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
from agentzoo.envs.functional import EnvState, advance_all, begin_all, draw_keys
from agentzoo.runners.programs import (
    Cycle,
    Episode,
    InPlace,
    Programs,
    Runner,
    RunState,
    compile_agent,
    describe_fault,
    reset_memory,
)
from agentzoo.sharding import Mesh, from_first_host, gather, shard
from agentzoo.types import Agent, Array, InvalidStep, PyTree, Trajectory

# A chunk grows while it takes less than the first number of seconds, and shrinks if it takes more
# than the second.
_SECONDS = (0.1, 0.4)
# Steps of a chunk, over all environments, that there is room for (or one cycle).
_MOST_STEPS = 2**17


class RolloutState(NamedTuple):
    """N environments between two steps."""

    envs: EnvState
    obs: PyTree  # [N, ...] to act on next
    first: Array  # [N] whether it begins an episode
    memory: PyTree  # [N, ...] of the agent
    rewards: Array  # [N] sum of those of the episode so far


class EpisodeEnds(NamedTuple):
    """Which steps `[..., T, N]` end an episode, with the sum of its rewards and its length."""

    last: Array
    reward: Array
    length: Array


class Faults(NamedTuple):
    """The first thing in a chunk that was not finite, as int32 scalars.

    Attributes:
      cycle: in which cycle of the chunk it happened; -1 if nothing did.
      kind: 0 for what was learned, 1 for a reward, 2 for an observation.
      t: at which step of the trajectory a reward or observation came.
      n: from which environment it came.
    """

    cycle: Array
    kind: Array
    t: Array
    n: Array


def no_fault() -> Faults:
    """Faults of which there are none yet."""
    return Faults(jnp.int32(-1), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def find_fault(trajectory: Trajectory) -> tuple[Trajectory, Faults]:
    """Look for rewards and observations that are not finite.

    Returns:
      The trajectory with 0 in their places, so that the parameters survive until the run is
      stopped, and the first of them; its `cycle` is 0 if there is one.
    """
    num_envs = trajectory.r_t.shape[1]

    def is_wrong(x: Array) -> Array:  # [T, N]
        return ~jnp.isfinite(x).reshape(*x.shape[:2], -1).all(axis=-1)

    def repair(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), x, 0) if jnp.issubdtype(x.dtype, jnp.floating) else x

    obs = jax.tree.leaves((trajectory.obs_tm1, trajectory.obs_t))
    wrong_obs = [is_wrong(x) for x in obs if jnp.issubdtype(x.dtype, jnp.floating)]
    wrong_r_t = is_wrong(trajectory.r_t)
    wrong = functools.reduce(jnp.logical_or, wrong_obs, wrong_r_t).reshape(-1)
    first = jnp.argmax(wrong).astype(jnp.int32)  # index of (t, n) in the flattened [T * N]
    kind = jnp.where(wrong_r_t.reshape(-1)[first], 1, 2).astype(jnp.int32)
    cycle = jnp.where(wrong.any(), 0, -1).astype(jnp.int32)
    # Actions, extras and memory are repaired too, since they follow from the observations.
    return jax.tree.map(repair, trajectory), Faults(
        cycle, kind, first // num_envs, first % num_envs
    )


class DeviceRunner(Runner):
    """Trains an agent in functional environments. It keeps their episodes between runs.

    Attributes:
      rollout_state: the state of the environments, or None before the first reset. It is all that the
        runner has to keep.
      name: tells environments apart, of which one can go on with the state of another.
    """

    def __init__(self, agent: Agent, programs: Programs, envs: Envs, env: FunctionalEnv):
        self.agent, self.env, self.num_envs, self.mesh = (
            agent,
            env,
            envs.spec.num_envs,
            programs.mesh,
        )
        self.rollout_state: RolloutState | None = None
        self.name = repr(env)
        self._cycle_steps = agent.unroll_length * self.num_envs
        self._cycles, self._most = 1, max(1, _MOST_STEPS // self._cycle_steps)
        parts = programs.act, programs.learn, agent.initial_memory
        self._begin, self._chunk = compile_chunk(
            *parts, agent.unroll_length, env, self.num_envs, self._most
        )

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes; without a seed, the random numbers go on."""
        keys = (
            draw_keys(seed, self.num_envs)
            if seed is not None or self.rollout_state is None
            else self.rollout_state.envs.key
        )
        self.rollout_state = shard(self._begin(keys), self.mesh)

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Acts and learns in turn, until `total` environment steps are done; yields after each chunk of cycles.

        A chunk ends with the cycle that reaches the step `next_stop(step)`, or earlier, so that it
        takes fractions of a second.
        """
        if self.rollout_state is None:
            self.reset()
        while run.step < total:
            wanted = math.ceil((min(total, next_stop(run.step)) - run.step) / self._cycle_steps)
            cycles = max(1, min(wanted, self._cycles, self._most))
            numbers = np.array([cycles, run.step, run.act_calls % 2**31, total], np.int32)
            start = time.perf_counter()
            (state, self.rollout_state), ends, faults, metrics = self._chunk(
                run.learner_state, self.rollout_state, run.key, numbers
            )
            episodes = self._episodes(gather(ends, self.mesh), cycles)  # waits for the program
            seconds = from_first_host(time.perf_counter() - start, self.mesh)
            if cycles == self._cycles and seconds < _SECONDS[0]:
                self._cycles = min(2 * self._cycles, self._most)
            elif seconds > _SECONDS[1]:
                self._cycles = max(1, cycles // 2)
            fault = self._describe(gather(faults, self.mesh), state.params, metrics, run.step)
            act_calls = run.act_calls + cycles * self.agent.unroll_length
            run = RunState(state, run.key, run.step + cycles * self._cycle_steps, act_calls)
            yield Cycle(run, episodes, metrics, fault)

    def _describe(self, faults: Faults, params: PyTree, metrics: Any, step: int) -> str | None:
        """The fault of a chunk that began at a step, as a sentence, or None."""
        cycle, kind, t, n = (int(x) for x in faults)
        if cycle < 0:
            return None
        step += cycle * self._cycle_steps
        if kind == 0:
            return describe_fault(params, metrics, step + self._cycle_steps)
        what = "a reward" if kind == 1 else "an observation"
        problem = f"{what} is not finite; correct the environment {self.env}."
        return str(InvalidStep(problem, n, step + (t + 1) * self.num_envs))

    def _episodes(self, ends: EpisodeEnds, cycles: int) -> list[Any]:
        last, reward, length = (np.asarray(x)[:cycles] for x in ends)
        each = reward[last].tolist(), length[last].tolist(), last.nonzero()[-1].tolist()
        return [Episode(reward, length, env=env) for reward, length, env in zip(*each, strict=True)]


class GroupRunner(DeviceRunner):
    """Trains S agents, which differ in seeds and in hyperparameters that are numbers, by one program.

    What it is given and yields has a leading axis S, and episodes are a list for each agent.

    Args:
      runners: those of the agents, in the same environments.
      make_agent: of the hyperparameters' values, by name. Equal ones share what is compiled.
      values: `[S]` of the hyperparameters that differ.
    """

    def __init__(
        self,
        runners: Sequence[DeviceRunner],
        make_agent: Callable[[dict[str, Array]], Agent],
        values: dict[str, Array],
    ):
        one = runners[0]
        self.agent, self.env, self.num_envs, self.name, self.mesh = (
            one.agent,
            one.env,
            one.num_envs,
            one.name,
            one.mesh,
        )
        self._cycle_steps, self._cycles = one._cycle_steps, 1
        self._most = max(1, one._most // len(runners))
        self.rollout_state, self._begin = None, one._begin
        self._values = values

        compiled = compile_group(make_agent, one.env, one.num_envs, self._most, one.mesh)
        self._chunk = lambda state, rollout_state, key, numbers: compiled(
            state, rollout_state, key, values, numbers
        )

    def can_run(self, states: Any, keys: Array) -> bool:
        """Whether hyperparameters may be arrays: an algorithm may decide by them what to compute."""
        rollout_state = jax.eval_shape(
            jax.vmap(self._begin), jax.vmap(lambda key: jax.random.split(key, self.num_envs))(keys)
        )
        try:
            jax.eval_shape(self._chunk, states, rollout_state, keys, np.zeros(4, np.int32))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return False
        return True

    def _episodes(self, ends: EpisodeEnds, cycles: int) -> list[Any]:
        each = zip(*(np.asarray(x) for x in ends), strict=True)
        return [super(GroupRunner, self)._episodes(EpisodeEnds(*one), cycles) for one in each]

    def _describe(self, faults: Faults, params: PyTree, metrics: Any, step: int) -> str | None:
        bad = np.flatnonzero(np.asarray(faults.cycle) >= 0)
        if not bad.size:
            return None
        fault, params, metrics = jax.tree.map(lambda x: x[bad[0]], (faults, params, metrics))
        values = {name: float(value[bad[0]]) for name, value in self._values.items()}
        own = "".join(f", {name}={value:g}" for name, value in values.items())
        return f"Of the agents that learn together, number {bad[0]}{own}: {super()._describe(fault, params, metrics, step)}"


@functools.lru_cache(maxsize=16)
def compile_group(
    make_agent: Callable[[dict[str, Array]], Agent],
    env: FunctionalEnv,
    num_envs: int,
    most: int,
    mesh: Mesh | None,
) -> Any:
    """Compiles the function of `make_chunk` for several agents, with the values of their hyperparameters after the key."""

    def chunk(
        state: Any,
        rollout_state: RolloutState,
        key: Array,
        values: dict[str, Array],
        numbers: Array,
    ) -> Any:
        agent = make_agent(values)
        programs = compile_agent(agent, mesh)
        one = make_chunk(
            programs.act,
            programs.learn,
            agent.initial_memory,
            agent.unroll_length,
            env,
            num_envs,
            most,
        )
        return one(state, rollout_state, key, numbers)

    return InPlace(jax.vmap(chunk, in_axes=(0, 0, 0, 0, None)), overwritten=1)


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
def compile_chunk(
    act: Any,
    learn: Any,
    initial_memory: Any,
    length: int,
    env: FunctionalEnv,
    num_envs: int,
    most: int,
) -> tuple[Any, Any]:
    """Compiles the functions `(keys) -> rollout_state`, which begins episodes, and that of `make_chunk`."""

    def begin(keys: Array) -> RolloutState:
        envs, obs = begin_all(env, keys)
        return RolloutState(
            envs, obs, jnp.ones(num_envs, bool), initial_memory(num_envs), jnp.zeros(num_envs)
        )

    chunk = make_chunk(act, learn, initial_memory, length, env, num_envs, most)
    return jax.jit(begin), InPlace(chunk, overwritten=1)


def make_chunk(
    act: Any,
    learn: Any,
    initial_memory: Any,
    length: int,
    env: FunctionalEnv,
    num_envs: int,
    most: int,
) -> Callable[..., Any]:
    """Makes the function `(state, rollout_state, key, numbers) -> (state, rollout_state), ends, faults, metrics`.

    The numbers are how many cycles to do, at most `most`, and step, act_calls and total of the run.
    Metrics are those of the last cycle, or of the first one that had a fault.
    """
    offset, dtype = spaces.start(env.action_space), spaces.dtype(env.action_space)

    def rollout(
        params: PyTree,
        rollout_state: RolloutState,
        key: Array,
        step: Array,
        total: Array,
        act_calls: Array,
    ) -> tuple[RolloutState, Trajectory, EpisodeEnds]:
        def move(
            rollout_state: RolloutState, t: Array
        ) -> tuple[RolloutState, tuple[Trajectory, EpisodeEnds]]:
            numbers = jnp.stack([step + t * num_envs, total, (act_calls + t) & (2**31 - 1)])
            _, action, memory, extras = act(
                params, rollout_state.memory, rollout_state.obs, rollout_state.first, key, numbers
            )
            a_tm1 = action.astype(dtype)
            envs, obs, (obs_t, r_t, terminated, truncated) = advance_all(
                env, rollout_state.envs, a_tm1 + offset
            )
            last_t, rewards = terminated | truncated, rollout_state.rewards + r_t
            discount_t = 1.0 - terminated.astype(jnp.float32)
            row = Trajectory(
                rollout_state.obs,
                a_tm1,
                r_t,
                discount_t,
                obs_t,
                last_t,
                rollout_state.first,
                mask=(),
                extras=extras,
            )
            after = RolloutState(envs, obs, last_t, memory, jnp.where(last_t, 0.0, rewards))
            return after, (row, EpisodeEnds(last_t, rewards, rollout_state.envs.t + 1))

        memory = reset_memory(initial_memory, rollout_state.memory, rollout_state.first)
        rollout_state, (trajectory, ends) = jax.lax.scan(
            move, rollout_state, jnp.arange(length, dtype=jnp.int32)
        )
        return (
            rollout_state,
            trajectory._replace(mask=jnp.ones((length, num_envs), bool), memory=memory),
            ends,
        )

    def cycle(
        state: Any,
        rollout_state: RolloutState,
        key: Array,
        step: Array,
        act_calls: Array,
        total: Array,
    ) -> Any:
        rollout_state, trajectory, ends = rollout(
            state.params, rollout_state, key, step, total, act_calls
        )
        trajectory, faults = find_fault(trajectory)
        steps = length * num_envs
        numbers = jnp.stack([step + steps, jnp.full_like(step, steps), total])
        state, metrics, finite = learn(state, trajectory, numbers)
        faults = faults._replace(
            cycle=jnp.where(finite, faults.cycle, 0),
            kind=jnp.where(faults.cycle < 0, 0, faults.kind),
        )
        return state, rollout_state, ends, faults, metrics

    def chunk(
        state: Any, rollout_state: RolloutState, key: Array, numbers: Array
    ) -> tuple[tuple[Any, RolloutState], EpisodeEnds, Faults, Any]:
        cycles, step, act_calls, total = numbers

        def one(i: Array, carry: Any) -> Any:
            (state, rollout_state), ends, faults, metrics = carry
            now = step + i * length * num_envs, act_calls + i * length
            state, rollout_state, *new = cycle(state, rollout_state, key, *now, total)
            ends = jax.tree.map(lambda all, x: all.at[i].set(x), ends, new[0])
            found = new[1]._replace(cycle=jnp.where(new[1].cycle < 0, -1, i))
            latest = jax.tree.map(
                lambda old, x: jnp.where(faults.cycle < 0, x, old),
                (faults, metrics),
                (found, new[2]),
            )
            return (state, rollout_state), ends, *latest

        *_, ends, _, metrics = jax.eval_shape(
            cycle, state, rollout_state, key, step, act_calls, total
        )
        ends = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), ends)
        metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        return jax.lax.fori_loop(
            0, cycles, one, ((state, rollout_state), ends, no_fault(), metrics)
        )

    return chunk
