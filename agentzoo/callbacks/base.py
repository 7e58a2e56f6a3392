"""The interface of callbacks, and callbacks that call others."""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from agentzoo.types import ConfigurationError


def continues(answer: Any) -> bool:
    """Return whether training continues after a callback has returned `answer`.

    It continues if the answer is None or true.

    Raises:
      ConfigurationError: if the answer is neither true nor false, as an array of several elements.
    """
    try:
        return answer is None or bool(answer)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"A callback returned an object of type {type(answer).__name__}, which is neither true "
            f"nor false. Return True or None to continue, or False to end the training."
        ) from None


class MissingLocal(KeyError):
    """An entry that the `locals` of callbacks do not have."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would print it as a literal


class Locals(dict[str, Any]):
    """The `locals` of callbacks: a dictionary that says what to do about an entry it lacks."""

    def __missing__(self, name: str) -> Any:
        raise MissingLocal(
            f"locals has no entry {name!r}, because callbacks run between training cycles and not "
            f"after single steps. Choose from {', '.join(self)}, or let a wrapper of the "
            f"environment write what you need into info and log it by info_keywords=."
        )


class BaseCallback:
    """Base class of callbacks. Subclasses override the methods that begin with an underscore.

    `_on_step` returns False to end the training.

    Attributes:
      model: the agent.
      parent: the callback that calls this callback, or None.
      n_calls: how often `on_step` was called in this run.
      num_timesteps: environment steps of the run.
      locals: a dictionary with these entries.

        - `self`: the agent. `total_timesteps`: the step at which the run ends. `log_interval` and
          `reset_num_timesteps`: the arguments of `learn`. `budget`: an `agentzoo.progress.Budget`.
        - `episodes`: the episodes that ended since the last call. Each has `reward`, `length`,
          `info` (that of its last step) and `env`, the index of its environment.
        - `infos` and `dones`: an `info` for each environment, and whether an episode ended there
          since the last call. If an episode ended, `info` is the `info` of its last step, and
          `info["episode"]` holds the return `r`, the length `l` and the time `t` in seconds, as in
          Stable-Baselines3. If no episode ended, `info` is that of the newest step if the agent
          steps the environments in Python (`runner="host"`), and empty otherwise. If several
          episodes ended in one environment, the earlier ones follow after the entries of the N
          environments, so that every episode appears once.

        The arrays of single steps (`rewards`, `actions`, `new_obs`) are absent, because callbacks
        run between training cycles. A wrapper of the environment can write what you need into
        `info`, and `info_keywords` of the agent logs it.
      globals: an empty dictionary, for callbacks that were written for Stable-Baselines3.
    """

    def __init__(self, verbose: int = 0):
        self.verbose = verbose
        # An agent of any algorithm. Callbacks may use whatever that algorithm offers.
        self.model: Any = None
        self.parent: BaseCallback | None = None
        self.n_calls = 0
        self.num_timesteps = 0
        self.locals: dict[str, Any] = {}
        self.globals: dict[str, Any] = {}

    @property
    def logger(self) -> Any:
        """The agent's logger. Its method `record("group/name", value)` adds to the log."""
        return self.model.logger

    @property
    def training_env(self) -> Any:
        """The environments in which the agent trains, as its `get_env` returns them."""
        return self.model.get_env()

    def check_agent(self, model: Any) -> None:
        """Check the agent before a run begins.

        Raises:
          ConfigurationError: if the callback cannot work with this agent.
        """

    def init_callback(self, model: Any) -> None:
        """Set the agent."""
        self.model = model
        self._init_callback()

    def on_training_start(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Run when `learn` begins."""
        self.locals, self.globals = locals_, globals_
        self.num_timesteps = self.model.num_timesteps
        if self._begins_run:
            self.n_calls = 0
        self._on_training_start()

    @property
    def _begins_run(self) -> bool:
        """Whether `learn` begins a new run instead of continuing the last one."""
        return self.locals.get("reset_num_timesteps", True)

    def on_rollout_start(self) -> None:
        """Run before each cycle."""
        self._on_rollout_start()

    def on_step(self) -> bool:
        """Run after each cycle, and return whether training continues."""
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        return continues(self._on_step())

    def next_step(self, step: int) -> float:
        """Return the first environment step after `step` at which `on_step` must be called.

        It is infinity if no step matters. The call is made after the cycle that reaches the step.
        """
        return math.inf

    def on_rollout_end(self) -> None:
        """Run at the end of each cycle, before `on_step`."""
        self.num_timesteps = self.model.num_timesteps
        self._on_rollout_end()

    def on_training_end(self) -> None:
        """Run when `learn` ends."""
        self._on_training_end()

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Replace the entries of `locals` that have changed."""
        self.locals.update(locals_)

    def state(self) -> dict[str, Any]:
        """Return what decides how the callback goes on, as plain JSON.

        It is part of a checkpoint. A subclass adds its own entries to those of `super().state()`,
        and copies of lists and dictionaries that change later. This is called after every training
        cycle.
        """
        return {"n_calls": self.n_calls}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` returned.

        `agentzoo.resume` calls this after `_on_training_start`, and before the first training
        cycle.
        """
        self.n_calls = state["n_calls"]

    def _init_callback(self) -> None: ...

    def _on_training_start(self) -> None: ...

    def _on_rollout_start(self) -> None: ...

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None: ...

    def _on_training_end(self) -> None: ...


def states_of(callbacks: Sequence[BaseCallback]) -> list[dict[str, Any]]:
    """Return the states of several callbacks, each with the name of its class."""
    return [{"name": type(each).__name__, "state": each.state()} for each in callbacks]


def set_states(callbacks: Sequence[BaseCallback], states: Sequence[Mapping[str, Any]]) -> None:
    """Let callbacks go on from what `states_of` returned.

    A callback in the place of one of another class starts without a state, with a warning.
    """
    names = [type(callback).__name__ for callback in callbacks]
    saved = [state["name"] for state in states]
    if names != saved:
        warnings.warn(
            f"The run had the callbacks [{', '.join(saved)}], but [{', '.join(names)}] were "
            f"passed. Pass the same callbacks in the same order; the others start without their "
            f"state.",
            RuntimeWarning,
            stacklevel=_level_of_user(),
        )
    for callback, name, state in zip(callbacks, names, states, strict=False):
        if name == state["name"]:
            callback.set_state(state["state"])


def _level_of_user() -> int:
    """Return the `stacklevel` with which the caller warns about the code that calls agentzoo."""
    frames = inspect.stack(0)[1:]
    names = [one.frame.f_globals.get("__name__", "") for one in frames]
    ours = itertools.takewhile(lambda name: name.startswith("agentzoo."), names)
    return 1 + len(list(ours))


class ConvertCallback(BaseCallback):
    """A plain function as a callback.

    Args:
      function: a function of the agent, or of `(locals, globals)` as in Stable-Baselines3, with the
        agent as `locals["self"]`.
      verbose: has no effect.

    Raises:
      ConfigurationError: if the function takes neither one nor two arguments.
    """

    def __init__(self, function: Callable[..., Any], verbose: int = 0):
        super().__init__(verbose)
        self.function = function
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        positional = [p for p in parameters if p.kind in kinds]
        required = [p for p in positional if p.default is p.empty]
        self._num_arguments = len(required or positional)
        if self._num_arguments not in (1, 2):
            raise ConfigurationError(
                f"The callback function takes {self._num_arguments} arguments. Write a function of "
                f"one argument, the agent, or two, locals and globals."
            )

    def _on_step(self) -> bool:
        arguments = (self.model,) if self._num_arguments == 1 else (self.locals, self.globals)
        return self.function(*arguments)


class CallbackList(BaseCallback):
    """Several callbacks, called in order. Training ends if any of them ends it."""

    def __init__(self, callbacks: "Sequence[BaseCallback | Callable[..., Any]]"):
        super().__init__()
        self.callbacks = [make_callback(callback) for callback in callbacks]

    def check_agent(self, model: Any) -> None:
        """Let all callbacks check the agent."""
        self._adopt()
        for callback in self.callbacks:
            callback.check_agent(model)

    def init_callback(self, model: Any) -> None:
        """Set the agent of all callbacks."""
        super().init_callback(model)
        self._adopt()
        for callback in self.callbacks:
            callback.init_callback(model)

    def _adopt(self) -> None:
        """Give the callbacks of the list the parent of the list."""
        for callback in self.callbacks:
            callback.parent = self.parent or callback.parent

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Replace the entries of `locals` that have changed, in all callbacks."""
        super().update_locals(locals_)
        for callback in self.callbacks:
            callback.update_locals(locals_)

    def state(self) -> dict[str, Any]:
        """Return the states of all callbacks."""
        return {**super().state(), "callbacks": states_of(self.callbacks)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Let all callbacks go on from what `state` returned."""
        super().set_state(state)
        set_states(self.callbacks, state["callbacks"])

    def next_step(self, step: int) -> float:
        """Return the earliest step that one of the callbacks asks for."""
        return min((callback.next_step(step) for callback in self.callbacks), default=math.inf)

    def _on_training_start(self) -> None:
        for callback in self.callbacks:
            callback.on_training_start(self.locals, self.globals)

    def _on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def _on_step(self) -> bool:
        # A list, so that all callbacks are called even if one of them ends the training.
        return all([continues(callback.on_step()) for callback in self.callbacks])

    def _on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        for callback in self.callbacks:
            callback.on_training_end()


class EventCallback(BaseCallback):
    """A callback that calls another one when something happens.

    Args:
      callback: the callback to call.
      verbose: for subclasses that print something.
    """

    def __init__(self, callback: "CallbackLike" = None, verbose: int = 0):
        super().__init__(verbose)
        self.callback = make_callback(callback)
        self.callback.parent = self

    def _children(self) -> "list[BaseCallback]":
        """Return the callbacks that this callback calls."""
        return [self.callback]

    def check_agent(self, model: Any) -> None:
        """Let the callbacks that this callback calls check the agent."""
        for callback in self._children():
            callback.check_agent(model)

    def init_callback(self, model: Any) -> None:
        """Set the agent of this callback and of those that it calls."""
        super().init_callback(model)
        for callback in self._children():
            callback.init_callback(model)

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Replace the entries of `locals` that have changed, here and in the called callbacks."""
        super().update_locals(locals_)
        for callback in self._children():
            callback.update_locals(locals_)

    def state(self) -> dict[str, Any]:
        """Return the state of this callback and of those that it calls."""
        return {**super().state(), "callbacks": states_of(self._children())}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, with the callbacks that this callback calls."""
        super().set_state(state)
        set_states(self._children(), state["callbacks"])

    def _on_training_start(self) -> None:
        for callback in self._children():
            callback.on_training_start(self.locals, self.globals)

    def _on_training_end(self) -> None:
        for callback in self._children():
            callback.on_training_end()

    def _on_event(self) -> bool:
        return continues(self.callback.on_step())


CallbackLike: TypeAlias = (
    BaseCallback | Callable[..., Any] | Sequence["BaseCallback | Callable[..., Any]"] | None
)


def make_callback(callback: CallbackLike) -> BaseCallback:
    """Return a callback made from what users may pass: a callback, a function, a list, or None.

    Raises:
      ConfigurationError: if it is something else.
    """
    if callback is None:
        return CallbackList([])
    if isinstance(callback, BaseCallback):
        return callback
    if inspect.isclass(callback) and issubclass(callback, BaseCallback):
        raise ConfigurationError(
            f"callback is the class {callback.__name__}. Pass an object of it: "
            f"{callback.__name__}(...)."
        )
    if callable(callback):
        return ConvertCallback(callback)
    if isinstance(callback, list | tuple):
        return CallbackList([make_callback(entry) for entry in callback])
    raise ConfigurationError(
        f"callback is of type {type(callback).__name__}. Pass a BaseCallback, a function, or a "
        f"list of both."
    )
