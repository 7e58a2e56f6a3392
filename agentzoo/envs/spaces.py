"""Spaces: which ones agents can see, how their elements become arrays, and how they are written to JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from agentzoo.types import ConfigurationError, FrameStack, PyTree, stored_dtype

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_observation_space(space: spaces.Space) -> None:
    """Raises `ConfigurationError` unless agents can see observations of this space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, part in parts(space):
            check_observation_space(part)
    elif not isinstance(space, _LEAVES):
        raise ConfigurationError(
            f"Observation space {space} is not supported; agents see Box, Discrete, MultiDiscrete, MultiBinary, and Dict and "
            f"Tuple of those. Convert it with a wrapper, for example gymnasium.wrappers.TransformObservation."
        )
    elif isinstance(space, spaces.Discrete) and not _fits(space):
        raise ConfigurationError(
            f"Observation space {space} has values beyond {dtype(space)}, in which agents see them; renumber them from 0."
        )


def _fits(space: spaces.Discrete) -> bool:
    """Whether all values of a space fit into the dtype in which agents see them."""
    limits = np.iinfo(dtype(space))
    return limits.min <= int(space.start) and int(space.start) + int(space.n) - 1 <= limits.max


def dtype(space: spaces.Space) -> np.dtype:
    """The dtype in which elements of a space reach an agent; see `agentzoo.types.stored_dtype`."""
    return np.dtype(stored_dtype(space))


def shape(space: spaces.Space) -> tuple[int, ...]:
    """The shape of an element of a space that is neither a Dict nor a Tuple."""
    assert space.shape is not None
    return space.shape


def parts(space: spaces.Space) -> Iterable[tuple[Any, spaces.Space]]:
    """The parts of a Dict or Tuple with the keys that find their elements."""
    if isinstance(space, spaces.Dict):
        return space.items()
    assert isinstance(space, spaces.Tuple)
    return enumerate(space)


def stack(space: spaces.Space, elements: Sequence[Any]) -> PyTree:
    """Copies elements of a space into arrays with a leading axis."""
    if isinstance(space, spaces.Dict):
        return {name: stack(part, [element[name] for element in elements]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(part, [element[i] for element in elements]) for i, part in enumerate(space))
    return np.array(elements, dtype(space))


def copy(space: spaces.Space, batch: PyTree) -> PyTree:
    """Copies a batch of elements of a space into arrays of the dtypes that agents see."""
    if isinstance(space, spaces.Dict):
        return {name: copy(part, batch[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(copy(part, batch[i]) for i, part in enumerate(space))
    return np.array(batch, dtype(space))


def empty(space: spaces.Space, *leading: int) -> PyTree:
    """Uninitialised NumPy arrays for elements of a space, behind `leading` axes."""
    if isinstance(space, spaces.Dict):
        return {name: empty(part, *leading) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(empty(part, *leading) for part in space)
    return np.empty((*leading, *shape(space)), dtype(space))


def write(space: spaces.Space, arrays: PyTree, index: Any, element: Any) -> None:
    """Writes an element of a space (or a batch) into arrays made by `empty`, at an index of their leading axes."""
    if isinstance(arrays, np.ndarray):
        arrays[index] = element
    else:
        for key, part in parts(space):
            write(part, arrays[key], index, element[key])


def at(arrays: PyTree, index: Any) -> PyTree:
    """The rows of arrays made by `empty` at an index, without copying."""
    return arrays[index] if isinstance(arrays, np.ndarray) else jax.tree.map(lambda array: array[index], arrays)


def is_batched(space: spaces.Space, element: Any) -> bool:
    """Whether an observation has a leading batch axis.

    Raises:
      ConfigurationError: if it fits the space neither with nor without one.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        key, part = next(iter(parts(space)))
        return is_batched(part, element[key])
    found = np.shape(element)
    if found == space.shape:
        return False
    if found and found[1:] == space.shape:
        return True
    raise ConfigurationError(f"The observation has shape {found}; expected {space.shape}, or a batch of those, for {space}.")


def to_json(space: spaces.Space) -> dict[str, Any]:
    """A space as plain JSON."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {name: to_json(part) for name, part in space.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [to_json(part) for part in space]}
    kind = {"type": type(space).__name__, "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return kind | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return kind | {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return kind | {"n": space.n if isinstance(space.n, int) else [int(n) for n in space.n]}
    assert isinstance(space, spaces.Box)
    return kind | {"shape": list(space.shape), "low": _bound(space.low), "high": _bound(space.high)}


def from_json(data: dict[str, Any]) -> spaces.Space:
    """The space that `to_json` wrote."""
    kind = data["type"]
    if kind == "Dict":
        return spaces.Dict({name: from_json(part) for name, part in data["spaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([from_json(part) for part in data["spaces"]])
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(data["nvec"]), dtype=np.dtype(data["dtype"]), start=np.array(data["start"]))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    size = tuple(data["shape"])
    low, high = (np.broadcast_to(np.array(data[bound], np.dtype(data["dtype"])), size) for bound in ("low", "high"))
    return (FrameStack if kind == "FrameStack" else spaces.Box)(low, high, size, np.dtype(data["dtype"]).type)


def _bound(bound: np.ndarray) -> Any:
    """A bound as one number where all are equal, and infinities as the strings that NumPy reads back."""
    values = np.asarray(bound)
    values = values.flat[0] if values.size and (values == values.flat[0]).all() else values
    return jax.tree.map(lambda x: x if np.isfinite(x) else str(x), values.tolist())


def are_alike(one: spaces.Space, other: spaces.Space, bounds: bool = False) -> bool:
    """Whether elements of two spaces have the same structure, shapes, dtypes and categories.

    Args:
      one: a space.
      other: another one.
      bounds: whether the bounds of a Box have to be the same, too.
    """
    for kind in (spaces.Dict, spaces.Tuple):
        if isinstance(one, kind) or isinstance(other, kind):
            if not (isinstance(one, kind) and isinstance(other, kind)):
                return False
            ours, theirs = dict(parts(one)), dict(parts(other))
            same = ours.keys() == theirs.keys()
            return same and all(are_alike(ours[key], theirs[key], bounds) for key in ours)
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        if one.shape != other.shape or dtype(one) != dtype(other):
            return False
        same = np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)
        return same or not bounds
    for kind, names in _CATEGORIES.items():
        if isinstance(one, kind) and isinstance(other, kind):
            return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return one == other


# Attributes in which alike spaces agree.
_CATEGORIES = {
    spaces.Discrete: ("n", "start"),
    spaces.MultiDiscrete: ("nvec", "start"),
    spaces.MultiBinary: ("shape",),
}
