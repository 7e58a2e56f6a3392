"""Spaces: which spaces agents support, how elements become arrays, and how JSON stores spaces."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from agentzoo.elements import stored_dtype
from agentzoo.types import ConfigurationError, FrameStack, PyTree

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def plain(space: spaces.Space) -> spaces.Space:
    """Return a space of a user's own class as the space of Gymnasium that it extends.

    The result has the same elements. A space of an unsupported kind is returned as it is.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({_plain_key(key): plain(part) for key, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([plain(part) for part in space])
    if type(space) in (*_LEAVES, FrameStack):
        return space
    return from_json(to_json(space)) if isinstance(space, _LEAVES) else space


def _plain_key(key: Any) -> Any:
    """Return the key of a Dict, with NumPy's integers as Python's."""
    return int(key) if isinstance(key, np.integer) else key


def check_observation_space(space: spaces.Space) -> None:
    """Check that agents support observations of a space.

    Raises:
      ConfigurationError: if they do not.
    """
    _check_kinds(space)
    if not any(leaf.size for leaf in jax.tree.leaves(shapes(space))):
        raise ConfigurationError(
            f"Observation space {space} holds no numbers, so actions cannot depend on it. Use a "
            "constant observation instead, for example of Box(0, 1, (1,))."
        )


def _check_kinds(space: spaces.Space) -> None:
    """Check the types of a space and of its parts, and the keys of Dicts."""
    if isinstance(space, spaces.Dict):
        types = {_key_type(key) for key in space.spaces}
        if not (types <= {str} or types <= {int}):
            keys = ", ".join(map(repr, space.spaces))
            raise ConfigurationError(
                f"The keys of {space} are {keys}, and JAX cannot sort them. Use strings, or "
                "integers, for all of them."
            )
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, part in parts(space):
            _check_kinds(part)
    elif not isinstance(space, _LEAVES):
        raise ConfigurationError(
            f"Observation space {space} is not supported. Agents support Box, Discrete, "
            "MultiDiscrete, MultiBinary, and Dict and Tuple of these spaces. Convert the "
            "observations with a wrapper, for example gymnasium.wrappers.TransformObservation."
        )
    elif isinstance(space, spaces.Discrete) and not _fits(space):
        raise ConfigurationError(
            f"Observation space {space} has values beyond {dtype(space)}, the dtype in which "
            "agents see them. Renumber the values from 0."
        )


def _key_type(key: Any) -> type:
    """Return the type of a key, where subclasses of `str` and `int` count as these types."""
    return next((base for base in (str, int) if isinstance(key, base)), type(key))


def _fits(space: spaces.Discrete) -> bool:
    """Return whether all values of a space fit into the dtype in which agents see them."""
    limits = np.iinfo(dtype(space))
    return limits.min <= int(space.start) and int(space.start) + int(space.n) - 1 <= limits.max


def dtype(space: spaces.Space) -> np.dtype:
    """Return the dtype in which agents see elements; see `agentzoo.elements.stored_dtype`."""
    return np.dtype(stored_dtype(space))


def shape(space: spaces.Space) -> tuple[int, ...]:
    """Return the shape of elements of a space that is neither a Dict nor a Tuple."""
    assert space.shape is not None
    return space.shape


def parts(space: spaces.Space) -> Iterable[tuple[Any, spaces.Space]]:
    """Return the parts of a Dict or Tuple, each with its key or index."""
    if isinstance(space, spaces.Dict):
        return space.items()
    assert isinstance(space, spaces.Tuple)
    return enumerate(space)


def stack(space: spaces.Space, elements: Sequence[Any]) -> PyTree:
    """Copy elements of a space into arrays with a leading axis."""
    if isinstance(space, spaces.Dict):
        return {
            name: stack(part, [element[name] for element in elements])
            for name, part in space.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(
            stack(part, [element[i] for element in elements]) for i, part in enumerate(space)
        )
    return np.array(elements, dtype(space))


def copy(space: spaces.Space, batch: PyTree) -> PyTree:
    """Copy a batch of elements of a space into arrays of the dtypes that agents see."""
    if isinstance(space, spaces.Dict):
        return {name: copy(part, batch[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(copy(part, batch[i]) for i, part in enumerate(space))
    return np.array(batch, dtype(space))


def shapes(space: spaces.Space, *leading: int) -> PyTree:
    """Return the shape and dtype of elements of a space, as trees of `jax.ShapeDtypeStruct`.

    Args:
      space: the space.
      *leading: sizes of the axes in front of those of an element.
    """
    if isinstance(space, spaces.Dict):
        return {name: shapes(part, *leading) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(shapes(part, *leading) for part in space)
    return jax.ShapeDtypeStruct((*leading, *shape(space)), dtype(space))


def make_empty(space: spaces.Space, *leading: int) -> Callable[[], PyTree]:
    """Build a function that allocates uninitialised NumPy arrays for elements of a space.

    Args:
      space: the space.
      *leading: sizes of the axes in front of those of an element.
    """
    if isinstance(space, spaces.Dict):
        makers = {name: make_empty(part, *leading) for name, part in space.items()}
        return lambda: {name: make() for name, make in makers.items()}
    if isinstance(space, spaces.Tuple):
        each = [make_empty(part, *leading) for part in space]
        return lambda: tuple(make() for make in each)
    return functools.partial(np.empty, (*leading, *shape(space)), dtype(space))


def write(arrays: PyTree, index: Any, element: Any) -> None:
    """Write an element of a space (or a batch) into NumPy arrays, at an index of their first axis.

    Args:
      arrays: arrays with the structure of the space, see `make_empty`.
      index: where to write; `...` for the whole arrays.
      element: the element, or as many as the index selects.
    """
    if isinstance(arrays, np.ndarray):
        arrays[index] = element
        return
    for key, part in arrays.items() if isinstance(arrays, dict) else enumerate(arrays):
        write(part, index, element[key])


def identical(one: PyTree, other: PyTree) -> bool:
    """Return whether two trees of NumPy arrays have the same structure, dtypes and bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs
    )


def is_batched(space: spaces.Space, element: Any) -> bool:
    """Return whether an observation has a leading batch axis.

    Raises:
      ConfigurationError: if the observation fits the space neither with nor without such an axis.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        key, part = next(iter(parts(space)))
        try:
            return is_batched(part, element[key])
        except (KeyError, IndexError, TypeError):
            raise ConfigurationError(
                f"The observation lacks {key!r}. Expected an element of {space}, or a batch."
            ) from None
    if isinstance(element, tuple) and len(element) == 2 and isinstance(element[1], dict):
        raise ConfigurationError(
            "The observation is the pair of observation and info that `reset` returns. Write "
            "obs, info = env.reset()."
        )
    try:
        found = np.shape(element)
    except ValueError:  # lists of unequal lengths
        raise ConfigurationError(
            f"The observation is a {type(element).__name__} of unequal parts. Expected an array "
            f"for {space}."
        ) from None
    if found == space.shape:
        return False
    if found and found[1:] == space.shape:
        return True
    raise ConfigurationError(
        f"The observation has shape {found}. Expected {space.shape}, or a batch of this shape, "
        f"for {space}."
    )


def kind(space: spaces.Space) -> str:
    """Return the name of a space's class; a user's own class counts as its base class."""
    for base in (FrameStack, *_LEAVES, spaces.Dict, spaces.Tuple):
        if isinstance(space, base):
            return base.__name__
    return type(space).__name__


def fits(space: spaces.Space, wanted: spaces.Space) -> bool:
    """Return whether elements of a space are also elements of another space.

    They are if the spaces are equal, or if the space is a `FrameStack` and the wanted space an
    otherwise equal Box.

    Args:
      space: the space.
      wanted: the other space.
    """
    if isinstance(wanted, spaces.Dict) and isinstance(space, spaces.Dict):
        same = space.spaces.keys() == wanted.spaces.keys()
        return same and all(fits(part, wanted[key]) for key, part in space.items())
    if isinstance(wanted, spaces.Tuple) and isinstance(space, spaces.Tuple):
        return len(space) == len(wanted) and all(map(fits, space, wanted))
    if isinstance(space, FrameStack) and not isinstance(wanted, FrameStack):
        box = spaces.Box(space.low, space.high, space.shape, space.dtype.type)  # type: ignore[arg-type]
        return box == wanted
    return space == wanted


def to_elements(space: spaces.Space, actions: Any) -> Any:
    """Return an agent's actions as elements of the action space.

    Agents count discrete actions from 0, and Gymnasium counts them from the space's `start`. This
    function is the only place that adds the difference.

    Args:
      space: the action space.
      actions: `[N, ...]`, a NumPy or JAX array, or a tracer.

    Returns:
      N elements: a JAX array with the dtype of `actions`, or a NumPy array with the dtype of the
      space.
    """
    if isinstance(actions, np.ndarray):
        actions = actions.astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        # A comparison is several times as fast as an addition, and this happens at every step.
        return actions if space.start == 0 else actions + space.start.astype(actions.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return actions + space.start.astype(actions.dtype)
    return actions


def pick(space: spaces.Space, elements: np.ndarray, n: int) -> Any:
    """Return element n of a batch: a scalar of a Discrete space, and an array of any other."""
    # The ellipsis gives an array of shape () for a space without axes, where [n] gives a scalar.
    return elements[n] if isinstance(space, spaces.Discrete) else elements[n, ...]


def split(space: spaces.Space, elements: np.ndarray) -> list[Any]:
    """Return the elements of a batch as `pick` does."""
    if isinstance(space, spaces.Discrete):
        return list(elements)
    return [elements[n, ...] for n in range(len(elements))]


def to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a space as plain JSON."""
    if isinstance(space, spaces.Dict):
        pairs = [(name, to_json(part)) for name, part in space.items()]
        # JSON's objects have strings as keys. Other keys are stored in a list of pairs.
        named = all(isinstance(name, str) for name, _ in pairs)
        return {"type": "Dict", "spaces": dict(pairs) if named else [list(pair) for pair in pairs]}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [to_json(part) for part in space]}
    kind_of = {"type": kind(space), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return kind_of | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return kind_of | {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return kind_of | {"n": space.n if isinstance(space.n, int) else [int(n) for n in space.n]}
    assert isinstance(space, spaces.Box)
    return kind_of | {
        "shape": list(space.shape),
        "low": _bound(space.low),
        "high": _bound(space.high),
    }


def from_json(data: dict[str, Any], most: int | None = None) -> spaces.Space:
    """Return the space that `to_json` wrote.

    Args:
      data: the space as JSON, with the structure that a saved file may hold.
      most: the number of numbers that an element may have, so that a small file cannot ask for much
        memory. None sets no limit.

    Raises:
      ConfigurationError: if it is no space, or larger than that.
    """
    if most is not None and _size(data) > most:
        raise ConfigurationError(
            f"The file declares observations or actions of {_size(data)} numbers, which is more "
            f"than a file of this size can be about. It is damaged, so use an earlier checkpoint."
        )
    try:
        return _from_json(data)
    except (AssertionError, TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"The file holds a {data['type']} space that does not exist ({error}). It is damaged, "
            f"so use an earlier checkpoint."
        ) from error


def _size(data: dict[str, Any]) -> int:
    """Return how many numbers an element of a space has at least, given the space as JSON."""
    if data["type"] in ("Dict", "Tuple"):
        inner = data["spaces"].values() if isinstance(data["spaces"], dict) else data["spaces"]
        return sum(_size(part[1] if isinstance(part, list) else part) for part in inner)
    if data["type"] == "MultiBinary":
        return math.prod(data["n"]) if isinstance(data["n"], list) else data["n"]
    return math.prod(data.get("shape", ()))


def _from_json(data: dict[str, Any]) -> spaces.Space:
    name = data["type"]
    if name == "Dict":
        pairs = data["spaces"].items() if isinstance(data["spaces"], dict) else data["spaces"]
        return spaces.Dict({key: _from_json(part) for key, part in pairs})
    if name == "Tuple":
        return spaces.Tuple([_from_json(part) for part in data["spaces"]])
    if name == "Discrete":
        # Gymnasium before 1.2 has only int64, and accepts no dtype.
        dtype: dict[str, Any] = (
            {} if data["dtype"] == "int64" else {"dtype": np.dtype(data["dtype"])}
        )
        return spaces.Discrete(data["n"], start=data["start"], **dtype)
    if name == "MultiDiscrete":
        return spaces.MultiDiscrete(
            np.array(data["nvec"]), dtype=np.dtype(data["dtype"]), start=np.array(data["start"])
        )
    if name == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    size = tuple(data["shape"])
    low, high = (_bound_from_json(data[bound], data["dtype"], size) for bound in ("low", "high"))
    kind_of = FrameStack if name == "FrameStack" else spaces.Box
    return kind_of(low, high, size, np.dtype(data["dtype"]).type)


def _bound(bound: np.ndarray) -> Any:
    """Return a bound as JSON: one number if all are equal, and infinities as strings."""
    values = np.asarray(bound)
    values = values.flat[0] if values.size and (values == values.flat[0]).all() else values
    return jax.tree.map(lambda x: x if np.isfinite(x) else str(x), values.tolist())


def _bound_from_json(data: Any, dtype: str, size: tuple[int, ...]) -> np.ndarray:
    """Return the bound that `_bound` wrote; NumPy converts the strings to infinities."""
    bound = np.array(data, np.dtype(dtype))
    # A single number is broadcast. A nested list has the shape already, unless it is empty.
    return np.broadcast_to(bound if bound.size else bound.reshape(size), size)


def are_alike(one: spaces.Space, other: spaces.Space, bounds: bool = False) -> bool:
    """Return whether elements of two spaces have the same structure, shapes, dtypes and categories.

    Args:
      one: a space.
      other: another space.
      bounds: whether the bounds of a Box must be the same, too.
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


# The attributes that must be the same for two spaces of a class to be alike.
_CATEGORIES = {
    spaces.Discrete: ("n", "start"),
    spaces.MultiDiscrete: ("nvec", "start"),
    spaces.MultiBinary: ("shape",),
}
