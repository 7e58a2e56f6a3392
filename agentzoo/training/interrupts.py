"""Ctrl-C and SIGTERM while an agent learns, and errors that follow another error.

After any exception, at any moment, the agent keeps the last finished training cycle; see
`agentzoo.runners.handover`.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from agentzoo import background
from agentzoo.types import EnvError

Result = TypeVar("Result")

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM has ended."""


class FirstError:
    """Runs several parts. Each part runs even if another part raises an error.

    Each part is a block `with first_error:`. The first error is raised at the end. Later errors
    become notes of the first one.

    Attributes:
      error: the first error, or None.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, _: Any, error: BaseException | None, traceback: Any) -> bool:
        if self.error is None:
            self.error = error
        elif error is not None and str(error) != str(self.error):
            self.error.add_note(f"After this, {type(error).__name__} was raised: {error}")
        return True

    def raise_it(self) -> None:
        """Raise the first error if there was one."""
        if self.error is not None:
            raise self.error


class Interrupts:
    """Which signals have arrived.

    Attributes:
      pressed: whether Ctrl-C was pressed.
      terminated: whether SIGTERM was received.
      must_wait: whether SIGTERM has to wait, because the agent is being saved.
    """

    def __init__(self) -> None:
        self.pressed = False
        self.terminated = False
        self.must_wait = False

    def check(self) -> None:
        """Raise the exception of a signal that has arrived.

        Raises:
          KeyboardInterrupt: if Ctrl-C was pressed.
          SystemExit: if SIGTERM was received.
        """
        if self.terminated:
            raise SystemExit(TERMINATED)
        if self.pressed:
            raise KeyboardInterrupt

    def conclude(self, parts: FirstError) -> None:
        """Raise the error with which a run has ended, if there is one.

        A signal that arrived at the end of the run is one. SIGTERM has priority over other errors,
        because the process has to end. Ctrl-C has priority over errors of environments, because in
        a terminal it ends their worker processes, too.
        """
        ends = self.terminated and not isinstance(parts.error, SystemExit)
        if parts.error is None or ends or (self.pressed and isinstance(parts.error, EnvError)):
            self.check()
        parts.raise_it()


@contextlib.contextmanager
def interrupts(on_termination: bool) -> Iterator[Interrupts]:
    """Let Ctrl-C wait for the end of a training cycle, and let SIGTERM raise `SystemExit`.

    A second Ctrl-C does not wait. SIGTERM does not wait, either, because little time may be left,
    but it only raises the exception if the process has no handler of its own. `ray.init` installs
    one, which is replaced for this time.

    Args:
      on_termination: whether to handle SIGTERM.

    Yields:
      The signals that have arrived. The loop checks them after each cycle.
    """
    arrived = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    background.exit_code = None
    previous = signal.getsignal(signal.SIGINT)

    def press(*_: Any) -> None:
        arrived.pressed = True
        signal.signal(signal.SIGINT, previous)

    def terminate(*_: Any) -> None:
        # The loop checks this, too, because some code swallows every exception.
        first, arrived.terminated = not arrived.terminated, True
        background.exit_code = TERMINATED
        if first and not arrived.must_wait:
            raise SystemExit(TERMINATED)

    handlers: dict[int, Any] = {}
    default = signal.getsignal(signal.SIGTERM)
    if previous not in (signal.SIG_IGN, None):
        handlers[signal.SIGINT] = press
    if on_termination and (default is signal.SIG_DFL or _is_of_ray(default)):
        handlers[signal.SIGTERM] = terminate
    replaced = {number: signal.getsignal(number) for number in handlers}
    try:
        try:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            yield arrived
        finally:
            background.restore_handlers(replaced)
    finally:
        # Once more, because an exception may have interrupted the first time.
        background.restore_handlers(replaced)


def _is_of_ray(handler: Any) -> bool:
    """Return whether Ray has installed a handler. It exits with a code that means nothing."""
    return getattr(handler, "__module__", "").startswith("ray.")


def insist(function: Callable[[], Result]) -> Result:
    """Return the result of a function, and call it again if an interrupt breaks it off.

    The function may be called again at any time. Somebody may press Ctrl-C many times.

    Raises:
      Exception: what the function raises itself.
      BaseException: an interrupt, after a hundred of them.
    """
    for _ in range(100):
        try:
            return function()
        except Exception:
            raise
        except BaseException:
            continue
    return function()
