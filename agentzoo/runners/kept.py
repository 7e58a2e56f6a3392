"""Compiled programs that are kept for later agents of the same structure, within bounds.

Programs take memory, and on Linux also memory mappings, of which a process may have 65,530 by
default (`vm.max_map_count`). The programs of one agent take 600 to 900 mappings. A process that
needs more than it may have dies, so the oldest programs are dropped long before.

JAX itself keeps how it has traced each of its own functions for each shape, without a bound. This
takes about 1 MB for each structure of an agent, so it is dropped from time to time, too.

An agent holds its own programs as long as it lives, whether they are kept here or not.
"""

import contextlib
import ctypes
import functools
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from agentzoo.types import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])

MOST = 8
"""How many results of each function are kept. One more, and the older half is dropped."""

_SHARE_KEPT, _SHARE_ALLOWED = 0.5, 0.9  # of the mappings that a process may have

_lock = threading.Lock()
_kept: OrderedDict[Hashable, Any] = OrderedDict()  # the oldest first


def kept(function: Function) -> Function:
    """Return the function, with its last results kept. The arguments must be hashable."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        key = (function, arguments)
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
        make_room(function)
        result = function(*arguments)
        with _lock:
            return _kept.setdefault(key, result)

    return call  # type: ignore[return-value]


def make_room(function: Callable[..., Any]) -> None:
    """Drop the oldest results, so that another one of this function can be kept.

    Raises:
      ConfigurationError: if the process has hardly any mappings left.
    """
    with _lock:
        own = [key for key in _kept if key[0] is function]  # type: ignore[index]
        surplus = own[: len(own) - MOST // 2] if len(own) >= MOST else []
        for key in surplus:
            del _kept[key]
    if surplus:
        _free_memory()
    most, used = most_mappings(), mappings()
    while used > _SHARE_KEPT * most and _kept:
        with _lock:
            for _ in range(min(4, len(_kept))):
                _kept.popitem(last=False)
        _free_memory()
        used = mappings()
    if used > _SHARE_ALLOWED * most:
        raise ConfigurationError(
            f"The process has {used:,} memory mappings, and the system allows {most:,}. Most of "
            f"them belong to the compiled programs of agents that are still in use; delete agents "
            f"that are no longer needed, or raise vm.max_map_count."
        )


def _free_memory() -> None:
    """Free the memory of programs that have been dropped.

    Programs that are in use stay as they are, because JAX keeps them elsewhere.
    """
    gc.collect()  # programs and the functions that they were made from refer to each other
    # JAX's public `clear_caches` would also drop the programs of agents that are in use. If a
    # version of JAX lacks this function, its traces are kept.
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src.util import clear_all_caches

        clear_all_caches()
    # The C library keeps what the compiler has freed. Systems other than Linux lack this function.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def mappings() -> int:
    """Return how many memory mappings this process has; 0 if the system does not say."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def most_mappings() -> int:
    """Return how many memory mappings a process may have."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return 65_530
