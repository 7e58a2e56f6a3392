"""Does a replay buffer fit into memory? Better to know before training than after a day of it."""

import math
import os

import jax

from agentzoo.types import ConfigurationError, PyTree


def check_memory(shapes: PyTree, capacity: int) -> None:
    """Refuses arrays of these shapes and dtypes, a buffer of `capacity` transitions, if they cannot be held.

    A GPU holds what is larger than its own memory if XLA has been told to allocate CUDA's unified
    memory, of which what is not in use moves to the host. XLA cannot write by index to arrays that
    are the host's alone, https://github.com/openxla/xla/issues/34565.

    Raises:
      ConfigurationError: with the capacity that would fit, and the setting by which a GPU uses the
        host's memory.
    """
    size, memory = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)),
        device_memory(),
    )
    device = jax.local_devices()[0]
    if size > memory:
        overflow = ""
        if device.platform == "gpu" and size < host_memory():
            fraction = (
                math.ceil(float(os.environ.get("XLA_CLIENT_MEM_FRACTION", 1.0)) * size / memory) + 1
            )
            overflow = (
                f", or let it overflow into the host's memory by starting Python with TF_FORCE_UNIFIED_MEMORY=1 "
                f"XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_CLIENT_MEM_FRACTION={fraction}"
            )
        raise ConfigurationError(
            f"buffer_size={capacity} needs {size / 1e9:.1f} GB, but {device} has {memory / 1e9:.1f} GB of memory; use a "
            f"buffer_size of {int(0.8 * capacity * memory / size)} or less, smaller observations, a FrameStack of them{overflow}."
        )


def device_memory() -> float:
    """Bytes of memory that arrays can have, as far as is known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory()


def host_memory() -> float:
    """Bytes of the host's memory, as far as is known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not on Windows
        return float("inf")
