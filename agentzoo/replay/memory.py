"""Does a replay buffer fit into memory? Better to know before training than after a day of it."""

import os

import jax

from agentzoo.types import ConfigurationError, PyTree


def check_memory(shapes: PyTree, capacity: int) -> None:
    """Refuses arrays of these shapes and dtypes, a buffer of `capacity` transitions, if the device cannot hold them.

    Raises:
      ConfigurationError: with the capacity that would fit.
    """
    size, memory = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)), device_memory()
    device = jax.local_devices()[0]
    if size > memory:
        # The host's memory beside a GPU will not do: XLA cannot write there by index, https://github.com/openxla/xla/issues/34565.
        host = "" if device.platform == "cpu" else ", or JAX_PLATFORMS=cpu, which trains on the host and in its memory"
        raise ConfigurationError(
            f"buffer_size={capacity} needs {size / 1e9:.1f} GB, but {device} has {memory / 1e9:.1f} GB of memory; use a "
            f"buffer_size of {int(0.8 * capacity * memory / size)} or less, smaller observations, a FrameStack of them{host}."
        )


def device_memory() -> float:
    """Bytes of memory that arrays can have, as far as is known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not on Windows
        return float("inf")
