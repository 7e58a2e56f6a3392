"""The learning curve of a run: its evaluations, and the seconds that training took."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agentzoo.callbacks import BaseCallback
from agentzoo.envs import EnvLike
from agentzoo.evaluation import evaluate_policy
from agentzoo.lab.machine import package_versions
from agentzoo.lab.plan import Protocol
from agentzoo.lab.results import Episodes, Evaluation

Report = Callable[[Sequence[Evaluation]], None]
"""Called after each evaluation with all evaluations."""


class Stopwatch:
    """Measures the seconds of training, without those of evaluations.

    Args:
      agents: how many agents train at once. Each of them is charged for its share.
    """

    def __init__(self, agents: int = 1):
        self.seconds = 0.0
        self._agents = agents
        self._since: float | None = None

    def start(self) -> None:
        """Begin to measure, or go on."""
        self._since = time.perf_counter()

    def read(self) -> float:
        """Return the seconds up to now."""
        if self._since is not None:
            now = time.perf_counter()
            self.seconds += (now - self._since) / self._agents
            self._since = now
        return self.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Return a context whose time does not count."""
        self.read()
        self._since = None
        try:
            yield
        finally:
            self.start()


class Curve:
    """Evaluates an agent at equal distances during a run.

    Evaluation k of all agents with the same seed has the same episodes, which are not those of
    another evaluation. An evaluation does not change how the agent learns.

    Args:
      env: the environment, as agents take it.
      seed: the seed of the run.
      steps: environment steps of the run.
      protocol: how often and in how many episodes the agent is evaluated.
      report: called after each evaluation.
      clock: measures the seconds of training.

    Attributes:
      points: the evaluations. The list is never changed, only replaced.
      versions: the versions of the packages, by name. If a version changed while the run was
        interrupted, its text names both.
    """

    def __init__(
        self,
        env: EnvLike,
        seed: int,
        steps: int,
        protocol: Protocol,
        report: Report,
        clock: Stopwatch | None = None,
    ):
        self.clock = clock or Stopwatch()
        self.points: list[Evaluation] = []
        self.versions = package_versions()
        self._env, self._seed, self._steps = env, seed, steps
        self._protocol, self._report = protocol, report
        self._done = 0

    def next_step(self, step: int) -> float:
        """Return the first step after `step` at which an evaluation is due."""
        reached = self._number(step)
        if reached >= self._protocol.evaluations:
            return math.inf
        return -(-(reached + 1) * self._steps // self._protocol.evaluations)

    def visit(self, agent: Any) -> None:
        """Evaluate the agent if an evaluation is due."""
        number = self._number(agent.num_timesteps)
        if number <= self._done:
            return
        with self.clock.paused():
            episodes = self._evaluate(agent, number, self._protocol.eval_episodes)
        self._done = number
        point = Evaluation(agent.num_timesteps, round(self.clock.seconds, 3), episodes)
        self.points = [*self.points, point]
        self._report(self.points)

    def finish(self, agent: Any) -> Episodes:
        """Evaluate the agent that has ended its training, and return the episodes."""
        return self._evaluate(agent, self._protocol.evaluations + 1, self._protocol.final_episodes)

    def state(self) -> dict[str, Any]:
        """Return the evaluations and the seconds so far as plain JSON."""
        points = [[step, seconds, *map(list, episodes)] for step, seconds, episodes in self.points]
        return {
            "done": self._done,
            "points": points,
            "seconds": self.clock.read(),
            "versions": self.versions,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._done = state["done"]
        self.points = [
            Evaluation(step, seconds, Episodes(tuple(returns), tuple(lengths)))
            for step, seconds, returns, lengths in state["points"]
        ]
        self.clock.seconds = state["seconds"]
        for name, before in state.get("versions", {}).items():
            now = self.versions.get(name, "none")
            same = before == now or before.endswith(f", then {now}")
            self.versions[name] = before if same else f"{before}, then {now}"

    def _number(self, step: int) -> int:
        """Return how many evaluations are due up to a step."""
        evaluations = self._protocol.evaluations
        return min(step * evaluations // self._steps, evaluations)

    def _evaluate(self, agent: Any, number: int, episodes: int) -> Episodes:
        # A word of its own keeps the seeds apart from those of training episodes.
        sequence = np.random.SeedSequence([self._seed, number, 0xE7A1])
        # Environment n is seeded with n more, which then fits into 32 bits with a sign.
        seed = int(sequence.generate_state(1)[0] >> 2)
        returns, lengths = evaluate_policy(
            agent, self._env, episodes, return_episode_rewards=True, seed=seed
        )
        return Episodes(tuple(map(float, returns)), tuple(map(int, lengths)))


class CurveCallback(BaseCallback):
    """Lets a curve evaluate the agent that learns. A resumed run goes on with the same curve."""

    def __init__(self, curve: Curve):
        super().__init__()
        self.curve = curve

    def next_step(self, step: int) -> float:
        """Return the next step at which an evaluation is due."""
        return self.curve.next_step(step)

    def state(self) -> dict[str, Any]:
        """Return the evaluations so far."""
        return {**super().state(), **self.curve.state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self.curve.set_state(state)

    def _on_training_start(self) -> None:
        self.curve.clock.start()

    def _on_step(self) -> bool:
        self.curve.visit(self.model)
        return True
