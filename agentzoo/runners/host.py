"""The in-process runner: acts in Python environments and learns in turn."""

import functools
from collections.abc import Callable, Generator
from typing import Any

from agentzoo.envs import Envs
from agentzoo.runners.actor import Actor, ActorState, Position, Rollout, count_restarts
from agentzoo.runners.base import Cycle, Runner, RunState
from agentzoo.runners.counters import LearnCounters
from agentzoo.runners.faults import describe_fault
from agentzoo.runners.handover import Handover
from agentzoo.runners.positions import describe_problems, name_envs
from agentzoo.runners.programs import Programs, compile_ahead
from agentzoo.types import Agent


class HostRunner(Runner):
    """Trains an agent in Gymnasium environments.

    Most environments cannot give their state. So the actions of running episodes are saved in its
    place, and repeated when a run is resumed.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      envs: the environments.
    """

    def __init__(self, agent: Agent, programs: Programs, envs: Envs):
        self.agent = agent
        self.programs = programs
        self.envs = envs
        self.actor = Actor(agent, programs, envs)
        self.name = name_envs([envs])
        # Where the actor stood after the last training cycle.
        self._position: Position | None = None
        self._loaded: ActorState | None = None  # to be resumed
        self._handover: Handover | None = None

    @property
    def rollout_state(self) -> ActorState | None:
        """The state of the environments and of their episodes after the last training cycle."""
        if self.name is None or self._position is None:
            return self._loaded
        return self._loaded or self.actor.to_state(self._position)

    @rollout_state.setter
    def rollout_state(self, state: ActorState | None) -> None:
        if state is not None:
            state.check()
        self._loaded = state

    def state_template(self) -> ActorState:
        """Return a state with the shapes and dtypes of `rollout_state`, apart from actions."""
        return self.actor.state_template()

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes."""
        if seed is None and self._loaded is not None:
            self.actor.restore(self._loaded.without_episodes())
        else:
            self.actor.reset(seed)
        self._loaded, self._position = None, self.actor.position
        self._handover = None  # the cycle before, after which the actor stood elsewhere

    def resume(self) -> None:
        """Bring the environments to where `rollout_state` says, and set `resumed`."""
        if self._loaded is not None:
            problems = self.actor.restore(self._loaded)
        else:
            problems = self.actor.return_to(self._position)
        self._loaded, self._position = None, self.actor.position
        self.resumed = describe_problems(problems)

    def infos(self) -> list[dict[str, Any]]:
        """Return the newest `info` of each environment."""
        return self.envs.infos()

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Act and learn in turn, until `total` environment steps are done.

        Yields after every training cycle.
        """
        self._handover = None
        self.programs.learn.cool()
        self.resume()
        # `learn` is compiled in a thread, while the first trajectory is collected.
        compiling = compile_ahead(self.agent, self.programs, run, self.envs.spec)
        while run.step < total:
            if self.envs.disturbed:  # by a callback
                self.reset()
            params = run.learner_state.params
            rollout = self.actor.rollout(params, run.key, run.step, run.act_calls, total)
            compiling.wait()
            # The dummy steps of some vector environments do not count.
            steps = int(rollout.trajectory.mask.sum())
            counters = LearnCounters(run.step + steps, steps, total)
            self._handover = Handover(functools.partial(self._complete, run, counters, rollout))
            cycle = self._handover.call(
                self.programs.learn, run.learner_state, rollout.trajectory, counters.pack()
            )
            run = cycle.run
            yield cycle

    def _complete(
        self, before: RunState, counters: LearnCounters, rollout: Rollout, results: Any
    ) -> Cycle:
        """Return the cycle, given the results of `learn`."""
        state, metrics, finite = results
        act_calls = before.act_calls + self.agent.unroll_length
        run = RunState(state, before.key, counters.step, act_calls)
        fault = None if finite else describe_fault(state.params, metrics, run.step)
        metrics = {**metrics, **count_restarts([rollout.restarts])}
        self._position = rollout.position
        return Cycle(run, rollout.episodes, metrics, fault)

    def finished(self) -> Cycle | None:
        """Return the last training cycle that was run; see `Runner`."""
        return self._handover.cycle() if self._handover is not None else None
