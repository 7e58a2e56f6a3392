"""The callback that evaluates an agent while it learns."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from agentzoo import keywords
from agentzoo.callbacks.base import (
    BaseCallback,
    CallbackLike,
    EventCallback,
    continues,
    make_callback,
)
from agentzoo.callbacks.periodic import Period
from agentzoo.envs import EnvLike, Envs, number
from agentzoo.evaluation import Episodes, make_evaluation_envs, run_episodes
from agentzoo.types import ConfigurationError


class EvalCallback(EventCallback):
    """A callback that evaluates the agent every `eval_freq` steps and saves the best one.

    It logs `eval/mean_reward` and `eval/mean_ep_length`, and `eval/success_rate` if the `info` of
    an episode's last step has an entry "is_success".

    Each evaluation resets its environments with a seed that is derived from the agent's seed and
    the number of steps trained. Equal runs are therefore evaluated in the same episodes, and the
    evaluations of one run in different episodes.

    Args:
      eval_env: an id, a factory, an environment or a vector environment, but not one in which the
        agent trains. Environments that are made from an id or by a factory are kept until `learn`
        ends.
      callback_on_new_best: called when the mean reward is a new best.
      callback_after_eval: called after each evaluation.
      n_eval_episodes: episodes per evaluation.
      eval_freq: environment steps between two evaluations.
      log_path: folder for `evaluations.npz`, with the arrays `timesteps`, `results` and
        `ep_lengths`, and `successes` if every episode reported its success.
      best_model_save_path: folder for `best_model.safetensors`, without the replay buffer.
      deterministic: whether to leave out exploration.
      render: whether to render the episodes.
      verbose: 1 prints each result.
      seed: seed of the environments at each evaluation. With a number, all evaluations begin with
        the same episodes. None derives a seed for each evaluation as described above.

    Attributes:
      best_mean_reward: the highest mean reward among the evaluations of this run.
      last_mean_reward: the mean reward of the latest evaluation.
    """

    @keywords.checked
    def __init__(
        self,
        eval_env: EnvLike,
        callback_on_new_best: CallbackLike = None,
        callback_after_eval: CallbackLike = None,
        n_eval_episodes: int = 5,
        eval_freq: float = 10_000,
        log_path: str | os.PathLike[str] | None = None,
        best_model_save_path: str | os.PathLike[str] | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        seed: int | None = None,
    ):
        super().__init__(callback_after_eval, verbose)
        self.callback_on_new_best = make_callback(callback_on_new_best)
        self.callback_on_new_best.parent = self
        self.eval_env = eval_env
        self.n_eval_episodes = n_eval_episodes
        self.deterministic = deterministic
        self.render = render
        self.seed = seed
        self.log_path = None if log_path is None else Path(log_path)
        self.best_model_save_path = (
            None if best_model_save_path is None else Path(best_model_save_path)
        )
        self.best_mean_reward = self.last_mean_reward = -np.inf
        self._envs: Envs | None = None
        self._made_here = False  # whether this callback made the environments, and closes them
        self._period = Period("eval_freq", eval_freq)
        names = ("timesteps", "results", "ep_lengths", "successes")
        self._history: dict[str, list[Any]] = {name: [] for name in names}

    def next_step(self, step: int) -> float:
        """Return the next step at which an evaluation is due."""
        return self._period.next(step)

    def _children(self) -> list[BaseCallback]:
        return [self.callback, self.callback_on_new_best]

    def check_agent(self, model: Any) -> None:
        """Make the environments.

        Raises:
          ConfigurationError: if the agent trains in them, or if their spaces are not the agent's.
        """
        super().check_agent(model)
        self._close()
        envs, self._made_here = make_evaluation_envs(model, self.eval_env, self.n_eval_episodes)
        if model.trains_in(envs):
            raise ConfigurationError(
                "eval_env is the environment that the agent trains in, and an evaluation would "
                "break off its episodes. Pass another environment, such as an id."
            )
        self._envs = envs

    def state(self) -> dict[str, Any]:
        """Return the results so far, and the states of the callbacks that this callback calls."""
        results = (self.best_mean_reward, self.last_mean_reward)
        best, last = (None if result == -np.inf else result for result in results)
        return {
            **super().state(),
            "periods": self._period.finished,
            "best_mean_reward": best,
            "last_mean_reward": last,
            "history": self._history,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self._period.finished = state["periods"]
        best, last = state["best_mean_reward"], state["last_mean_reward"]
        self.best_mean_reward = -np.inf if best is None else best
        self.last_mean_reward = -np.inf if last is None else last
        self._history = {name: list(values) for name, values in state["history"].items()}

    def _on_training_start(self) -> None:
        if self._begins_run:
            self.best_mean_reward = self.last_mean_reward = -np.inf
        super()._on_training_start()
        self._period.start(self.num_timesteps)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self._close()

    def _close(self) -> None:
        if self._envs is not None and self._made_here:
            self._envs.close()
        self._envs = None

    def _next_seed(self) -> int:
        """Return the seed of the evaluation at this step."""
        if self.seed is not None:
            return self.seed
        # Seed sequences take words of 32 bits.
        sequence = np.random.SeedSequence([self.model.seed % 2**32, self.num_timesteps])
        # A shift by 2 leaves a seed below 2^30. Environment n is seeded with n more, which then
        # fits into 32 bits with a sign.
        return int(sequence.generate_state(1)[0] >> 2)

    def _on_step(self) -> bool:
        if not self._period.is_over(self.num_timesteps):
            return True
        episodes = self._evaluate()
        self.last_mean_reward = float(np.mean(episodes.rewards))
        self._report(episodes)
        proceed = True
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            if self.best_model_save_path is not None:
                path = self.best_model_save_path / "best_model"
                with self.logger.tolerate(str(path)):
                    self.model.save(path, exclude=("replay",))
            proceed = continues(self.callback_on_new_best.on_step())
        return self._on_event() and proceed

    def _evaluate(self) -> Episodes:
        if self._envs is None:  # The callback is used without `learn`.
            self.check_agent(self.model)
        assert self._envs is not None
        return run_episodes(
            self.model,
            self._envs,
            self.n_eval_episodes,
            self.deterministic,
            self.render,
            seed=self._next_seed(),
        )

    def _report(self, episodes: Episodes) -> None:
        """Log and print the result of an evaluation, and add it to the file of all evaluations."""
        mean, std = self.last_mean_reward, float(np.std(episodes.rewards))
        self.logger.record("eval/mean_reward", mean)
        self.logger.record("eval/mean_ep_length", float(np.mean(episodes.lengths)))
        found = [number(info.get("is_success")) for info in episodes.infos]
        successes = [success for success in found if success is not None]
        if successes:
            self.logger.record("eval/success_rate", np.mean(successes))
        self.model.dump_logs()
        if self.verbose:
            tqdm.write(
                f"Evaluation at step {self.num_timesteps}: mean reward {mean:.2f} +- {std:.2f} "
                f"of {len(episodes.rewards)} episodes"
            )
        if self.log_path is not None:
            self._append_history(self.log_path, episodes, successes)

    def _append_history(self, folder: Path, episodes: Episodes, successes: list[float]) -> None:
        """Add an evaluation to the history, and write the whole history to a file."""
        new = (self.num_timesteps, episodes.rewards, episodes.lengths, successes)
        # A new dictionary, because states hold the one before.
        before = self._history.items()
        self._history = {
            name: [*values, value] for (name, values), value in zip(before, new, strict=True)
        }
        # Arrays have as many columns as there are episodes, so all must have reported a success.
        complete = all(len(each) == len(episodes.rewards) for each in self._history["successes"])
        names = [name for name in self._history if name != "successes" or complete]
        history: dict[str, Any] = {name: np.array(self._history[name]) for name in names}
        with self.logger.tolerate(str(folder / "evaluations.npz")):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / ".evaluations.npz"
            np.savez(temporary, **history)
            temporary.replace(folder / "evaluations.npz")  # all or nothing
