"""The on-device runner: acts in compiled environments and learns, without Python in between.

It does what the in-process runner does, with the same random numbers: it collects a trajectory of T
steps, learns from it, and collects the next. Python only runs between chunks of training cycles.
Where a chunk ends makes no difference to what is learned.
"""

import functools
import math
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from agentzoo.envs import Envs, FunctionalEnv
from agentzoo.envs.functional import draw_keys
from agentzoo.runners.base import Cycle, Episode, Runner, RunState
from agentzoo.runners.chunks import (
    ChunkSpec,
    EpisodeEnds,
    RolloutState,
    compile_begin,
    compile_chunk,
)
from agentzoo.runners.counters import ChunkCounters
from agentzoo.runners.faults import Faults, describe_fault
from agentzoo.runners.handover import Handover
from agentzoo.runners.programs import Programs
from agentzoo.sharding import from_first_host, gather, shard
from agentzoo.types import Agent, InvalidStep, PyTree

# A chunk grows while it takes fewer seconds than the first number, and shrinks if it takes more
# than the second.
_SECONDS = (0.1, 0.4)
# Steps of a chunk, over all environments together, unless one cycle is longer.
_MOST_STEPS = 2**17


class DeviceRunner(Runner):
    """Trains an agent in compiled environments. Their episodes continue from run to run.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments.
      env: the functional environment of which there are several.
    """

    compiled = True

    def __init__(self, agent: Agent, programs: Programs, envs: Envs, env: FunctionalEnv):
        self.env = env
        self.num_envs = envs.spec.num_envs
        self.mesh = programs.mesh
        self.rollout_state: RolloutState | None = None
        self.name = repr(env)
        self._length = agent.unroll_length
        self._cycle_steps = agent.unroll_length * self.num_envs
        self._cycles = 1
        self._most = max(1, _MOST_STEPS // self._cycle_steps)
        self.programs = programs
        self._chunk = compile_chunk(self.chunk_spec(self._most)).bind(programs.numbers)
        self._handover: Handover | None = None

    def chunk_spec(self, most: int) -> ChunkSpec:
        """Return what a chunk of at most this many cycles depends on."""
        make_agent = self.programs.make_agent
        return ChunkSpec(make_agent, self._length, self.env, self.num_envs, most, self.mesh)

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes. Without a seed, the environments' random numbers continue."""
        if seed is not None or self.rollout_state is None:
            keys = draw_keys(seed, self.num_envs)
        else:
            keys = self.rollout_state.envs.key
        begin = compile_begin(self.chunk_spec(self._most))
        self.rollout_state = shard(begin(self.programs.numbers, keys), self.mesh)
        self._handover = None  # the cycle before, after which the environments stood elsewhere

    def state_template(self) -> Any:
        """Return a tree with the structure, shapes and dtypes of `rollout_state`."""
        if self.rollout_state is None:
            self.reset(0)
        return self.rollout_state

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Act and learn in turn, until `total` environment steps are done.

        Yields after each chunk of cycles. A chunk ends with the cycle that reaches the step
        `next_stop(step)`, or earlier, so that it takes a fraction of a second.
        """
        self._handover = None
        self._chunk.cool()
        if self.rollout_state is None:
            self.reset()
        while run.step < total:
            steps = min(total, next_stop(run.step)) - run.step
            wanted = math.ceil(steps / self._cycle_steps)
            cycles = max(1, min(wanted, self._cycles, self._most))
            counters = ChunkCounters(cycles, run.step, run.act_calls, total)
            complete = functools.partial(self._complete, run, counters)
            self._handover = Handover(complete)
            compiled = self._chunk.is_warm
            start = time.perf_counter()
            try:
                cycle = self._handover.call(
                    self._chunk, run.learner_state, self.rollout_state, run.key, counters.pack()
                )
            except Exception as error:
                last = run.step + cycles * self._cycle_steps
                error.add_note(f"Compiled steps from {run.step:,} to {last:,} were running.")
                raise
            seconds = from_first_host(time.perf_counter() - start, self.mesh)
            if compiled:
                self._adapt(cycles, seconds)
            run = cycle.run
            yield cycle

    def _complete(self, before: RunState, counters: ChunkCounters, results: Any) -> Cycle:
        """Return the last cycle of a chunk, given the results of the chunk."""
        (state, self.rollout_state), chunk = results
        # Bringing the ends of episodes to the host waits for the program.
        episodes = self._episodes(gather(chunk.ends, self.mesh), counters.cycles)
        faults = gather(chunk.faults, self.mesh)
        fault = self._describe(faults, state.params, chunk.metrics, before.step)
        step = before.step + counters.cycles * self._cycle_steps
        act_calls = before.act_calls + counters.cycles * self._length
        run = RunState(state, before.key, step, act_calls)
        return Cycle(run, episodes, chunk.metrics, fault)

    def finished(self) -> Cycle | None:
        """Return the last training cycle that was run; see `Runner`."""
        return self._handover.cycle() if self._handover is not None else None

    def _adapt(self, cycles: int, seconds: float) -> None:
        """Choose the length of the next chunk by the time that the last one took."""
        if cycles == self._cycles and seconds < _SECONDS[0]:
            self._cycles = min(2 * self._cycles, self._most)
        elif seconds > _SECONDS[1]:
            self._cycles = max(1, cycles // 2)

    def _describe(self, faults: Faults, params: PyTree, metrics: Any, step: int) -> str | None:
        """Return a message about the fault of a chunk that began at a step, or None."""
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
        """Return the episodes that ended in the cycles of a chunk."""
        last, reward, length = (np.asarray(x)[:cycles] for x in ends)  # each [C, T, N]
        envs = last.nonzero()[-1].tolist()
        each = zip(reward[last].tolist(), length[last].tolist(), envs, strict=True)
        return [Episode(reward, length, env=env) for reward, length, env in each]
