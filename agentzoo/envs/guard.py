"""What happens when an environment raises an error or does not answer.

`Guard` holds the user's choice. `Caller` limits the time of a call, `Failures` decides how often an
environment is created again, and `describe` says what an environment raised and where.
"""

import contextlib
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from agentzoo.types import ConfigurationError, EnvError, InvalidStep, TrainingError

MAX_FAILURES = 10
"""Number of failures of an environment within `WINDOW` of its steps that ends the run."""
WINDOW = 1_000
"""Number of steps of an environment in which its failures are counted."""

OnError = Literal["raise", "restart"]
CORRECT = "Correct the environment."
LONGER = "Correct the environment, or choose a longer env_timeout."
RESTART = 'With on_env_error="restart", training goes on in a new environment.'
# Files that are not the user's code: those of agentzoo, and those of the libraries that call it.
_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple(str(Path(str(one.__file__)).parent) for one in (gym, np, contextlib))


class Guard(NamedTuple):
    """What is done about environments that fail.

    Attributes:
      timeout: seconds that a `reset` or a `step` may take; None for any time.
      on_error: "raise" ends the run. "restart" creates the environment again, and begins a new
        episode in it.
    """

    timeout: float | None = None
    on_error: OnError = "raise"

    @property
    def restarts(self) -> bool:
        """Whether environments that fail are created again."""
        return self.on_error == "restart"

    @classmethod
    def make(cls, timeout: Any, on_error: Any) -> "Guard":
        """Check the arguments of a user.

        Raises:
          ConfigurationError: if one of them is out of range.
        """
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if timeout is not None and not (is_number and 0 < timeout <= threading.TIMEOUT_MAX):
            raise ConfigurationError(
                f"env_timeout={timeout!r} is not a time. Pass a positive number of seconds, or "
                "None for no limit."
            )
        if on_error not in ("raise", "restart"):
            raise ConfigurationError(
                f'on_env_error={on_error!r} is unknown. Choose "raise" or "restart".'
            )
        return cls(None if timeout is None else float(timeout), on_error)


UNGUARDED = Guard()
"""Any time for each call, and errors end the run."""


class NoAnswer(Exception):
    """A call took longer than its time limit.

    Attributes:
      env: index of the environment, if it is known.
      place: the line of the user's code that is being run, or "".
      loops: the value of the variable `i` in each method of an object that is being run, by the id
        of the object. In the methods of a `SyncVectorEnv`, it is the index of an environment.
    """

    def __init__(self, env: int | None = None, frame: Any = None):
        super().__init__(env)
        self.env = env
        stack = [] if frame is None else list(traceback.walk_stack(frame))  # innermost first
        self.place = _place(traceback.StackSummary.extract(reversed(stack)))
        self.loops = {
            id(one.f_locals["self"]): one.f_locals["i"]
            for one, _ in stack
            if isinstance(one.f_locals.get("i"), int) and "self" in one.f_locals
        }


class Caller:
    """Calls functions in a thread of its own, and waits a limited time for each result.

    After a call that took too long, the thread is left to itself, and the next call begins another
    thread. Without a time limit, the calling thread does the work.

    Args:
      timeout: the time limit in seconds, or None.
    """

    def __init__(self, timeout: float | None):
        self.timeout = timeout
        self._calls: queue.SimpleQueue[Any] | None = None
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the result of a function, or raise its error.

        Raises:
          NoAnswer: if the function takes longer than the time limit.
        """
        if self.timeout is None:
            return function(*args, **kwargs)
        if self._calls is None:
            self._calls, self._results = queue.SimpleQueue(), queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_serve, args=(self._calls, self._results), name="environment", daemon=True
            )
            self._thread.start()
        self._calls.put((function, args, kwargs))
        try:
            result, error = self._results.get(timeout=self.timeout)
        except BaseException as reason:  # also an interrupt, after which the result would be late
            self.close()
            if isinstance(reason, queue.Empty):
                frame = sys._current_frames().get(self._thread.ident or 0)
                raise NoAnswer(frame=frame) from None
            raise
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let the thread end after its current call."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def __del__(self) -> None:
        self.close()


def _serve(calls: queue.SimpleQueue, results: queue.SimpleQueue) -> None:
    """Make the calls of one `Caller`, until it sends None."""
    while (call := calls.get()) is not None:
        function, args, kwargs = call
        try:
            results.put((function(*args, **kwargs), None))
        except BaseException as error:
            results.put((None, error))
        # An idle thread must not keep environments and observations alive.
        del call, function, args, kwargs


class Failures:
    """Counts the failures of one environment."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=MAX_FAILURES)

    def too_many(self, step: int) -> bool:
        """Count a failure at a step of the environment; return whether there were too many."""
        self._steps.append(step)
        return len(self._steps) == MAX_FAILURES and step - self._steps[0] < WINDOW


def explain(error: Exception, guard: Guard, env: int | None, in_reset: bool) -> Exception:
    """Return the error to raise for an error of an environment.

    Errors whose messages are ours already stay as they are.

    Args:
      error: what the environment raised.
      guard: what is done about failures.
      env: index of the environment, or None.
      in_reset: whether the environment was being reset.
    """
    if isinstance(error, ConfigurationError | TrainingError):
        if isinstance(error, InvalidStep) and error.env is None:
            return InvalidStep(error.problem, env)
        return error
    call = "reset" if in_reset else "step"
    if isinstance(error, NoAnswer):
        where = f" ({error.place})" if error.place else ""
        problem = f"{call} has not answered for {guard.timeout:g} s{where}."
        advice = LONGER if guard.restarts else f"{LONGER} {RESTART}"
    else:
        problem = f"{call} raised {describe(error)}."
        advice = CORRECT if guard.restarts else f"{CORRECT} {RESTART}"
    return EnvError(problem, advice, env, in_reset)


def cause_of(error: BaseException) -> BaseException | None:
    """Return what the `__cause__` of the error that `explain` returns has to be."""
    if isinstance(error, NoAnswer | InvalidStep):
        return None
    return error.__cause__ if isinstance(error, ConfigurationError | TrainingError) else error


def describe(error: BaseException) -> str:
    """Return the type of an error, the first line of its text, and where it was raised."""
    lines = str(error).strip().splitlines()
    text = f": {lines[0].rstrip('. ')}" if lines else ""
    place = _place(traceback.extract_tb(error.__traceback__))
    return f"{type(error).__name__}{text}{f' ({place})' if place else ''}"


def _place(stack: traceback.StackSummary) -> str:
    """Return the innermost line of the user's code in a stack, or ""."""
    frames = [frame for frame in stack if not frame.filename.startswith(_OURS)]
    users = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    for frame in reversed(users or frames):
        path = Path(frame.filename)
        with contextlib.suppress(ValueError, OSError):
            path = path.relative_to(Path.cwd())
        return f"{path}, line {frame.lineno}"
    return ""
