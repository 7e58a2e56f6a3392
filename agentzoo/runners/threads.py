"""Training with threads: actors step Python environments while the learner learns.

Threads help if environments wait for something else, such as a simulator, a network or a clock,
because Python runs only one thread at a time. `agentzoo.runners.parallel` describes how actors and
learner work together.
"""

from collections.abc import Sequence
from typing import Any

from agentzoo.envs import Envs
from agentzoo.runners.actor import Actor, ActorState, Position, Rollout
from agentzoo.runners.parallel import Delivery, ParallelRunner, Stop
from agentzoo.runners.positions import describe_problems, join, name_envs, split
from agentzoo.runners.programs import Programs
from agentzoo.types import Agent, Array, PyTree


class ThreadActor(Actor):
    """An actor that gives up its rollout when the run is over, and notices disturbances."""

    def rollout(self, params: PyTree, key: Array, step: int, act_calls: int, total: int) -> Rollout:
        """Take T steps in each environment; see `Actor.rollout`."""
        if self.envs.disturbed:  # by a callback
            self.reset()
        return super().rollout(params, key, step, act_calls, total)


class ThreadsRunner(ParallelRunner):
    """Trains an agent with actors in threads.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      parts: the environments of each actor, all with the same number of environments.
      max_lag: how many trajectories an actor may be ahead of the learner.
    """

    tag = "threads"

    def __init__(self, agent: Agent, programs: Programs, parts: Sequence[Envs], max_lag: int = 1):
        def act(*arguments: Any) -> Any:
            if self.stopped:
                raise Stop
            return programs.act(*arguments)

        stoppable = programs._replace(act=act)
        actors = [
            ThreadActor(agent, stoppable, envs, i, len(parts)) for i, envs in enumerate(parts)
        ]
        self.parts = parts
        num_envs = sum(envs.spec.num_envs for envs in parts)
        spec = parts[0].spec._replace(num_envs=num_envs)
        super().__init__(agent, programs, spec, actors, max_lag)
        self._actors = actors
        self.name = name_envs(parts)
        # Where each actor stood after the last trajectory that was learned from.
        self._positions: list[Position | None] = [None for _ in actors]
        self._loaded: ActorState | None = None  # to be resumed

    @property
    def rollout_state(self) -> ActorState | None:
        """The state of the environments and of their episodes after the last training cycle."""
        if self.name is None or self._loaded is not None:
            return self._loaded
        pairs = zip(self._actors, self._positions, strict=True)
        states = [actor.to_state(position) for actor, position in pairs if position is not None]
        return join(states) if states else None

    @rollout_state.setter
    def rollout_state(self, state: ActorState | None) -> None:
        if state is not None:
            state.check()
        self._loaded = state

    def state_template(self) -> ActorState:
        """Return a state with the shapes and dtypes of `rollout_state`, apart from actions."""
        return join([actor.state_template() for actor in self._actors])

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes."""
        self.stop()
        if seed is None and self._loaded is not None:
            self._restore(self._loaded.without_episodes())
        else:
            super().reset(seed)
        self._loaded, self._positions = None, [actor.position for actor in self._actors]
        self._handover = None  # the cycle before, after which the actors stood elsewhere

    def resume(self) -> None:
        """Bring the environments to where `rollout_state` says, and set `resumed`."""
        self.stop()
        problems: dict[int, str] = {}
        if self._loaded is not None:
            problems = self._restore(self._loaded)
        else:
            for actor, position in zip(self._actors, self._positions, strict=True):
                problems |= actor.return_to(position)
        self._loaded, self._positions = None, [actor.position for actor in self._actors]
        self.resumed = describe_problems(problems)

    def _restore(self, state: ActorState) -> dict[int, str]:
        problems: dict[int, str] = {}
        for actor, part in zip(self._actors, split(state, len(self._actors)), strict=True):
            problems |= actor.restore(part)
        return problems

    def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Take note of where the actors stood after the trajectories that were learned from."""
        self._positions = [delivery.rollout.position for delivery in deliveries]

    def occupy(self, busy: bool) -> None:
        """Say whether actors are stepping the environments, so that nobody else can."""
        self.busy = busy
        for envs in self.parts:
            envs.occupy(busy)
