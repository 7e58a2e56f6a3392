"""Settings of the process in which agents are trained. Making an agent applies them."""

import contextlib
import ctypes
import functools
import os
import sys
from typing import Any

import jax

resource: Any
try:
    import resource
except ImportError:
    resource = None  # Windows has no such module.


@functools.cache
def tune_process() -> None:
    """Apply settings that make training faster, once per process. A user's settings have priority.

    On the CPU, JAX runs programs in the thread that calls them, because handing a small program to
    another thread takes longer than the program. This has an effect only before JAX runs its first
    program, and `JAX_CPU_ENABLE_ASYNC_DISPATCH` overrides it.

    On Linux, glibc keeps up to 512 MiB of freed memory, unless one of its variables `MALLOC_...` is
    set. XLA allocates the intermediate results of a program anew in every call. By default, it
    depends on their exact size whether glibc returns them to the system each time, and then every
    page has to be fetched again. That took a fifth of the time of some gradient steps.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return
    trim_threshold, mmap_threshold = -1, -3  # the numbers of these parameters in malloc.h
    mallopt(trim_threshold, 512 * 2**20)
    # Setting one threshold fixes the other one at its small default, so set both.
    mallopt(mmap_threshold, 256 * 2**20)


def host_memory() -> float:
    """Return how many bytes of memory this process can use, or infinity if that is not known."""
    limits = [float("inf")]
    with contextlib.suppress(AttributeError, ValueError):  # not on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits.append(limit if limit != resource.RLIM_INFINITY else float("inf"))
    return min(limits)
