"""Threads that have to wait for the end of a training cycle."""

import contextlib
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
            self._learner = None
            with self._lock:
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
