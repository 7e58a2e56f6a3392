"""Actors and a learner at the same time, wherever the actors are.

Every actor has its own environments, takes T steps in each with the newest parameters, and begins
again. The learner puts the actors' trajectories side by side: an actor always fills the same
columns of a `[T, N]` trajectory, so consecutive trajectories follow each other as they do in the
in-process runner. What learns there learns here.

An actor begins its trajectory k only when k - `max_lag` trajectories have been learned from. So at
most `max_lag` + 1 of them wait, and the parameters that acted are at most `max_lag` updates old.
With `max_lag=0`, actors and learner take turns, and a run follows from its seed. With one actor, it
is the run of the in-process runner.

Actors that run ahead of the learner: https://arxiv.org/abs/1802.01561. In threads, on the machine
of the learner: https://arxiv.org/abs/2104.06272.
"""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from agentzoo.runners.actor import Rollout, count_restarts
from agentzoo.runners.base import Cycle, Runner, RunState
from agentzoo.runners.counters import LearnCounters
from agentzoo.runners.faults import describe_fault
from agentzoo.runners.handover import Handover
from agentzoo.runners.programs import Programs, compile_ahead
from agentzoo.types import Agent, Array, EnvSpec, PyTree, Trajectory


class Published(NamedTuple):
    """What actors know of the run.

    Attributes:
      params: the newest parameters, as `ParallelRunner.publish` returned them.
      step: environment steps that have been learned from.
      act_calls: calls of `act` that have been learned from.
      version: training cycles in this call of `run`.
    """

    params: Any
    step: int
    act_calls: int
    version: int


class Delivery(NamedTuple):
    """A rollout, and the version of the parameters that acted."""

    rollout: Rollout
    version: int


class Stop(Exception):
    """Raised in an actor's thread when the run is over."""


class ParallelActor(Protocol):
    """An actor as the learner's process sees it. A thread of its own waits for its rollouts."""

    @property
    def continues(self) -> bool:
        """Whether the environments are where the last rollout left them, as far as is known."""
        ...

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes. The seed is the one of all actors together."""
        ...

    def rollout(self, params: Any, key: Array, step: int, act_calls: int, total: int) -> Rollout:
        """Return the next rollout; see `Actor.rollout`.

        Raises:
          Stop: if the run ended meanwhile.
        """
        ...


class ParallelRunner(Runner):
    """Trains an agent with actors that act while the learner learns.

    The environments' episodes continue from run to run.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      spec: what the agent knows of all environments together.
      actors: the actors, all with the same number of environments.
      max_lag: how many trajectories an actor may be ahead of the learner.

    Attributes:
      tag: what the names of the runner's entries in the log begin with.
      stopped: set while no run is active.
    """

    tag: str

    def __init__(
        self,
        agent: Agent,
        programs: Programs,
        spec: EnvSpec,
        actors: Sequence[ParallelActor],
        max_lag: int,
    ):
        self.agent = agent
        self.programs = programs
        self.spec = spec
        self.actors = actors
        self.max_lag = max_lag
        # Calls of `act` and environment steps of a cycle, by all actors together.
        self._cycle_calls = agent.unroll_length * len(actors)
        self._cycle_steps = agent.unroll_length * spec.num_envs
        # Whether the actors stand where the last trajectory that was learned from ends.
        self._continues = False
        self._handover: Handover | None = None
        self.stopped = threading.Event()

    def publish(self, params: PyTree) -> Any:
        """Return what actors get in place of the parameters."""
        return params

    def measure(self) -> dict[str, float]:
        """Return further entries of the log."""
        return {}

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes."""
        for actor in self.actors:
            actor.reset(seed)
        self._continues = True

    def resume(self) -> None:
        """Let the actors continue their episodes, or begin new ones if they lost them."""
        if not (self._continues and all(actor.continues for actor in self.actors)):
            self.reset()

    def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Take note of where the actors stood after the trajectories that were learned from."""

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Act and learn at the same time, until `total` environment steps are done.

        Yields after every training cycle. What an actor raises is raised here, as soon as the
        trajectories before have been learned from.
        """
        self.resume()
        self._continues = False
        self._handover = None
        self._changed = threading.Condition()
        self.stopped.clear()
        self._queues: list[deque[Delivery | BaseException]] = [deque() for _ in self.actors]
        params = self.publish(run.learner_state.params)
        self._published = Published(params, run.step, run.act_calls, 0)
        began = time.perf_counter()
        idle = 0.0
        with self._threads(run, total):
            # Actors begin while `learn` is compiled.
            compile_ahead(self.agent, self.programs, run, self.spec).result()
            while run.step < total:
                queue_size = np.mean([len(queue) for queue in self._queues])
                waits = time.perf_counter()
                deliveries = self._take()
                idle += time.perf_counter() - waits
                version = self._published.version
                lags = [version - delivery.version for delivery in deliveries]
                entries = {
                    **self.measure(),
                    **count_restarts([delivery.rollout.restarts for delivery in deliveries]),
                    f"{self.tag}/lag": np.mean(lags),
                    f"{self.tag}/queue_size": queue_size,
                    f"{self.tag}/learner_idle": idle / (time.perf_counter() - began),
                }
                cycle = self._learn(run, deliveries, total, entries)
                run = cycle.run
                yield cycle
        self._continues = True

    def _learn(
        self,
        before: RunState,
        deliveries: Sequence[Delivery],
        total: int,
        entries: dict[str, float],
    ) -> Cycle:
        """Learn from one trajectory of each actor, and publish the parameters.

        Args:
          before: the state of the run.
          deliveries: a trajectory of each actor.
          total: the step at which the run ends.
          entries: what the runner adds to the log.
        """
        trajectory = side_by_side([delivery.rollout.trajectory for delivery in deliveries])
        steps = int(trajectory.mask.sum())
        counters = LearnCounters(before.step + steps, steps, total)
        episodes = [episode for one in deliveries for episode in one.rollout.episodes]

        def complete(results: Any) -> Cycle:
            state, metrics, finite = results
            act_calls = before.act_calls + self._cycle_calls
            run = RunState(state, before.key, counters.step, act_calls)
            metrics = {**metrics, **entries}
            fault = None if finite else describe_fault(state.params, metrics, run.step)
            self.keep(deliveries)
            return Cycle(run, episodes, metrics, fault)

        self._handover = Handover(complete)
        cycle = self._handover.call(
            self.programs.learn, before.learner_state, trajectory, counters.pack()
        )
        run, version = cycle.run, self._published.version + 1
        params = self.publish(run.learner_state.params)
        newest = Published(params, run.step, run.act_calls, version)
        with self._changed:
            self._published = newest
            self._changed.notify_all()
        return cycle

    def finished(self) -> Cycle | None:
        """Return the last training cycle that was run; see `Runner`."""
        return self._handover.cycle() if self._handover is not None else None

    @contextlib.contextmanager
    def _threads(self, run: RunState, total: int) -> Iterator[None]:
        """Let the actors work in threads. On exit, wait until all threads have ended."""
        threads = [
            threading.Thread(
                target=self._work, args=(index, run.key, total), name=f"actor {index}", daemon=True
            )
            for index in range(len(self.actors))
        ]
        self.occupy(True)
        try:
            for thread in threads:
                thread.start()
            yield
        finally:
            with self._changed:
                self.stopped.set()
                self._changed.notify_all()
            for thread in threads:
                if thread.ident is not None:  # it has been started
                    thread.join()
            self.occupy(False)

    def occupy(self, busy: bool) -> None:
        """Say whether actors are stepping environments of this process."""

    def _take(self) -> list[Delivery]:
        """Wait for the oldest trajectory of each actor, or raise what an actor has raised."""

        def failures() -> list[BaseException]:
            heads = [queue[0] for queue in self._queues if queue]
            return [head for head in heads if isinstance(head, BaseException)]

        with self._changed:
            self._changed.wait_for(lambda: all(self._queues) or failures())
            for failure in failures():
                raise failure
            return [queue.popleft() for queue in self._queues]  # type: ignore[misc]

    def _work(self, index: int, key: Array, total: int) -> None:
        """Run one actor until it is told to stop."""
        queue, actor = self._queues[index], self.actors[index]
        try:
            for cycle in itertools.count():
                known = self._begin(cycle, total)
                # If dummy steps are among these cycles, there will be fewer steps.
                ahead = cycle - known.version
                step = known.step + ahead * self._cycle_steps
                act_calls = known.act_calls + ahead * self._cycle_calls
                rollout = actor.rollout(known.params, key, step, act_calls, total)
                self._put(queue, Delivery(rollout, known.version))
        except Stop:
            pass
        except BaseException as failure:
            self._put(queue, failure)

    def _begin(self, cycle: int, total: int) -> Published:
        """Wait until an actor may begin its trajectory of that number."""

        def may_begin() -> bool:
            ahead = cycle - self._published.version
            needed = self._published.step + ahead * self._cycle_steps < total
            return self.stopped.is_set() or (ahead <= self.max_lag and needed)

        with self._changed:
            self._changed.wait_for(may_begin)
            if self.stopped.is_set():
                raise Stop
            return self._published

    def _put(self, queue: deque, item: Delivery | BaseException) -> None:
        with self._changed:
            queue.append(item)
            self._changed.notify_all()


def side_by_side(parts: Sequence[Trajectory]) -> Trajectory:
    """Join trajectories `[T, N]` into one with the environments of all."""
    if len(parts) == 1:
        return parts[0]
    memory = jax.tree.map(lambda *x: np.concatenate(x), *(part.memory for part in parts))
    rest = [part._replace(memory=()) for part in parts]
    joined = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *rest)
    return joined._replace(memory=memory)
