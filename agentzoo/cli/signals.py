"""How the command line deals with Ctrl-C, and with a reader that has gone."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

interrupts: list[int] = []
"""The signals of Ctrl-C that came while a command ran."""


@contextlib.contextmanager
def remember_interrupts() -> Iterator[None]:
    """Note each Ctrl-C in `interrupts`, and raise `KeyboardInterrupt` as usual.

    A library may swallow the exception while it is being imported, but not the note.
    """
    previous = signal.getsignal(signal.SIGINT)
    interrupts.clear()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or previous is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: Any) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def reader_is_gone() -> bool:
    """Return whether nobody reads the output any more, as after `agentzoo --help | head -1`.

    If so, the rest of the output is dropped.
    """
    if sys.stdout is None or not hasattr(select, "poll"):  # Windows has no poll
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):
        return False
    # Python flushes once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
