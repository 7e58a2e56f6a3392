"""Making, checking and storing configs, and the numbers in them that compiled programs take.

`agentzoo.hyperparameters` says how a config class is written.

The checks are our own, because those of pydantic and typeguard do not fit: users may write
`buffer_size=1e6` and `net_arch=[64, 64]`, but `double_q=1` is a mistake.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from agentzoo import keywords
from agentzoo.hyperparameters import (
    FRACTION,
    POSITIVE,
    TRACED,
    Hyperparameter,
    Linear,
    Range,
    Schedule,
    Search,
    hyperparameters,
    options_of,
    value_at,
)
from agentzoo.types import Array, ConfigurationError

__all__ = [
    "FRACTION",
    "POSITIVE",
    "TRACED",
    "Hyperparameter",
    "Linear",
    "Range",
    "Schedule",
    "Search",
    "choice",
    "from_json",
    "hyperparameters",
    "integer",
    "is_function",
    "make_config",
    "numbers_of",
    "structure_of",
    "to_json",
    "value_at",
    "with_numbers",
]

Config = TypeVar("Config")


def integer(name: str, value: Any, least: int = 0) -> int:
    """Return an argument that counts something as a Python integer.

    NumPy's integers and floats such as 1e6 are accepted.

    Raises:
      ConfigurationError: if the value is not an integer, or is below `least`.
    """
    number = _convert(int, value)
    _check(Hyperparameter(name, int, dataclasses.MISSING, range=Range(least)), number)
    return number


def choice(name: str, value: Any, words: Any) -> Any:
    """Return an argument that has to be one of the words of a `Literal`.

    Raises:
      ConfigurationError: if it is none of them.
    """
    _check(Hyperparameter(name, words, dataclasses.MISSING), value)
    return value


def make_config(cls: type[Config], values: Mapping[str, Any], others: Iterable[str] = ()) -> Config:
    """Build a config from hyperparameters by name, and check it.

    Args:
      cls: the class of the config.
      values: hyperparameters by name. The others keep their defaults.
      others: names of other arguments, which a user may have meant by an unknown name.

    Raises:
      ConfigurationError: if a name is unknown, or a value has the wrong type or is out of range.
    """
    known = hyperparameters(cls)
    names = [*known]
    where = cls.__name__.removesuffix("Config")
    unknown = [
        keywords.unknown(where, name, value, [*names, *others], names)
        for name, value in values.items()
        if name not in known
    ]
    if unknown:
        raise ConfigurationError(" ".join(map(str, unknown)))
    config = cls(**{name: _convert(known[name].type, value) for name, value in values.items()})
    for one in known.values():
        _check(one, getattr(config, one.name))
    return config


def _convert(hint: Any, value: Any) -> Any:
    """Convert a value that is meant for a type, such as a list for a tuple or 1e6 for an integer.

    Values that do not fit the type are returned as they are.
    """
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    options = options_of(hint)
    if float in options and _is_a(value, int):
        return float(value)
    if int in options and float not in options and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Linear):
        return Linear(_convert(float, value.start), _convert(float, value.end))
    for option in options:
        if get_origin(option) is tuple and _is_sequence(value):
            items = cast(Iterable[Any], value)
            return tuple(_convert(get_args(option)[0], item) for item in items)
    return value


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or len(getattr(value, "shape", ())) == 1


def _check(about: Hyperparameter, value: Any) -> None:
    """Raise `ConfigurationError` unless a hyperparameter may have this value."""
    given = f"{about.name}={value!r}"
    if not _is_a(value, about.type):
        if all(
            get_origin(option) is Literal or option is type(None)
            for option in options_of(about.type)
        ):
            raise ConfigurationError(f"{given} is unknown. {_advice(about, value)}")
        raise ConfigurationError(f"{given} has the wrong type. Choose {about.expected}.")
    if type(value).__hash__ is None and _is_option(value, Callable[..., Any]):
        raise ConfigurationError(
            f"{given} has no hash, but compiled programs are found by the hash of the function. "
            f"Pass a plain function, or give the class of the object a __hash__."
        )
    if isinstance(value, Linear):
        # The end may be an open bound: a learning rate may fall to 0.
        ends = dataclasses.replace(about.range, open_low=False)
        if value.start not in about.range or value.end not in ends:
            raise ConfigurationError(
                f"{given} is out of range. Choose a start {about.range} and an end {ends}."
            )
        return
    numbers = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
    if any(_is_a(number, float) and number not in about.range for number in numbers):
        raise ConfigurationError(f"{given} is out of range. Choose {about.expected}.")
    if about.traced and isinstance(value, int) and value >= 2**31:  # programs get an int32
        raise ConfigurationError(f"{given} is out of range. Choose at most 2^31 - 1.")


def _advice(about: Hyperparameter, value: Any) -> str:
    """What to write instead of a word that is not one of the choices."""
    words = [word for option in options_of(about.type) for word in get_args(option)]
    close = difflib.get_close_matches(str(value).lower(), words, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Choose {about.expected}."


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value has a type. Integers are numbers, and booleans are not."""
    return any(_is_option(value, option) for option in options_of(hint))


def _is_option(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        items = cast(tuple[Any, ...], value) if isinstance(value, tuple) else None
        return items is not None and all(_is_a(item, get_args(kind)[0]) for item in items)
    if get_origin(kind) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(kind))
    if get_origin(kind) is Callable:
        return callable(value)
    if isinstance(value, bool):
        return kind in (bool, Any)
    origin = get_origin(kind) or kind  # such as `dict` of `dict[str, int]`
    return (
        isinstance(value, (int, float) if kind is float else origin) if _is_class(origin) else True
    )


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type)


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON.

    A function cannot be written: only its name is, and `from_json` asks for the function.
    """
    return {
        field.name: _to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)
    }


def _to_plain(value: Any) -> Any:
    if isinstance(value, Linear):
        return {"linear": [value.start, value.end]}
    if callable(value):
        return {"function": getattr(value, "__name__", type(value).__name__)}
    return value


def is_function(value: Any) -> bool:
    """Return whether `to_json` wrote this value for a function."""
    return isinstance(value, dict) and "linear" not in value


def _is_linear(value: Any) -> bool:
    return isinstance(value, dict) and "linear" in value


def from_json(
    cls: type[Config],
    data: Mapping[str, Any],
    replaced: Mapping[str, Any],
    others: Iterable[str] = (),
) -> Config:
    """Return the config that `to_json` wrote, with some values replaced.

    Args:
      cls: the class of the config.
      data: what `to_json` returned.
      replaced: hyperparameters that replace those in `data`.
      others: as for `make_config`.

    Raises:
      ConfigurationError: if a value was a user's function and is not replaced, or a replaced value
        is not allowed.
    """
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name in replaced:
            continue
        if is_function(value):
            raise ConfigurationError(
                f"The hyperparameter {name!r} was your function {value.get('function')!r}, which "
                f"the file does not hold. Pass it again: load(path, {name}=...)."
            )
        values[name] = Linear(*value["linear"]) if _is_linear(value) else value
    return make_config(cls, {**values, **replaced}, others)


def structure_of(config: Config) -> Config:
    """Return the config with 0 in place of every hyperparameter that compiled programs take.

    Configs whose structures are equal share their compiled programs.
    """
    return _replace_numbers(config, lambda kind, index: kind(0))


def numbers_of(config: Any) -> npt.NDArray[np.int32]:
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
def _number_fields(cls: type[Any]) -> dict[str, tuple[type, bool]]:
    """Return the fields of a config class that may hold numbers which programs take.

    Each has the kind of its numbers, float or int, and whether it may be a schedule.
    """
    fields: dict[str, tuple[type, bool]] = {}
    for name, about in hyperparameters(cls).items():
        options = options_of(about.type)
        if float in options:
            fields[name] = (float, Linear in options)
        elif about.traced:
            fields[name] = (int, False)
    return fields


def _numbers(config: Any) -> list[_Number]:
    """Return the numbers that programs take.

    A constant in the place of a schedule counts as a schedule from this number to the same number,
    so that constants and linear schedules share their programs.
    """
    numbers: list[_Number] = []
    for name, (kind, is_schedule) in _number_fields(config.__class__).items():
        value = getattr(config, name)
        if isinstance(value, Linear):
            numbers += [_Number(name, kind, value.start), _Number(name, kind, value.end)]
        elif _is_a(value, float):
            numbers += [_Number(name, kind, value)] * (2 if is_schedule else 1)
    return numbers


def _replace_numbers(config: Config, make: Callable[[type, int], Any]) -> Config:
    """Return a config with `make(kind, index)` in place of each number of `_numbers`."""
    made: dict[str, list[Any]] = {}
    for index, number in enumerate(_numbers(config)):
        made.setdefault(number.name, []).append(make(number.kind, index))
    values: dict[str, Any]
    values = {name: new[0] if len(new) == 1 else Linear(*new) for name, new in made.items()}
    return dataclasses.replace(cast(Any, config), **values)
