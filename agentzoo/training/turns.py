"""Threads that have to wait for the end of a training cycle."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from agentzoo.types import ConfigurationError

_PATIENCE = 0.5  # seconds after which a waiting thread looks whether somebody still trains


class Turns:
    """Lets other threads take turns with the thread that trains an agent.

    They have to, because JAX overwrites the agent's state during a training cycle.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._learner: int | None = None
        self._waiting: deque[_Request] = deque()

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """Return a context in which this thread trains the agent.

        The thread calls `serve` after each cycle.

        Raises:
          ConfigurationError: if the agent is learning already.
        """
        begun = False
        try:
            try:
                with self._lock:
                    if self._learner is not None:
                        raise ConfigurationError(
                            "The agent is learning already; wait until `learn` has returned, or "
                            "make another agent."
                        )
                    begun = True
                    self._learner = threading.get_ident()
                yield
            finally:
                if begun:
                    self._learner = None
        finally:
            if begun:
                # Once more, because an exception may have come before. If not, another thread may
                # have begun to train the agent meanwhile.
                if self._learner == threading.get_ident():
                    self._learner = None
                with self._lock:
                    self.serve()

    @property
    def is_learning(self) -> bool:
        """Whether a thread trains the agent, perhaps this one."""
        return self._learner is not None

    @property
    def is_awaited(self) -> bool:
        """Whether another thread is waiting for its turn."""
        return bool(self._waiting)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function between training cycles, and return its result.

        If an exception ends the training before the function has been called, or while it is being
        called, it is called afterwards.
        """
        with self._lock:
            if self._learner in (None, threading.get_ident()):
                return function()
            request = _Request(function)
            self._waiting.append(request)
        while True:
            with contextlib.suppress(queue.Empty):
                result, error = request.answer.get(timeout=_PATIENCE)
                if error is not None:
                    raise error
                return result
            with self._lock:
                if self._learner is None and request.answer.empty():
                    with contextlib.suppress(ValueError):
                        self._waiting.remove(request)
                    return function()

    def serve(self) -> None:
        """Call the functions for which other threads are waiting."""
        while self._waiting:
            request = self._waiting.popleft()
            try:
                answer = request.function(), None
            except Exception as error:
                answer = None, error
            except BaseException:  # an interrupt, which is not the other thread's error
                self._waiting.appendleft(request)
                raise
            request.answer.put(answer)


class _Request:
    """A function for which a thread is waiting.

    Attributes:
      function: the function.
      answer: gets what the function returns and what it raises. One of them is None.
    """

    def __init__(self, function: Callable[[], Any]):
        self.function = function
        self.answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
