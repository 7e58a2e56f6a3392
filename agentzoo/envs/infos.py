"""The `info` dictionaries of Gymnasium environments."""

from typing import Any

import jax
import numpy as np

Info = dict[str, Any]


def plain(info: Any) -> Info:
    """Return the entries that are numbers, strings, arrays, or dictionaries of such entries.

    Other objects may be large, may change later, and may not be sent to other processes.
    """
    if not info or not isinstance(info, dict):
        return {}
    kept = [(name, value) for name, value in info.items() if _is_plain(value)]
    return {name: plain(value) if isinstance(value, dict) else value for name, value in kept}


def _is_plain(value: Any) -> bool:
    """Return whether `plain` keeps a value."""
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return isinstance(value, bool | int | float | str | np.generic | jax.Array | dict)


def number(value: Any) -> float | None:
    """Return an entry as a number, or None if it is not a single number."""
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind not in "USOc" else None


def of_one(info: Any, index: int, num_envs: int) -> Info:
    """Return the info of environment `index` from the info of a vector environment.

    Gymnasium stores an array of N values for each name, and beside it a mask `_name` that says
    which environments have a value. EnvPool leaves out the masks.
    """
    if not isinstance(info, dict):  # a list with one dictionary for each environment
        return info[index] or {} if np.shape(info)[:1] == (num_envs,) else {}
    found = {}
    for name, value in info.items():
        mask = info.get(f"_{name}")
        if (name.startswith("_") and name[1:] in info) or (mask is not None and not mask[index]):
            continue
        if isinstance(value, dict):
            found[name] = of_one(value, index, num_envs)
        elif np.shape(value)[:1] == (num_envs,):
            found[name] = value[index]
    return found
