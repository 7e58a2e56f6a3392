"""Check before training whether a replay buffer fits into memory."""

import math
import os

import jax

from agentzoo.process import host_memory
from agentzoo.types import ConfigurationError, PyTree


def check_memory(shapes: PyTree, capacity: int) -> None:
    """Raise an error if a replay buffer does not fit into the memory of the device.

    A GPU can hold a buffer that is larger than its own memory if XLA was told to allocate CUDA's
    unified memory: parts that are not in use then move to the host. XLA cannot write by index to
    arrays that are in the memory of the host alone, https://github.com/openxla/xla/issues/34565.

    Args:
      shapes: the shapes and dtypes of the arrays of the buffer.
      capacity: the number of transitions.

    Raises:
      ConfigurationError: with the capacity that would fit, and, if it helps, with the settings by
        which a GPU uses the memory of the host.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    memory = device_memory()
    if size <= memory:
        return
    device = jax.local_devices()[0]
    overflow = ""
    if device.platform == "gpu" and size < host_memory():
        fraction = float(os.environ.get("XLA_CLIENT_MEM_FRACTION", 1.0)) * size / memory
        overflow = (
            ", or let it overflow into the memory of the host by starting Python with "
            "TF_FORCE_UNIFIED_MEMORY=1 XLA_PYTHON_CLIENT_PREALLOCATE=false "
            f"XLA_CLIENT_MEM_FRACTION={math.ceil(fraction) + 1}"
        )
    raise ConfigurationError(
        f"buffer_size={capacity} needs {size / 1e9:.1f} GB, but {device} has {memory / 1e9:.1f} GB "
        f"of memory. Use a buffer_size of {int(0.8 * capacity * memory / size)} or less, smaller "
        f"observations, a FrameStack of them{overflow}."
    )


def device_memory() -> float:
    """Return how many bytes of memory arrays can use, as far as is known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory()
