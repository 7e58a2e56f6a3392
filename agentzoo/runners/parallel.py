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
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from agentzoo.background import Background
from agentzoo.runners.actor import Rollout, count_restarts
from agentzoo.runners.base import Cycle, Runner, RunState
from agentzoo.runners.counters import LearnCounters
from agentzoo.runners.faults import describe_fault
from agentzoo.runners.handover import Handover
from agentzoo.runners.programs import Programs, compile_ahead
from agentzoo.types import Agent, Array, EnvSpec, PyTree, Trajectory

_PATIENCE = 1.0  # seconds that threads may take to end when the process ends


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
      stopped: whether no run is active.
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
        self._threads: list[Background] = []
        # What each actor is told: what is new of the run, or None at its end.
        self._told: list[queue.SimpleQueue[Published | None]] = []
        self.stopped = True

    def publish(self, params: PyTree) -> Any:
        """Return what actors get in place of the parameters."""
        return params

    def measure(self) -> dict[str, float]:
        """Return further entries of the log."""
        return {}

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes."""
        self.stop()
        for actor in self.actors:
            actor.reset(seed)
        self._continues = True

    def resume(self) -> None:
        """Let the actors continue their episodes, or begin new ones if they lost them."""
        self.stop()
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
        self.programs.learn.cool()
        self.stopped = False
        self._told = [queue.SimpleQueue() for _ in self.actors]
        # What the actors send, with the index of the actor.
        self._sent: queue.SimpleQueue[tuple[int, Delivery | BaseException]] = queue.SimpleQueue()
        self._received: list[deque[Delivery | BaseException]] = [deque() for _ in self.actors]
        self._publish(run, 0)
        began = time.perf_counter()
        idle = 0.0
        with self._working(run, total):
            # Actors begin while `learn` is compiled.
            lags = self.max_lag > 0
            compile_ahead(self.agent, self.programs, run, self.spec, lags).wait()
            while run.step < total:
                while not self._sent.empty():
                    self._receive()
                queue_size = np.mean([len(received) for received in self._received])
                waits = time.perf_counter()
                deliveries = self._take()
                idle += time.perf_counter() - waits
                lags = [self._version - delivery.version for delivery in deliveries]
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
        if self.max_lag:
            extras = self.agent.without_newest(trajectory.extras)
            trajectory = trajectory._replace(extras=extras)
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
        self._publish(cycle.run, self._version + 1)
        return cycle

    def _publish(self, run: RunState, version: int) -> None:
        """Tell the actors what is new."""
        params = self.publish(run.learner_state.params)
        self._version = version
        for told in self._told:
            told.put(Published(params, run.step, run.act_calls, version))

    def finished(self) -> Cycle | None:
        """Return the last training cycle that was run; see `Runner`."""
        return self._handover.cycle() if self._handover is not None else None

    @contextlib.contextmanager
    def _working(self, run: RunState, total: int) -> Iterator[None]:
        """Let the actors work in threads. On exit, wait until all threads have ended.

        If the process is about to end, the agent has to be saved before long, so that threads with
        slow environments are left to themselves.
        """
        patience = math.inf
        self.occupy(True)
        try:
            for index in range(len(self.actors)):
                thread = Background(self._work, index, run.key, total, name=f"actor {index}")
                self._threads.append(thread)
                thread.start()
            yield
        except SystemExit:
            patience = _PATIENCE
            raise
        finally:
            self.stop(patience)

    def stop(self, patience: float = math.inf) -> None:
        """Stop the actors' threads, and wait until they have ended.

        An exception may interrupt this. So it is also called before the environments are used
        again, because two threads must never step the same ones.

        Args:
          patience: seconds to wait. Environments that are still being stepped stay occupied.
        """
        deadline = time.monotonic() + patience
        self.stopped = True
        for told in self._told:
            told.put(None)
        waits = [thread.wait(deadline - time.monotonic()) for thread in self._threads]
        if all(waits):
            self._threads = []
            self.occupy(False)

    def occupy(self, busy: bool) -> None:
        """Say whether actors are stepping environments of this process."""

    def _take(self) -> list[Delivery]:
        """Wait for the oldest trajectory of each actor, or raise what an actor has raised."""
        while True:
            oldest = [received[0] for received in self._received if received]
            for item in oldest:
                if isinstance(item, BaseException):
                    raise item
            if len(oldest) == len(self._received):
                return [received.popleft() for received in self._received]  # type: ignore[misc]
            self._receive()

    def _receive(self) -> None:
        """Wait for what an actor sends."""
        index, item = self._sent.get()
        self._received[index].append(item)

    def _work(self, index: int, key: Array, total: int) -> None:
        """Run one actor until it is told to stop."""
        told, sent, actor = self._told[index], self._sent, self.actors[index]
        known: Published | None = None
        try:
            for cycle in itertools.count():
                known = self._await_turn(told, known, cycle, total)
                # If dummy steps are among these cycles, there will be fewer steps.
                ahead = cycle - known.version
                step = known.step + ahead * self._cycle_steps
                act_calls = known.act_calls + ahead * self._cycle_calls
                rollout = actor.rollout(known.params, key, step, act_calls, total)
                sent.put((index, Delivery(rollout, known.version)))
        except Stop:
            pass
        except BaseException as failure:
            sent.put((index, failure))

    def _await_turn(
        self,
        told: "queue.SimpleQueue[Published | None]",
        known: Published | None,
        cycle: int,
        total: int,
    ) -> Published:
        """Wait until an actor may begin its trajectory of that number.

        Args:
          told: what the actor is told.
          known: what the actor knows of the run.
          cycle: the number of the trajectory.
          total: the step at which the run ends.

        Returns:
          The newest of what the actor knows.

        Raises:
          Stop: if the run is over.
        """

        def may_begin(known: Published) -> bool:
            ahead = cycle - known.version
            return ahead <= self.max_lag and known.step + ahead * self._cycle_steps < total

        while known is None or not told.empty() or not may_begin(known):
            known = told.get()
            if known is None:
                raise Stop
        return known


def side_by_side(parts: Sequence[Trajectory]) -> Trajectory:
    """Join trajectories `[T, N]` into one with the environments of all."""
    if len(parts) == 1:
        return parts[0]
    memory = jax.tree.map(lambda *x: np.concatenate(x), *(part.memory for part in parts))
    rest = [part._replace(memory=()) for part in parts]
    joined = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *rest)
    return joined._replace(memory=memory)
