"""Hyperparameters: their names, types, defaults, ranges and descriptions, each in one place.

The config of an algorithm is a frozen dataclass of plain values::

    @dataclass(frozen=True)
    class MyConfig:
        gamma: float = hyperparameter(0.99, "Discount factor per environment step.", ge=0, le=1)

Checks, error messages, `help`, editors, the documentation and the command line read it there. A
field with an ordinary default also works; it has no range and no description.

The checks are our own, because those of pydantic and typeguard do not fit: users may write
`buffer_size=1e6` and `net_arch=[64, 64]`, but `double_q=1` is a mistake. The bounds are named as in
pydantic and annotated-types.
"""

import dataclasses
import difflib
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from typing_extensions import TypeAliasType

from agentzoo import keywords
from agentzoo.types import Array, ConfigurationError

Config = TypeVar("Config")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Linear:
    """A schedule that goes in a straight line from `start` to `end` during a run.

    Each training cycle uses the value of the step at which the cycle began. The first cycle uses
    `start`, and the last one uses a value just before `end`.

    Attributes:
      start: the value at the beginning of the run.
      end: the value at the end of the run.
    """

    start: float
    end: float = 0.0

    def __call__(self, remaining: Array) -> Array:
        """Return the value when the fraction `remaining` (from 1 to 0) of the run is left."""
        return self.end + (self.start - self.end) * remaining


Schedule = TypeAliasType("Schedule", float | Linear | Callable[[Array], Array])
"""A number, or a function (on JAX scalars) of the remaining progress from 1 to 0, as `Linear`."""


def value_at(schedule: Schedule, remaining: Array) -> Any:
    """Return the value of a schedule when the fraction `remaining` of the run is left."""
    return schedule(remaining) if callable(schedule) else schedule


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of a number. `low` itself is outside the range if `open_low` is true."""

    low: float = float("-inf")
    high: float = float("inf")
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return above and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"of at least {self.low:g}"
        if self.low == float("-inf"):
            return "" if self.high == float("inf") else f"of at most {self.high:g}"
        if self.high == float("inf"):
            return low
        if self.open_low:
            return f"{low} and up to {self.high:g}"
        return f"from {self.low:g} to {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """What a config class says about one of its fields.

    Attributes:
      name: the name of the field.
      type: its type, such as `float` or `Schedule | None`.
      default: its default value; `dataclasses.MISSING` if there is none.
      text: its description, with units.
      range: the range of its numbers.
      traced: whether compiled programs take it as an argument although it is an integer.
    """

    name: str
    type: Any
    default: Any
    text: str = ""
    range: Range = Range()
    traced: bool = False

    @property
    def expected(self) -> str:
        """The values that are allowed, such as "an integer of at least 1"."""
        return _either([_describe(option, self.range) for option in _options(self.type)])

    @property
    def type_name(self) -> str:
        """The type as code, such as "float" or "Schedule | None"."""
        return _type_name(self.type)


def hyperparameter(
    default: T,
    text: str = "",
    *,
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
    traced: bool = False,
) -> T:
    """Declare a field of a config.

    Args:
      default: the default value.
      text: what the hyperparameter means, in one or two sentences, with its unit.
      gt: the values are greater than this number.
      ge: the values are greater than or equal to this number.
      le: the values are less than or equal to this number.
      traced: the hyperparameter is an integer that decides neither a shape nor a branch, so that
        compiled programs can take it as an argument. Floats are always arguments.

    Returns:
      What a dataclass needs in place of the default. For type checkers, it is the default.
    """
    low = gt if gt is not None else ge
    bounds = Range(
        float("-inf") if low is None else low, float("inf") if le is None else le, gt is not None
    )
    about = {"text": text, "range": bounds, "traced": traced}
    return cast(T, dataclasses.field(default=cast(Any, default), metadata=about))


@functools.cache
def hyperparameters(cls: type[Any]) -> Mapping[str, Hyperparameter]:
    """Return the hyperparameters of a config class by name, in the order of the class."""
    hints = get_type_hints(cls)
    found: dict[str, Hyperparameter] = {}
    for field in dataclasses.fields(cls):
        found[field.name] = Hyperparameter(
            field.name, hints[field.name], field.default, **field.metadata
        )
    return types.MappingProxyType(found)


def integer(name: str, value: Any, least: int = 0) -> int:
    """Return an argument that counts something as a Python integer.

    NumPy's integers and floats such as 1e6 are accepted.

    Raises:
      ConfigurationError: if the value is not an integer, or is below `least`.
    """
    number = _convert(int, value)
    if not _is_a(number, int) or number < least:
        raise ConfigurationError(
            f"{name}={value!r} is not allowed. Choose an integer of at least {least}."
        )
    return number


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


def _options(hint: Any) -> list[Any]:
    """The alternatives of a union as a list, in order. Other types are the only alternative."""
    if isinstance(hint, TypeAliasType):
        return _options(hint.__value__)
    if get_origin(hint) in (Union, types.UnionType):
        return [option for part in get_args(hint) for option in _options(part)]
    return [hint]


def _convert(hint: Any, value: Any) -> Any:
    """Convert a value that is meant for a type, such as a list for a tuple or 1e6 for an integer.

    Values that do not fit the type are returned as they are.
    """
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    options = _options(hint)
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
            get_origin(option) is Literal or option is type(None) for option in _options(about.type)
        ):
            raise ConfigurationError(f"{given} is unknown. {_advice(about, value)}")
        raise ConfigurationError(f"{given} has the wrong type. Choose {about.expected}.")
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


def _advice(about: Hyperparameter, value: Any) -> str:
    """What to write instead of a word that is not one of the choices."""
    words = [word for option in _options(about.type) for word in get_args(option)]
    close = difflib.get_close_matches(str(value).lower(), words, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Choose {about.expected}."


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value has a type. Integers are numbers, and booleans are not."""
    return any(_is_option(value, option) for option in _options(hint))


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


def _describe(kind: Any, bounds: Range) -> str:
    """The values of a type without alternatives, in words."""
    if get_origin(kind) is Literal:
        return _either([repr(word) for word in get_args(kind)])
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is not int:
            return "a tuple of strings"
        return f"a tuple of integers {bounds}".rstrip()
    if kind in (int, float):
        return f"{'an integer' if kind is int else 'a number'} {bounds}".rstrip()
    names = {
        bool: "True or False",
        str: "a string",
        type(None): "None",
        Linear: "Linear(start, end)",
    }
    if get_origin(kind) is Callable:
        return "a function of the remaining progress"
    return names.get(kind, _type_name(kind))


def _either(words: list[str]) -> str:
    """Words as a text, such as "A, B or C"."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _type_name(hint: Any) -> str:
    if isinstance(hint, TypeAliasType):
        return hint.__name__
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(map(_quoted, get_args(hint)))}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON.

    A function cannot be written: only its name is, and `from_json` asks for the function.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Linear):
            return {"linear": [value.start, value.end]}
        if callable(value):
            return {"function": getattr(value, "__name__", type(value).__name__)}
        return value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


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
    values = [value for _, value in _numbers(config)]
    packed = [np.float32(x).view(np.int32) if isinstance(x, float) else np.int32(x) for x in values]
    return np.array(packed, np.int32)


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


@functools.cache
def _number_kinds(cls: type[Any]) -> Mapping[str, type]:
    """The fields of a config class that may hold a traced number, each with float or int."""
    kinds: dict[str, type] = {}
    for name, about in hyperparameters(cls).items():
        if float in _options(about.type):
            kinds[name] = float
        elif about.traced:
            kinds[name] = int
    return kinds


def _numbers(config: Any) -> list[tuple[str, float | int]]:
    """The names and values of the numbers that programs take. A `Linear` schedule has two."""
    numbers: list[tuple[str, float | int]] = []
    for name, kind in _number_kinds(config.__class__).items():
        value = getattr(config, name)
        if isinstance(value, Linear):
            numbers += [(name, float(value.start)), (name, float(value.end))]
        elif _is_a(value, float):
            numbers.append((name, kind(value)))
    return numbers


def _replace_numbers(config: Config, make: Callable[[type, int], Any]) -> Config:
    """Return a config with `make(kind, index)` for each number, in the order of `_numbers`."""
    made: dict[str, list[Any]] = {}
    for index, (name, value) in enumerate(_numbers(config)):
        made.setdefault(name, []).append(make(value.__class__, index))
    values: dict[str, Any] = {}
    for name, new in made.items():
        values[name] = Linear(*new) if isinstance(getattr(config, name), Linear) else new[0]
    return dataclasses.replace(cast(Any, config), **values)
