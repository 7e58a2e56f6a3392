"""One trial of a search: train an agent, and evaluate it on the way and at the end."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from agentzoo.callbacks import BaseCallback
from agentzoo.envs import EnvLike, Envs
from agentzoo.evaluation import make_evaluation_envs, run_episodes
from agentzoo.types import TrainingError

_FIRST_EPISODE = 1_000_000  # seeds of evaluation episodes, which no training uses


class Task(NamedTuple):
    """What all trials of a search have in common.

    Attributes:
      cls: the class of the algorithm.
      env: the environment.
      steps: environment steps of a trial.
      n_envs: number of environments that are stepped at once.
      evaluations: number of evaluations of a trial, the one at the end included.
      episodes: episodes per evaluation.
      seed: the seed of the search. Trial `n` trains with seed `seed + n`.
    """

    cls: type[Any]
    env: EnvLike
    steps: int
    n_envs: int = 1
    evaluations: int = 10
    episodes: int = 10
    seed: int = 0

    def make(self, values: Mapping[str, Any], number: int) -> Any:
        """Return the agent of a trial."""
        return self.cls(self.env, n_envs=self.n_envs, seed=self.seed + number, **values)


def train(
    task: Task, values: Mapping[str, Any], number: int, report: Callable[[int, float], bool]
) -> float | None:
    """Train and evaluate the agent of a trial.

    Args:
      task: what all trials have in common.
      values: the hyperparameters by name.
      number: the number of the trial.
      report: called with the number of an evaluation, from 1, and its mean return. The trial ends
        if it returns False.

    Returns:
      The mean return at the end, or None if `report` ended the trial.

    Raises:
      ConfigurationError: if the hyperparameters do not fit together.
      TrainingError: if what is learned is not finite, or an environment fails.
    """
    agent = task.make(values, number)
    envs, made_here = make_evaluation_envs(agent, task.env, task.episodes)
    try:
        curve = _Curve(task, envs, report)
        agent.learn(task.steps, curve, log_interval=task.steps, progress_bar=False)
        return None if curve.has_stopped else _evaluate(task, agent, envs)
    finally:
        if made_here:
            envs.close()


def _evaluate(task: Task, agent: Any, envs: Envs) -> float:
    """Return the mean return in the same episodes for all trials."""
    episodes = run_episodes(agent, envs, task.episodes, seed=task.seed + _FIRST_EPISODE)
    mean = float(np.mean(episodes.rewards))
    if not math.isfinite(mean):
        raise TrainingError(f"The mean return of the evaluation is {mean}.")
    return mean


class _Curve(BaseCallback):
    """Evaluates an agent at equal intervals of its run, but not at the end.

    Attributes:
      has_stopped: whether `report` has ended the trial.
    """

    def __init__(self, task: Task, envs: Envs, report: Callable[[int, float], bool]):
        super().__init__()
        self._task = task
        self._envs = envs
        self._report = report
        self._finished = 0
        self.has_stopped = False

    def next_step(self, step: int) -> float:
        """Return the next step at which an evaluation is due."""
        index = self._index(step) + 1
        return math.ceil(index * self._task.steps / self._task.evaluations)

    def _index(self, step: int) -> int:
        return step * self._task.evaluations // self._task.steps

    def _on_step(self) -> bool:
        index = self._index(self.num_timesteps)
        if index <= self._finished or self.num_timesteps >= self._task.steps:
            return True
        self._finished = index
        self.has_stopped = not self._report(index, _evaluate(self._task, self.model, self._envs))
        return not self.has_stopped
