"""Callbacks, in the shape that users of Stable-Baselines3 know.

They run between training cycles, which are `train_freq` steps long for DQN: `on_step` is called
once per cycle, when the agent has learned from it. Frequencies (`eval_freq`, `save_freq`,
`n_steps`) count environment steps, whatever the number of environments.

With environments that are compiled together with the agent, cycles are run in chunks, and `on_step`
is called once per chunk, a few times a second. A callback that is wanted at certain steps says so
by `next_step`, as those with frequencies do, and is called in the cycle that reaches them:
`EveryNTimesteps(1, callback)` calls in every cycle.

Training goes on as long as every callback returns None or something true. Anything else ends it:
False, 0, a NumPy or JAX boolean.

A callback object may be used for several calls of `learn`. A new run (`reset_num_timesteps=True`)
begins with `n_calls` 0 and without a best evaluation. The limits of `StopTrainingOnMaxEpisodes` and
`StopTrainingOnNoModelImprovement` apply to each call of `learn`, as `total_timesteps` does.
"""

import inspect
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from agentzoo import progress
from agentzoo.envs import EnvLike, Envs, number
from agentzoo.evaluation import make_evaluation_envs, run_episodes
from agentzoo.types import ConfigurationError


def proceeds(answer: Any) -> bool:
    """Whether training goes on after a callback has returned this: if it is None or true.

    Raises:
      ConfigurationError: if it is neither true nor false, as an array of several elements.
    """
    try:
        return answer is None or bool(answer)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"A callback returned an object of type {type(answer).__name__}, which is neither true "
            f"nor false; return True or None to go on, or False to end the training."
        ) from None


class BaseCallback:
    """Override the methods that begin with an underscore.

    `_on_step` returns False to end the training.

    Attributes:
      model: the agent.
      parent: the callback that calls this one, if there is one.
      n_calls: how often `on_step` was called in this run.
      num_timesteps: environment steps of the run.
      locals: a dictionary with these entries.

        - `self`: the agent. `total_timesteps`: the step at which the run ends. `log_interval` and
          `reset_num_timesteps`: the arguments of `learn`. `budget`: an `agentzoo.progress.Budget`.
        - `episodes`: the episodes that ended since the last call, with `reward`, `length`, `info`
          of the last step, and `env`, the index of the environment.
        - `infos` and `dones`: for each environment, whether an episode ended since the last call,
          and an `info`. If one ended, `info` is the one of its last step, with `info["episode"]` as
          Stable-Baselines3 adds it: return `r`, length `l` and seconds `t`. If none ended, `info`
          is the one of the newest step where the agent steps the environments in Python
          (`runner="host"`), and empty elsewhere. If several episodes ended in one environment, the
          earlier ones come after the N entries of the environments, so that every episode appears
          once.

        The arrays of single steps (`rewards`, `actions`, `new_obs`) are absent, because callbacks
        run between training cycles.
      globals: empty; kept for callbacks that were written for Stable-Baselines3.
    """

    def __init__(self, verbose: int = 0):
        self.verbose = verbose
        self.model: Any = None
        self.parent: BaseCallback | None = None
        self.n_calls = 0
        self.num_timesteps = 0
        self.locals: dict[str, Any] = {}
        self.globals: dict[str, Any] = {}

    @property
    def logger(self) -> Any:
        """The agent's logger: `self.logger.record("group/name", value)`."""
        return self.model.logger

    @property
    def training_env(self) -> Any:
        """The environments that the agent trains in; see the agent's `get_env`."""
        return self.model.get_env()

    def check_agent(self, model: Any) -> None:
        """Called before a run begins.

        Raises:
          ConfigurationError: if the callback cannot work with this agent.
        """

    def init_callback(self, model: Any) -> None:
        """Tells the callback its agent."""
        self.model = model
        self._init_callback()

    def on_training_start(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Called when `learn` begins."""
        self.locals, self.globals = locals_, globals_
        self.num_timesteps = self.model.num_timesteps
        if self._begins_run:
            self.n_calls = 0
        self._on_training_start()

    @property
    def _begins_run(self) -> bool:
        """Whether `learn` begins a new run, rather than going on with the last one."""
        return self.locals.get("reset_num_timesteps", True)

    def on_rollout_start(self) -> None:
        """Called before each cycle."""
        self._on_rollout_start()

    def on_step(self) -> bool:
        """Called after each cycle; returns whether the training goes on."""
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        return proceeds(self._on_step())

    def next_step(self, step: int) -> float:
        """The environment step, after `step`, in whose cycle `on_step` must be called; infinity if it does not matter."""
        return math.inf

    def on_rollout_end(self) -> None:
        """Called at the end of each cycle, before `on_step`."""
        self.num_timesteps = self.model.num_timesteps
        self._on_rollout_end()

    def on_training_end(self) -> None:
        """Called when `learn` ends."""
        self._on_training_end()

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Hands over what has changed in `locals`."""
        self.locals.update(locals_)

    def _init_callback(self) -> None: ...

    def _on_training_start(self) -> None: ...

    def _on_rollout_start(self) -> None: ...

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None: ...

    def _on_training_end(self) -> None: ...


class ConvertCallback(BaseCallback):
    """A plain function as a callback: `f(agent)`, or `f(locals, globals)` as in Stable-Baselines3 with the agent as `locals["self"]`."""

    def __init__(self, function: Callable[..., Any], verbose: int = 0):
        super().__init__(verbose)
        self.function = function
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        positional = [p for p in parameters if p.kind in kinds]
        required = [p for p in positional if p.default is p.empty]
        self._arguments = len(required or positional)
        if self._arguments not in (1, 2):
            raise ConfigurationError(
                "A callback function takes either one argument, the agent, or two, locals and globals."
            )

    def _on_step(self) -> bool:
        arguments = (self.model,) if self._arguments == 1 else (self.locals, self.globals)
        return self.function(*arguments)


class CallbackList(BaseCallback):
    """Several callbacks, called in order. Training ends as soon as one of them says so."""

    def __init__(self, callbacks: "Sequence[BaseCallback | Callable[..., Any]]"):
        super().__init__()
        self.callbacks = [make_callback(callback) for callback in callbacks]

    def check_agent(self, model: Any) -> None:
        """Asks all callbacks."""
        self._adopt()
        for callback in self.callbacks:
            callback.check_agent(model)

    def init_callback(self, model: Any) -> None:
        """Tells the callbacks their agent."""
        super().init_callback(model)
        self._adopt()
        for callback in self.callbacks:
            callback.init_callback(model)

    def _adopt(self) -> None:
        """Passes the parent on, so that the callbacks of a list find what calls the list."""
        for callback in self.callbacks:
            callback.parent = self.parent or callback.parent

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Hands over what has changed in `locals`."""
        super().update_locals(locals_)
        for callback in self.callbacks:
            callback.update_locals(locals_)

    def next_step(self, step: int) -> float:
        """The earliest of those of the callbacks."""
        return min((callback.next_step(step) for callback in self.callbacks), default=math.inf)

    def _on_training_start(self) -> None:
        for callback in self.callbacks:
            callback.on_training_start(self.locals, self.globals)

    def _on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def _on_step(self) -> bool:
        return all([proceeds(callback.on_step()) for callback in self.callbacks])

    def _on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        for callback in self.callbacks:
            callback.on_training_end()


class EventCallback(BaseCallback):
    """Calls another callback when something happens."""

    def __init__(self, callback: "CallbackLike" = None, verbose: int = 0):
        super().__init__(verbose)
        self.callback = make_callback(callback)
        self.callback.parent = self

    def _children(self) -> "list[BaseCallback]":
        """The callbacks that this one calls."""
        return [self.callback]

    def check_agent(self, model: Any) -> None:
        """Asks the callbacks that this one calls."""
        for callback in self._children():
            callback.check_agent(model)

    def init_callback(self, model: Any) -> None:
        """Tells all callbacks their agent."""
        super().init_callback(model)
        for callback in self._children():
            callback.init_callback(model)

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Hands over what has changed in `locals`."""
        super().update_locals(locals_)
        for callback in self._children():
            callback.update_locals(locals_)

    def _on_training_start(self) -> None:
        for callback in self._children():
            callback.on_training_start(self.locals, self.globals)

    def _on_training_end(self) -> None:
        for callback in self._children():
            callback.on_training_end()

    def _on_event(self) -> bool:
        return proceeds(self.callback.on_step())


class _Every:
    """Tells when another `period` environment steps are over."""

    def __init__(self, name: str, period: float):
        if not (isinstance(period, int | float | np.number) and period >= 1):
            raise ConfigurationError(
                f"{name}={period}; expected a number of environment steps, at least 1."
            )
        self.period = int(period)
        self._last = 0

    def start(self, step: int) -> None:
        self._last = step // self.period

    def next(self, step: int) -> int:
        return (step // self.period + 1) * self.period

    def is_due(self, step: int) -> bool:
        last, self._last = self._last, step // self.period
        return self._last > last


class EveryNTimesteps(EventCallback):
    """Calls a callback every `n_steps` environment steps."""

    def __init__(self, n_steps: float, callback: "CallbackLike"):
        super().__init__(callback)
        self._every = _Every("n_steps", n_steps)

    def next_step(self, step: int) -> float:
        """When it is due."""
        return self._every.next(step)

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        return self._on_event() if self._every.is_due(self.num_timesteps) else True


class LogEveryNTimesteps(EveryNTimesteps):
    """Writes the log every `n_steps` environment steps, beside `log_interval`."""

    def __init__(self, n_steps: float):
        super().__init__(n_steps, lambda agent: agent.dump_logs())


class CheckpointCallback(BaseCallback):
    """Saves the agent every `save_freq` environment steps.

    The files are `<save_path>/<name_prefix>_<step>_steps.safetensors`.

    Args:
      save_freq: environment steps between two files.
      save_path: the folder.
      name_prefix: the beginning of the files' names.
      save_replay_buffer: whether to save the replay of an agent that has one.
      verbose: 1 prints each path.
    """

    def __init__(
        self,
        save_freq: float,
        save_path: str | os.PathLike,
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.save_path, self.name_prefix, self.save_replay_buffer = (
            Path(save_path),
            name_prefix,
            save_replay_buffer,
        )
        self._every = _Every("save_freq", save_freq)

    def next_step(self, step: int) -> float:
        """When it is due."""
        return self._every.next(step)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            path = self.save_path / f"{self.name_prefix}_{self.num_timesteps}_steps"
            path = self.model.save(path, exclude=() if self.save_replay_buffer else ("replay",))
            if self.verbose:
                tqdm.write(f"Saved {path}")
        return True


class EvalCallback(EventCallback):
    """Evaluates the agent in an environment of its own every `eval_freq` environment steps, and keeps the best.

    It logs `eval/mean_reward` and `eval/mean_ep_length`, and `eval/success_rate` where the `info`
    of an episode's last step has an entry "is_success".

    Each evaluation resets its environments with a seed that follows from the agent's seed and the
    number of steps trained. So equal runs are evaluated in the same episodes, and the evaluations
    of a run in different ones.

    Args:
      eval_env: an id, a factory, an environment or a vector environment; not the one that the agent
        trains in. What is made of an id or by a factory is kept until `learn` ends.
      callback_on_new_best: called when the mean reward is a new best.
      callback_after_eval: called after each evaluation.
      n_eval_episodes: episodes per evaluation.
      eval_freq: environment steps between evaluations.
      log_path: folder for `evaluations.npz` (arrays `timesteps`, `results`, `ep_lengths`).
      best_model_save_path: folder for `best_model.safetensors`, without the replay.
      deterministic: whether to leave out exploration.
      render: whether to render the episodes.
      verbose: 1 prints each result.
      seed: of the environments, at each evaluation. With a number, all evaluations begin the same
        episodes; None derives a seed for each evaluation as described above.

    Attributes:
      best_mean_reward: the highest of the evaluations of this run.
      last_mean_reward: the latest one.
    """

    def __init__(
        self,
        eval_env: EnvLike,
        callback_on_new_best: "CallbackLike" = None,
        callback_after_eval: "CallbackLike" = None,
        n_eval_episodes: int = 5,
        eval_freq: float = 10_000,
        log_path: str | os.PathLike | None = None,
        best_model_save_path: str | os.PathLike | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        seed: int | None = None,
    ):
        super().__init__(callback_after_eval, verbose)
        self.callback_on_new_best = make_callback(callback_on_new_best)
        self.callback_on_new_best.parent = self
        self.eval_env, self.n_eval_episodes, self.deterministic, self.render = (
            eval_env,
            n_eval_episodes,
            deterministic,
            render,
        )
        self.seed = seed
        self._envs: Envs | None = None
        self._ours = False  # whether the environments were made here
        self.log_path = Path(log_path) if log_path is not None else None
        self.best_model_save_path = (
            Path(best_model_save_path) if best_model_save_path is not None else None
        )
        self.best_mean_reward = self.last_mean_reward = -np.inf
        self._every = _Every("eval_freq", eval_freq)
        names = ("timesteps", "results", "ep_lengths", "successes")
        self._history: dict[str, list[Any]] = {name: [] for name in names}

    def next_step(self, step: int) -> float:
        """When it is due."""
        return self._every.next(step)

    def _children(self) -> list[BaseCallback]:
        return [self.callback, self.callback_on_new_best]

    def check_agent(self, model: Any) -> None:
        """Makes the environments.

        Raises:
          ConfigurationError: if the agent trains in them, or their spaces are not those of the
            agent.
        """
        super().check_agent(model)
        self._close()
        envs, self._ours = make_evaluation_envs(model, self.eval_env, self.n_eval_episodes)
        if model.trains_in(envs):
            raise ConfigurationError(
                "EvalCallback was given the environment that the agent trains in, whose episodes "
                "an evaluation would break off; give it an environment of its own, such as an id."
            )
        self._envs = envs

    def _on_training_start(self) -> None:
        if self._begins_run:
            self.best_mean_reward = self.last_mean_reward = -np.inf
        super()._on_training_start()
        self._every.start(self.num_timesteps)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self._close()

    def _close(self) -> None:
        if self._envs is not None and self._ours:
            self._envs.close()
        self._envs = None

    def _next_seed(self) -> int:
        """The seed of the evaluation at this step."""
        if self.seed is not None:
            return self.seed
        sequence = np.random.SeedSequence([self.model.seed % 2**32, self.num_timesteps])
        # Below 2^30, so that the seeds of further environments fit into 32 bits.
        return int(sequence.generate_state(1)[0] >> 2)

    def _on_step(self) -> bool:
        if not self._every.is_due(self.num_timesteps):
            return True
        if self._envs is None:  # the callback is used without `learn`
            self.check_agent(self.model)
        assert self._envs is not None
        rewards, lengths, infos = run_episodes(
            self.model,
            self._envs,
            self.n_eval_episodes,
            self.deterministic,
            self.render,
            seed=self._next_seed(),
        )
        mean, std = float(np.mean(rewards)), float(np.std(rewards))
        self.last_mean_reward = mean
        self.logger.record("eval/mean_reward", mean)
        self.logger.record("eval/mean_ep_length", float(np.mean(lengths)))
        successes = [number(info.get("is_success")) for info in infos]
        successes = [success for success in successes if success is not None]
        if successes:
            self.logger.record("eval/success_rate", np.mean(successes))
        self.model.dump_logs()
        if self.verbose:
            tqdm.write(
                f"Evaluation at step {self.num_timesteps}: mean reward {mean:.2f} +- {std:.2f} of {len(rewards)} episodes"
            )
        if self.log_path is not None:
            self._append_history(rewards, lengths, successes)
        proceed = True
        if mean > self.best_mean_reward:
            self.best_mean_reward = mean
            if self.best_model_save_path is not None:
                self.model.save(self.best_model_save_path / "best_model", exclude=("replay",))
            proceed = proceeds(self.callback_on_new_best.on_step())
        return self._on_event() and proceed

    def _append_history(self, *results: list[Any]) -> None:
        """Keeps rewards, lengths and successes of an evaluation, and writes those of all."""
        assert self.log_path is not None
        for name, value in zip(self._history, (self.num_timesteps, *results), strict=True):
            self._history[name].append(value)
        rewards = results[0]
        self.log_path.mkdir(parents=True, exist_ok=True)
        complete = all(len(each) == len(rewards) for each in self._history["successes"])
        names = [name for name in self._history if name != "successes" or complete]
        history: dict[str, Any] = {name: np.array(self._history[name]) for name in names}
        np.savez(self.log_path / "evaluations.npz", **history)


class _StopTrainingAfterEvaluation(BaseCallback):
    """A callback that only an `EvalCallback` can call."""

    def check_agent(self, model: Any) -> None:
        """Looks for the `EvalCallback`."""
        _evaluation_of(self)


class StopTrainingOnRewardThreshold(_StopTrainingAfterEvaluation):
    """Ends the training when the best mean reward reaches a threshold; use as `callback_on_new_best` of `EvalCallback`."""

    def __init__(self, reward_threshold: float, verbose: int = 0):
        super().__init__(verbose)
        self.reward_threshold = reward_threshold

    def _on_step(self) -> bool:
        best = _evaluation_of(self).best_mean_reward
        if best >= self.reward_threshold and self.verbose:
            tqdm.write(
                f"Stopping: the mean reward {best:.2f} reached the threshold {self.reward_threshold}"
            )
        return best < self.reward_threshold


class StopTrainingOnNoModelImprovement(_StopTrainingAfterEvaluation):
    """Ends the training after more than `max_no_improvement_evals` evaluations in a row without a new best.

    Each call of `learn` counts anew. Use as `callback_after_eval` of `EvalCallback`; the first
    `min_evals` evaluations do not count.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0, verbose: int = 0):
        super().__init__(verbose)
        self.max_no_improvement_evals, self.min_evals = max_no_improvement_evals, min_evals
        self.no_improvement_evals = 0
        self._best = -np.inf

    def _on_training_start(self) -> None:
        self.no_improvement_evals, self._best = 0, _evaluation_of(self).best_mean_reward

    def _on_step(self) -> bool:
        best = _evaluation_of(self).best_mean_reward
        improved, self._best = best > self._best, best
        if self.n_calls > self.min_evals:
            self.no_improvement_evals = 0 if improved else self.no_improvement_evals + 1
        proceed = self.no_improvement_evals <= self.max_no_improvement_evals
        if not proceed and self.verbose:
            tqdm.write(f"Stopping: no new best in the last {self.no_improvement_evals} evaluations")
        return proceed


def _evaluation_of(callback: BaseCallback) -> EvalCallback:
    parent = callback.parent
    while parent is not None and not isinstance(parent, EvalCallback):
        parent = parent.parent
    if parent is None:
        raise ConfigurationError(
            f"{type(callback).__name__} must be given to an EvalCallback, not to learn() itself."
        )
    return parent


class StopTrainingOnMaxEpisodes(BaseCallback):
    """Ends the training after `max_episodes` episodes in each environment.

    They are counted over all environments together. Each call of `learn` counts anew.
    """

    def __init__(self, max_episodes: int, verbose: int = 0):
        super().__init__(verbose)
        self.max_episodes, self.n_episodes = max_episodes, 0

    def next_step(self, step: int) -> float:
        """When the last of the episodes can be over, if each takes a single step."""
        return step + max(1, self.max_episodes * self.model.n_envs - self.n_episodes)

    def _on_training_start(self) -> None:
        self.n_episodes = 0

    def _on_step(self) -> bool:
        self.n_episodes += len(self.locals["episodes"])
        proceed = self.n_episodes < self.max_episodes * self.model.n_envs
        if not proceed and self.verbose:
            tqdm.write(f"Stopping: {self.n_episodes} episodes are over")
        return proceed


class ProgressBarCallback(BaseCallback):
    """Shows the mean return of the last 100 episodes, the speed, and the time left.

    It is a bar in a terminal or a notebook. Elsewhere it is one line for each entry of the log.
    """

    def _on_training_start(self) -> None:
        self._budget, name = self.locals["budget"], type(self.model).__name__
        if note := self._budget.note(name):
            progress.write(note)
        first = self._budget.first
        self._progress = progress.Progress(name, first, self._budget.end(first))
        self._logged = first // self.locals["log_interval"]

    def _on_step(self) -> bool:
        step, interval = self.num_timesteps, self.locals["log_interval"]
        note = f"return {self.model.ep_rew_mean:.1f}" if self.locals["episodes"] else ""
        due = step // interval > self._logged
        self._logged = step // interval
        self._progress.move(step, self._budget.end(step), note, due)
        return True

    def _on_training_end(self) -> None:
        self._progress.close()


CallbackLike = (
    BaseCallback | Callable[..., Any] | Sequence["BaseCallback | Callable[..., Any]"] | None
)


def make_callback(callback: CallbackLike) -> BaseCallback:
    """A callback from what users may give: one, a function, a list of those, or nothing.

    Raises:
      ConfigurationError: if it is something else.
    """
    if callback is None:
        return CallbackList([])
    if isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, type) and issubclass(callback, BaseCallback):
        raise ConfigurationError(
            f"callback is the class {callback.__name__}; write {callback.__name__}(...), which makes one."
        )
    if isinstance(callback, list | tuple):
        return CallbackList([make_callback(one) for one in callback])
    if callable(callback):
        return ConvertCallback(callback)
    raise ConfigurationError(
        f"callback is {type(callback).__name__}; expected a BaseCallback, a function, or a list of those."
    )
