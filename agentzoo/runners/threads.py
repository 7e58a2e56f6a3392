"""Training with threads: actors step Python environments while the learner learns.

Threads help if environments wait for something else, such as a simulator, a network or a clock,
because Python runs only one thread at a time. `agentzoo.runners.parallel` describes how actors and
learner work together.
"""

from collections.abc import Sequence
from typing import Any

from agentzoo.envs import Envs
from agentzoo.runners.actor import Actor, Rollout
from agentzoo.runners.parallel import ParallelRunner, Stop
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
            if self.stopped.is_set():
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

    def occupy(self, busy: bool) -> None:
        """Say whether actors are stepping the environments, so that nobody else can."""
        self.busy = busy
        for envs in self.parts:
            envs.occupy(busy)
