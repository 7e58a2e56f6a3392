"""Actors and learner at the same time, on one machine: threads step environments and may run ahead of the learner.

Every actor has its own environments, takes T steps in each with the newest parameters, and begins
again. The learner, in the thread that calls, puts their trajectories side by side: an actor always
fills the same columns of a `[T, N]` trajectory, which so follow on each other as they do in the
in-process runner. What learns there learns here.

An actor begins its trajectory k only when k - `max_lag` have been learned from. So no more than
`max_lag` + 1 of them wait, and none is learned from with parameters that have changed more than
`max_lag` times since. With `max_lag=0` actors and learner take turns, and a run follows from its
seed: with one actor it is that of the in-process runner.

Actors that run ahead: https://arxiv.org/abs/1802.01561. In threads, beside the learner:
https://arxiv.org/abs/2104.06272.
"""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from agentzoo.envs import Envs
from agentzoo.runners.host import HostRunner
from agentzoo.runners.programs import (
    Cycle,
    Episode,
    Programs,
    Runner,
    RunState,
    compile_ahead,
    describe_fault,
)
from agentzoo.types import Agent, Array, PyTree, Trajectory


class Published(NamedTuple):
    """What actors know of the run."""

    params: Any  # from `_publish`
    step: int  # environment steps, and
    act_calls: int  # calls of `act`, that have been learned from,
    version: int  # in so many cycles of this run


class Rollout(NamedTuple):
    """What an actor hands to the learner."""

    trajectory: Trajectory
    episodes: list[Episode]
    version: int  # of the parameters that acted


class Stop(Exception):
    """Raised in an actor's `act` when the run is over."""


class ThreadsRunner(Runner):
    """Trains an agent by actors in threads.

    It keeps the environments' episodes between runs, unless one is broken off.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      parts: the environments of each actor, all as many.
      max_lag: how many trajectories an actor may be ahead of the learner.
    """

    tag = "threads"  # what its entries in the log begin with

    def __init__(self, agent: Agent, programs: Programs, parts: Sequence[Envs], max_lag: int = 1):
        self.agent, self.programs, self.max_lag = agent, programs, max_lag
        acting = programs._replace(act=self._act)
        self.actors = [
            HostRunner(agent, acting, envs, i, len(parts)) for i, envs in enumerate(parts)
        ]
        self._act_calls = agent.unroll_length * len(parts)  # of a cycle, and
        self._spec = parts[0].spec._replace(num_envs=sum(envs.spec.num_envs for envs in parts))
        self._steps = agent.unroll_length * self._spec.num_envs
        self._local_actors = self.actors  # those whose environments are in this process
        self._continues = (
            False  # whether the actors stand where the last trajectory that was learned from ends
        )

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        for actor in self.actors:
            actor.reset(None if seed is None else seed + actor.actor * actor.envs.spec.num_envs)
        self._continues = True

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Acts and learns at the same time, until `total` environment steps are done; yields after each cycle, whatever `next_stop` asks for.

        What an actor raises is raised here, as soon as what came before has been learned.
        """
        if not (self._continues and all(actor.continues for actor in self._local_actors)):
            self.reset()
        self._continues = False
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self._queues: list[deque[Rollout | BaseException]] = [deque() for _ in self.actors]
        self._published = Published(
            self._publish(run.learner_state.params), run.step, run.act_calls, 0
        )
        began, idle = time.perf_counter(), 0.0
        with self._threads(run, total):
            compile_ahead(
                self.agent, self.programs, run, self._spec
            ).result()  # meanwhile, actors begin
            while run.step < total:
                queued, waits = np.mean([len(queue) for queue in self._queues]), time.perf_counter()
                rollouts = self._take()
                idle += time.perf_counter() - waits
                trajectory = _side_by_side([rollout.trajectory for rollout in rollouts])
                steps = int(trajectory.mask.sum())
                step, act_calls = run.step + steps, run.act_calls + self._act_calls
                numbers = np.array([step, steps, total], np.int32)
                state, metrics, finite = self.programs.learn(run.learner_state, trajectory, numbers)
                run, version = RunState(state, run.key, step, act_calls), self._published.version
                newest = Published(self._publish(state.params), step, act_calls, version + 1)
                with self._changed:
                    self._published = newest
                    self._changed.notify_all()
                metrics = {
                    **metrics,
                    **self._measure(),
                    f"{self.tag}/lag": np.mean([version - rollout.version for rollout in rollouts]),
                    f"{self.tag}/queue_size": queued,
                    f"{self.tag}/learner_idle": idle / (time.perf_counter() - began),
                }
                fault = None if finite else describe_fault(state.params, metrics, step)
                yield Cycle(
                    run,
                    [episode for rollout in rollouts for episode in rollout.episodes],
                    metrics,
                    fault,
                )
        self._continues = True

    @contextlib.contextmanager
    def _threads(self, run: RunState, total: int) -> Iterator[None]:
        """Lets the actors work, and does not return before the last of them is gone."""
        threads = [
            threading.Thread(
                target=self._work,
                args=(actor, run.key, total),
                name=f"actor {actor.actor}",
                daemon=True,
            )
            for actor in self.actors
        ]
        self._occupy(True)
        try:
            for thread in threads:
                thread.start()
            yield
        finally:
            with self._changed:
                self._stopped.set()
                self._changed.notify_all()
            for thread in threads:
                if thread.ident is not None:  # it has been started
                    thread.join()
            self._occupy(False)

    def _occupy(self, busy: bool) -> None:
        """Says whether nobody else can use the environments of this process."""
        self.busy = busy and bool(self._local_actors)
        for actor in self._local_actors:
            actor.envs.occupy(busy)

    def _take(self) -> list[Rollout]:
        """Waits for a trajectory of each actor, the oldest, or raises what an actor has raised."""

        def failures() -> list[BaseException]:
            return [
                queue[0] for queue in self._queues if queue and isinstance(queue[0], BaseException)
            ]

        with self._changed:
            self._changed.wait_for(lambda: all(self._queues) or failures())
            for failure in failures():
                raise failure
            return [queue.popleft() for queue in self._queues]  # type: ignore[misc]

    def _work(self, actor: HostRunner, key: Array, total: int) -> None:
        """An actor's life."""
        queue = self._queues[actor.actor]
        try:
            for cycle in itertools.count():
                params, step, act_calls, version = self._begin(cycle, total)
                ahead = (
                    cycle - version
                )  # if there are dummy steps among those cycles, it will be fewer steps
                trajectory, episodes = self._rollout(
                    actor,
                    params,
                    key,
                    step + ahead * self._steps,
                    act_calls + ahead * self._act_calls,
                    total,
                )
                self._put(queue, Rollout(trajectory, episodes, version))
        except Stop:
            pass
        except BaseException as failure:
            self._put(queue, failure)

    def _begin(self, cycle: int, total: int) -> Published:
        """Waits until an actor may begin its trajectory of that number; returns what is then known."""

        def may_begin() -> bool:
            ahead = cycle - self._published.version
            return self._stopped.is_set() or (
                ahead <= self.max_lag and self._published.step + ahead * self._steps < total
            )

        with self._changed:
            self._changed.wait_for(may_begin)
            if self._stopped.is_set():
                raise Stop
            return self._published

    def _put(self, queue: deque, item: Rollout | BaseException) -> None:
        with self._changed:
            queue.append(item)
            self._changed.notify_all()

    def _publish(self, params: PyTree) -> Any:
        """What actors get for parameters."""
        return params

    def _rollout(
        self, actor: HostRunner, params: Any, key: Array, *progress: int
    ) -> tuple[Trajectory, list[Episode]]:
        """An actor's next trajectory, and the episodes that end in it."""
        if actor.envs.disturbed:  # by a callback
            actor.reset()
        trajectory = actor.rollout(params, key, *progress)
        return trajectory, actor.finished_episodes(trajectory)

    def _measure(self) -> dict[str, float]:
        """What there is to log beside the lag."""
        return {}

    def _act(self, *arguments: Any) -> Any:
        if self._stopped.is_set():
            raise Stop
        return self.programs.act(*arguments)


def _side_by_side(parts: Sequence[Trajectory]) -> Trajectory:
    """Trajectories of `[T, N]` each as one of more environments."""
    if len(parts) == 1:
        return parts[0]
    memory = jax.tree.map(lambda *x: np.concatenate(x), *(part.memory for part in parts))
    joined = jax.tree.map(
        lambda *x: np.concatenate(x, axis=1), *(part._replace(memory=()) for part in parts)
    )
    return joined._replace(memory=memory)
