"""Threads that work for the main thread, whatever exception interrupts it.

Python executes signal handlers in the main thread, between any two instructions, and a handler may
raise an exception, as that of Ctrl-C does. If it arrives inside a method of `threading.Condition`,
`Event` or `Future`, a lock may stay locked forever, and other threads wait for it forever. In
Python 3.11, `Thread.join` does not wait any more after an exception has interrupted it. So the main
thread exchanges data with other threads only by `queue.SimpleQueue`, which is written in C, and by
plain attributes.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

COMPILE = "agentzoo compile"
"""The name of threads that compile a program."""

_PAUSE = 0.001  # seconds between two looks at a thread


class Background:
    """A thread that runs one function.

    Args:
      function: the function.
      arguments: its arguments.
      name: the name of the thread.
      daemon: whether the process may end before the function does.

    Attributes:
      running: whether the function is running.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, name: str, daemon: bool = True
    ):
        self.running = False
        self._call = function, arguments
        self._thread = threading.Thread(target=self._run, name=name, daemon=daemon)
        self._error: BaseException | None = None
        self._permits = [None]  # whoever takes it decides whether the function runs

    def start(self) -> None:
        """Start the thread."""
        with signals_deferred():
            self.running = True
            try:
                self._thread.start()
            except BaseException:  # the system has no more threads, or an exception came
                # Nobody knows whether the thread has started. If it comes later, it does nothing.
                with contextlib.suppress(IndexError):
                    self._permits.pop()
                    self.running = False
                raise

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until the function has ended, or until the time is over.

        Returns:
          Whether the function has ended.

        Raises:
          BaseException: what the function has raised. It is raised once.
        """
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def _run(self) -> None:
        try:
            self._permits.pop()
        except IndexError:  # `start` has failed
            return
        function, arguments = self._call
        try:
            function(*arguments)
        except BaseException as error:
            self._error = error
        finally:
            del self._call, function, arguments  # they may hold large arrays
            self.running = False


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Let the handlers of signals wait for the end of the context.

    Only the main thread executes them, so the context has no effect in other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, Any]] = []
    handlers = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    # Whatever a handler raises while they are exchanged, all of them are restored.
    with contextlib.ExitStack() as after:
        after.callback(_handle, received, handlers)
        for number, handler in handlers.items():
            after.callback(_restore, number, handler)
        for number in handlers:
            signal.signal(number, lambda *arguments: received.append(arguments))
        yield


def _restore(number: int, handler: Any) -> None:
    """Set the handler of a signal, even if another handler raises an exception at this moment."""
    try:
        signal.signal(number, handler)
    except BaseException:  # comes before the handler is set
        signal.signal(number, handler)
        raise


def _handle(received: list[tuple[int, Any]], handlers: dict[int, Any]) -> None:
    """Handle all signals that have arrived, even if a handler raises an exception."""
    with contextlib.ExitStack() as calls:
        for number, frame in reversed(received):
            calls.callback(handlers[number], number, frame)
