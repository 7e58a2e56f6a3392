"""Hyperparameters: schedules, ranges, checks, and their form in JSON.

An algorithm's config is a frozen dataclass of plain values. A range is written beside the type:
`gamma: Annotated[float, Range(0, 1)] = 0.99`.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo import keywords
from agentzoo.types import Array, ConfigurationError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Linear:
    """A schedule that goes in a straight line from `start` to `end` over a run.

    Each cycle has the value of the step at which it began: the first one has `start`, and the last
    one not quite `end`.

    Attributes:
      start: the value at the beginning.
      end: the value at the end.
    """

    start: float
    end: float = 0.0

    def __call__(self, remaining: Array) -> Array:
        """The value when `remaining` (from 1 to 0) of the run is left."""
        return self.end + (self.start - self.end) * remaining


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number; an open bound is not allowed itself."""

    low: float = float("-inf")
    high: float = float("inf")
    open_low: bool = False

    def allows(self, value: float) -> bool:
        """Whether a number lies within the bounds."""
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        if self.high == float("inf"):
            return low
        return f"{low} and at most {self.high:g}"


POSITIVE = Range(0, open_low=True)
FRACTION = Range(0, 1)


class Traced:
    """Marks an integer hyperparameter that compiled programs take as an argument.

    Floats are always arguments. An integer is one only if it decides neither a shape nor a branch.
    """


TRACED = Traced()

Schedule = float | Linear | Callable[[Array], Array]
"""A number, or a function of the remaining progress (1 to 0): `Linear`, or your own on JAX scalars."""


def value_at(schedule: Schedule, remaining: Array) -> Any:
    """The value of a schedule when `remaining` of the run is left."""
    return schedule(remaining) if callable(schedule) else schedule


def integer(name: str, value: Any, least: int = 0) -> int:
    """An argument that counts something, as a Python integer; NumPy's integers and 1e6 serve, too.

    Raises:
      ConfigurationError: if the value is no integer, or is below `least`.
    """
    number = _convert(int, value)
    if not _is_a(number, int) or number < least:
        raise ConfigurationError(f"{name}={value!r}; expected an integer of at least {least}.")
    return number


def make_config(cls: type[Config], values: Mapping[str, Any], others: Iterable[str] = ()) -> Config:
    """Builds a config from hyperparameters by name, and checks it.

    Args:
      cls: the config's class.
      values: of hyperparameters by name; the others keep their defaults.
      others: names that a user may have meant by an unknown one, beside those of hyperparameters.

    Raises:
      ConfigurationError: if a name is unknown, or a value has the wrong type or is out of range.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    where, known = cls.__name__.removesuffix("Config"), [*names, *others]
    unknown = [
        keywords.unknown(where, name, value, known, names)
        for name, value in values.items()
        if name not in names
    ]
    if unknown:
        raise ConfigurationError(" ".join(map(str, unknown)))
    hints = get_type_hints(cls, include_extras=True)
    config = cls(**{name: _convert(hints[name], value) for name, value in values.items()})
    for name in names:
        _check(name, hints[name], getattr(config, name))
    return config


def _convert(hint: Any, value: Any) -> Any:
    """Lists become tuples and NumPy scalars numbers, and integral floats (1e6) serve where an integer is asked for."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    kind = _plain(hint)
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if int in kinds and float not in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Linear):
        return Linear(_convert(float, value.start), _convert(float, value.end))
    items: Any = (
        value if isinstance(value, list | tuple) or len(getattr(value, "shape", ())) == 1 else None
    )
    of_tuple = next((option for option in kinds if get_origin(option) is tuple), None)
    if of_tuple is not None and items is not None:
        return tuple(_convert(get_args(of_tuple)[0], item) for item in items)
    return value


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _check(name: str, hint: Any, value: Any) -> None:
    kind = _plain(hint)
    if not _is_a(value, kind):
        raise ConfigurationError(
            f"{name}={value!r} has the wrong type; expected {_describe(kind)}."
        )
    ranges = (
        [extra for extra in get_args(hint)[1:] if isinstance(extra, Range)]
        if get_origin(hint) is Annotated
        else []
    )
    if isinstance(value, Linear):  # it may end on an open bound, such as a learning rate on 0
        numbers = [value.start]
        if any(not (allowed.low <= value.end <= allowed.high) for allowed in ranges):
            raise ConfigurationError(
                f"{name}={value!r} is out of range; expected a start {ranges[0]} and an end within the same bounds."
            )
    else:
        numbers = [
            n
            for n in (value if isinstance(value, tuple) else (value,))
            if isinstance(n, int | float)
        ]
    for allowed in ranges:
        for number in numbers:
            if not allowed.allows(number):
                raise ConfigurationError(f"{name}={value!r} is out of range; expected {allowed}.")


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(_is_a(value, option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is Callable:
        return callable(value)
    if kind is None or kind is type(None):
        return value is None
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(kind))
    names = {
        float: "a number",
        int: "an integer",
        bool: "True or False",
        str: "a string",
        type(None): "None",
        Linear: "Linear(start, end)",
    }
    if get_origin(kind) is tuple:
        return f"a tuple of {'strings' if get_args(kind)[0] is str else 'integers'}"
    return names.get(kind, "a function of the remaining progress")


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON.

    A function cannot be written: only its name is, and `from_json` asks for it.
    """

    def plain(value):
        if isinstance(value, Linear):
            return {"linear": [value.start, value.end]}
        return (
            {"function": getattr(value, "__name__", type(value).__name__)}
            if callable(value)
            else value
        )

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def is_function(value: Any) -> bool:
    """Whether `to_json` wrote this value for a function."""
    return isinstance(value, dict) and "linear" not in value


def from_json(
    cls: type[Config],
    data: Mapping[str, Any],
    replaced: Mapping[str, Any],
    others: Iterable[str] = (),
) -> Config:
    """The config that `to_json` wrote, with some values replaced; `others` as for `make_config`.

    Raises:
      ConfigurationError: if a value was a function of the user's and is not among the replaced
        ones.
    """
    values = {}
    for name, value in data.items():
        if name in replaced:
            continue
        if isinstance(value, dict) and "linear" in value:
            value = Linear(*value["linear"])
        elif is_function(value):
            raise ConfigurationError(
                f"The hyperparameter {name!r} was your function {value.get('function')!r}, which is not stored in the file (no code is); "
                f"pass it again: load(path, {name}=...)."
            )
        values[name] = value
    return make_config(cls, {**values, **replaced}, others)


def structure_of(config: Config) -> Config:
    """Return the config with 0 in place of every hyperparameter that compiled programs take.

    Configs whose structures are equal share their compiled programs.
    """
    return _replace_numbers(config, lambda kind, index: kind(0))


def numbers_of(config: Any) -> np.ndarray:
    """Return the hyperparameters that compiled programs take, as an int32 vector `[P]`.

    Floats are stored by the bits of their float32 value, since float32 could not hold every
    integer.
    """

    def pack(number: _Number) -> np.int32:
        if number.kind is int:
            return np.int32(number.value)
        return np.float32(number.value).view(np.int32)

    return np.array([pack(number) for number in _numbers(config)], np.int32)


def with_numbers(structure: Config, numbers: Array) -> Config:
    """Return the config of a structure and of the vector `[P]` that `numbers_of` made.

    In the config, hyperparameters are JAX scalars, which may be traced.
    """

    def unpack(kind: type, index: int) -> Array:
        number = numbers[index]
        if kind is int:
            return number
        return jax.lax.bitcast_convert_type(number, jnp.float32)

    return _replace_numbers(structure, unpack)


class _Number(NamedTuple):
    """A number of a config that compiled programs take. A schedule has two."""

    name: str
    kind: type  # float or int
    value: float


@functools.cache
def _number_fields(cls: type) -> dict[str, tuple[type, bool]]:
    """Return the fields of a config class that may hold numbers which programs take.

    Each has the kind of its numbers, float or int, and whether it may be a schedule.
    """
    fields: dict[str, tuple[type, bool]] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kind = _plain(hint)
        options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        if float in options:
            fields[name] = (float, Linear in options)
        elif get_origin(hint) is Annotated and TRACED in get_args(hint)[1:]:
            fields[name] = (int, False)
    return fields


def _numbers(config: Any) -> list[_Number]:
    """Return the numbers that programs take.

    A constant in the place of a schedule counts as a schedule from this number to the same number,
    so that constants and linear schedules share their programs.
    """
    numbers: list[_Number] = []
    for name, (kind, is_schedule) in _number_fields(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, Linear):
            numbers += [_Number(name, kind, value.start), _Number(name, kind, value.end)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers += [_Number(name, kind, value)] * (2 if is_schedule else 1)
    return numbers


def _replace_numbers(config: Config, make: Callable[[type, int], Any]) -> Config:
    """Return a config with `make(kind, index)` in place of each number of `_numbers`."""
    made: dict[str, list[Any]] = {}
    for index, number in enumerate(_numbers(config)):
        made.setdefault(number.name, []).append(make(number.kind, index))
    values = {name: new[0] if len(new) == 1 else Linear(*new) for name, new in made.items()}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]
