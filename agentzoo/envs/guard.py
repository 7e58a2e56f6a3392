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

from agentzoo.background import Background
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
        self._server: _Server | None = None
        self._interrupted = False  # whether the last call has begun, and has not returned

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the result of a function, or raise its error.

        Raises:
          NoAnswer: if the function takes longer than the time limit.
        """
        if self.timeout is None:
            return function(*args, **kwargs)
        # An exception may have come before the thread was started.
        if self._server is None or self._server.thread.ident is None:
            self._server, self._interrupted = _Server(), False
            self._server.thread.start()
        server = self._server
        try:
            if self._interrupted:
                self._discard_results(server)
            self._interrupted = True
            server.calls.put((function, args, kwargs))
            result, error = server.results.get(timeout=self.timeout)
        except queue.Empty:
            raise self._give_up(server) from None
        self._interrupted = False
        if error is not None:
            raise error
        return result

    def _discard_results(self, server: "_Server") -> None:
        """Wait until the thread has done what it was asked to do, and discard the results."""
        mark = object()
        server.calls.put((lambda: mark, (), {}))
        while server.results.get(timeout=self.timeout)[0] is not mark:
            pass
        self._interrupted = False

    def _give_up(self, server: "_Server") -> NoAnswer:
        """Leave the thread to itself, and return the error that says so."""
        self.close()
        return NoAnswer(frame=sys._current_frames().get(server.thread.ident or 0))

    def close(self) -> None:
        """Let the thread end after its current call."""
        server, self._server = self._server, None
        if server is not None:
            server.calls.put(None)

    def __del__(self) -> None:
        self.close()


class _Server:
    """A thread that makes the calls of one `Caller`, until it gets None.

    Attributes:
      thread: the thread.
      calls: functions and their arguments.
      results: results and errors of the calls.
    """

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = Background(self._run, name="environment")

    def _run(self) -> None:
        while (call := self.calls.get()) is not None:
            function, args, kwargs = call
            try:
                self.results.put((function(*args, **kwargs), None))
            except BaseException as error:
                self.results.put((None, error))
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
