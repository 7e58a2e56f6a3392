"""Threads and signals that have to wait for the end of a training cycle."""

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from agentzoo.types import ConfigurationError


class Turns:
    """Lets other threads take turns with the thread that trains an agent.

    They have to, because JAX overwrites the agent's state during a training cycle.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._learner: int | None = None
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """Return a context in which this thread trains the agent.

        The thread calls `serve` after each cycle.

        Raises:
          ConfigurationError: if the agent is learning already.
        """
        with self._lock:
            if self._learner is not None:
                raise ConfigurationError(
                    "The agent is learning already; wait until `learn` has returned, or make "
                    "another agent."
                )
            self._learner = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._learner = None
                self.serve()

    @property
    def is_awaited(self) -> bool:
        """Whether another thread is waiting for its turn."""
        return bool(self._waiting)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function between training cycles, and return its result."""
        with self._lock:
            if self._learner in (None, threading.get_ident()):
                return function()
            result: Future[Any] = Future()
            self._waiting.append((function, result))
        return result.result()

    def serve(self) -> None:
        """Call the functions for which other threads are waiting."""
        while self._waiting:
            function, result = self._waiting.popleft()
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)


@contextlib.contextmanager
def interrupt_between_cycles() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of a training cycle. A second Ctrl-C does not wait.

    JAX overwrites the agent's state during a cycle, so an interrupt in between would lose it.

    Yields:
      A function that returns whether Ctrl-C was pressed.
    """
    pressed = threading.Event()
    previous = signal.getsignal(signal.SIGINT)
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or previous in (signal.SIG_IGN, None):
        yield pressed.is_set
        return

    def press(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
