"""Threads that work for the main thread, whatever exception interrupts it.

Python executes signal handlers in the main thread, between any two instructions, and a handler may
raise an exception, as that of Ctrl-C does. If it arrives inside a method of `threading.Condition`,
`Event` or `Future`, a lock may stay locked forever, and other threads wait for it forever. In
Python 3.11, `Thread.join` does not wait any more after an exception has interrupted it. So the main
thread exchanges data with other threads only by `queue.SimpleQueue`, which is written in C, and by
plain attributes.

A thread works under the settings of JAX that hold in the thread that makes it, as in the context
`with jax.default_device(device)`.
"""

import _thread
import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")

exit_code: int | None = None
"""The code with which the process ends soon, as after SIGTERM; None if it does not."""

_PAUSE = 0.001  # seconds between two looks at a thread


class Background:
    """A thread that runs one function.

    Args:
      function: the function.
      arguments: its arguments.
      name: what it does.
      awaited: whether Python waits for the function when the process ends.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, name: str, awaited: bool = False
    ):
        self.name = name
        self._call = function, arguments
        self._settings = jax_settings()
        self._error: BaseException | None = None
        self.awaited = awaited
        self._threads: list[int] = []  # the identifier of the thread, once it has been started
        self._target: Callable[[], Any] = lambda: None  # what the thread calls, as long as it runs
        self._begun = self._ended = False

    def start(self) -> None:
        """Start the thread."""
        _all.add(weakref.ref(self, _all.discard))
        while not self._begun:
            # While Python starts a thread, it may give the new thread an asynchronous exception
            # that was meant for this one. Then the new thread ends before it has begun.
            self._threads.clear()
            target = functools.partial(self._run)
            self._target = weakref.ref(target)
            # `Thread.start` waits for the thread in Python, where an exception could hide that it
            # has started. Here, everything between the call and its record is written in C.
            self._threads.extend(map(_thread.start_new_thread, [target], [()]))
            del target  # so that the thread alone holds it
            while not self._begun and self._target() is not None:
                time.sleep(_PAUSE / 10)

    @property
    def ident(self) -> int | None:
        """The identifier of the thread; None before it has been started."""
        return self._threads[0] if self._threads else None

    @property
    def running(self) -> bool:
        """Whether the function is running."""
        return bool(self._threads) and not self._ended and self._target() is not None

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
        try:
            if error is not None:
                raise error
        finally:
            del error  # which refers to this frame, and to the arguments of the function
        return True

    def _run(self) -> None:
        try:
            self._begun = True
            function, arguments = self._call
            with contextlib.ExitStack() as settings:
                for setting, value in self._settings:
                    if callable(setting):
                        context: Any = setting(value)
                        settings.enter_context(context)
                    else:
                        setting.set_local(value)  # for the rest of the thread
                function(*arguments)
        except BaseException as error:
            self._error = error
        finally:
            del self._call  # which may hold large arrays, as the names below
            function = arguments = None
            self._ended = True


# References, because a thread that could not be started may hold large arrays.
_all: set[weakref.ref[Background]] = set()

if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_all.clear)  # a child process has none of the threads


def running() -> list[Background]:
    """Return the threads that are running."""
    each = [reference() for reference in tuple(_all)]
    return [background for background in each if background is not None and background.running]


def _await_all() -> None:
    for background in running():
        while background.awaited and background.running:
            if exit_code is not None:
                end_process(exit_code)
            time.sleep(_PAUSE)


# JAX has registered its own function when it was imported, so that this one is called before.
atexit.register(_await_all)


def end_process(code: int) -> None:
    """End the process at once, although threads are running that cannot be stopped."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, broken, or closed
            stream.flush()
    for process in multiprocessing.active_children():  # of vector environments
        process.terminate()
    os._exit(code)


def jax_settings() -> list[tuple[Any, Any]]:
    """Return the settings of JAX that hold in this thread alone, and their values.

    A setting that is callable returns a context manager for a value. JAX has no public function for
    this. If a version of it lacks what is used here, there are none.
    """
    try:
        from jax._src import config

        # The context `with mesh:` is left out, because JAX also keeps the mesh elsewhere.
        others = [
            value
            for name, value in vars(config).items()
            if isinstance(value, config.config_ext.Config) and name != "mesh_context_manager"
        ]
        settings = {id(setting): setting for setting in (*config.config_states.values(), *others)}
        unset = config.config_ext.unset
    except (AttributeError, ImportError):
        return []
    values = [(setting, setting.get_local()) for setting in settings.values()]
    return [(setting, value) for setting, value in values if value is not unset]


def jax_context() -> Any:
    """Return a value that is equal in two threads if one program serves both of them.

    It is None if this version of JAX does not say.
    """
    try:
        from jax._src.config import trace_context
    except ImportError:
        return None
    config: Any = jax.config
    return trace_context(), config.jax_default_device, jax_checks_values()


def jax_checks_values() -> bool:
    """Return whether JAX raises an exception if a program returns values that are not finite."""
    config: Any = jax.config
    return config.jax_debug_nans or config.jax_debug_infs


def with_signals_deferred(function: Callable[[], Result]) -> Result:
    """Return the result of a function. The handlers of signals wait until it has ended.

    Only the main thread executes them, so functions in other threads are simply called.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return function()
    received: list[tuple[int, Any]] = []
    handlers = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        try:
            for number in handlers:
                signal.signal(number, lambda *arguments: received.append(arguments))
            return function()
        finally:
            restore_handlers(handlers)
    finally:
        # Once more, because an exception may have interrupted the first time.
        restore_handlers(handlers)
        _handle(received, handlers)


def restore_handlers(handlers: Mapping[int, Any]) -> None:
    """Set the handlers of signals, whatever a handler raises in between."""
    with contextlib.ExitStack() as after:
        for number, handler in handlers.items():
            after.callback(_restore, number, handler)


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
