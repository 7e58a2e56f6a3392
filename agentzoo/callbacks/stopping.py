"""Callbacks that end the training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from agentzoo.callbacks.base import BaseCallback
from agentzoo.callbacks.evaluation import EvalCallback
from agentzoo.types import ConfigurationError


class _AfterEvaluation(BaseCallback):
    """A callback that only an `EvalCallback` can call."""

    def check_agent(self, model: Any) -> None:
        """Check that an `EvalCallback` calls this callback.

        Raises:
          ConfigurationError: if none does.
        """
        self._evaluation()

    def _evaluation(self) -> EvalCallback:
        """Return the `EvalCallback` that calls this callback, directly or through others."""
        parent = self.parent
        while parent is not None and not isinstance(parent, EvalCallback):
            parent = parent.parent
        if parent is None:
            raise ConfigurationError(
                f"{type(self).__name__} was given to learn() itself, but it must be given to an "
                f"EvalCallback. Pass it as callback_on_new_best or callback_after_eval."
            )
        return parent


class StopTrainingOnRewardThreshold(_AfterEvaluation):
    """A callback that ends the training when the best mean reward reaches a threshold.

    Use it as `callback_on_new_best` of an `EvalCallback`.

    Args:
      reward_threshold: the mean reward to reach.
      verbose: 1 prints a line when the training ends.
    """

    def __init__(self, reward_threshold: float, verbose: int = 0):
        super().__init__(verbose)
        self.reward_threshold = reward_threshold

    def _on_step(self) -> bool:
        best = self._evaluation().best_mean_reward
        if best >= self.reward_threshold and self.verbose:
            tqdm.write(
                f"Training ends: the mean reward {best:.2f} reached the threshold "
                f"{self.reward_threshold}."
            )
        return best < self.reward_threshold


class StopTrainingOnNoModelImprovement(_AfterEvaluation):
    """A callback that ends the training after too many evaluations without a new best.

    Use it as `callback_after_eval` of an `EvalCallback`. Each call of `learn` counts from 0.

    Args:
      max_no_improvement_evals: the training ends when more evaluations than this bring no new best.
      min_evals: the first `min_evals` evaluations do not count.
      verbose: 1 prints a line when the training ends.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0, verbose: int = 0):
        super().__init__(verbose)
        self.max_no_improvement_evals = max_no_improvement_evals
        self.min_evals = min_evals
        self.no_improvement_evals = 0
        self._best = -np.inf

    def state(self) -> dict[str, Any]:
        """Return the number of evaluations without improvement, and the best result."""
        best = None if self._best == -np.inf else self._best
        return {**super().state(), "no_improvement_evals": self.no_improvement_evals, "best": best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self.no_improvement_evals = state["no_improvement_evals"]
        self._best = -np.inf if state["best"] is None else state["best"]

    def _on_training_start(self) -> None:
        self.no_improvement_evals = 0
        self._best = self._evaluation().best_mean_reward

    def _on_step(self) -> bool:
        best = self._evaluation().best_mean_reward
        improved, self._best = best > self._best, best
        if self.n_calls > self.min_evals:
            self.no_improvement_evals = 0 if improved else self.no_improvement_evals + 1
        proceed = self.no_improvement_evals <= self.max_no_improvement_evals
        if not proceed and self.verbose:
            tqdm.write(
                f"Training ends: the last {self.no_improvement_evals} evaluations brought no new "
                f"best mean reward."
            )
        return proceed


class StopTrainingOnMaxEpisodes(BaseCallback):
    """A callback that ends the training after `max_episodes` episodes per environment.

    The episodes of all environments are counted together, so that the training ends after
    `max_episodes * n_envs` episodes. Each call of `learn` counts from 0.

    Args:
      max_episodes: the number of episodes per environment.
      verbose: 1 prints a line when the training ends.
    """

    def __init__(self, max_episodes: int, verbose: int = 0):
        super().__init__(verbose)
        self.max_episodes = max_episodes
        self.n_episodes = 0

    def next_step(self, step: int) -> float:
        """Return the step at which the limit is reached if each episode takes a single step."""
        return step + max(1, self.max_episodes * self.model.n_envs - self.n_episodes)

    def state(self) -> dict[str, Any]:
        """Return the number of finished episodes."""
        return {**super().state(), "n_episodes": self.n_episodes}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self.n_episodes = state["n_episodes"]

    def _on_training_start(self) -> None:
        self.n_episodes = 0

    def _on_step(self) -> bool:
        self.n_episodes += len(self.locals["episodes"])
        proceed = self.n_episodes < self.max_episodes * self.model.n_envs
        if not proceed and self.verbose:
            tqdm.write(f"Training ends: {self.n_episodes} episodes are over.")
        return proceed
