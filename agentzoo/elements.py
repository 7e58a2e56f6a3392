"""The form in which elements of Gymnasium's spaces reach agents."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agentzoo.types import PyTree


def stored_dtype(space: spaces.Space[Any]) -> Any:
    """Return the dtype in which elements of a space reach an agent.

    Types of 64 bits become types of 32 bits, unless JAX is set to keep them. Integers of a Box
    whose bounds do not fit into 32 bits become float32, which is how networks see them anyway.
    """
    assert space.dtype is not None
    stored = jax.dtypes.canonicalize_dtype(space.dtype)
    if isinstance(space, spaces.Box) and stored != space.dtype and stored.kind in "iu":
        limits = jnp.iinfo(stored)
        if (space.low < int(limits.min)).any() or (space.high > int(limits.max)).any():
            return jax.dtypes.canonicalize_dtype(float)
    return stored


def zeros(space: spaces.Space[Any], *leading: int) -> PyTree:
    """Return zeros with the structure, the dtypes and the shapes of an element of a space.

    Args:
      space: the space.
      *leading: sizes of the axes to put before those of the element.
    """
    if isinstance(space, spaces.Dict):
        return {name: zeros(part, *leading) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(part, *leading) for part in space)
    # The adapters of environments have refused spaces without a shape or a dtype.
    assert space.shape is not None and space.dtype is not None
    return jnp.zeros((*leading, *space.shape), stored_dtype(space))


def has_channels_first(first: int, middle: int, last: int) -> bool:
    """Return whether the first axis of an image holds the channels, rather than the last axis.

    The channels are on the axis of size 1 to 4 if only one of the two axes is that small. Otherwise
    they are on the axis whose removal leaves a square, otherwise on the smaller axis, and otherwise
    on the last axis.

    Args:
      first: size of the first axis of the image.
      middle: size of the second axis.
      last: size of the third axis.
    """
    if (first <= 4) != (last <= 4):
        return first <= 4
    if (first == middle) != (middle == last):
        return middle == last
    return first < last
