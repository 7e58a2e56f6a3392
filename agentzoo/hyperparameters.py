"""What a config class says about its hyperparameters: type, default, range and description.

The config of an algorithm is a frozen dataclass of plain values. A range stands beside the type,
and a description below the field::

    @dataclass(frozen=True)
    class MyConfig:
        gamma: Annotated[float, FRACTION] = 0.99
        \"\"\"Discount factor per environment step.\"\"\"

Checks, error messages, `help`, editors, the documentation and the command line read it there.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType

from agentzoo.types import Array


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
class Search:
    """The values of a hyperparameter that a search tries, unless the user says otherwise.

    Attributes:
      low: the lowest number. A search varies the start of a schedule.
      high: the highest number.
      log: whether the logarithm of the number is drawn, so that 1e-5 to 1e-4 is as likely as 1e-4
        to 1e-3.
      choices: the values themselves, instead of a range.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()


POSITIVE = Range(0, open_low=True)
FRACTION = Range(0, 1)


class Traced:
    """Marks an integer hyperparameter that compiled programs take as an argument.

    Floats are always arguments. An integer can be one only if it decides neither a shape nor a
    branch.
    """


TRACED = Traced()


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """What a config class says about one of its fields.

    Attributes:
      name: the name of the field.
      type: its type, such as `float` or `Schedule | None`.
      default: its default value; `dataclasses.MISSING` if there is none.
      text: its description, with units.
      range: the range of its numbers.
      traced: whether compiled programs take it as an argument although it is an integer (`TRACED`).
      search: the values that a search tries; None if a search leaves it alone.
    """

    name: str
    type: Any
    default: Any
    text: str = ""
    range: Range = Range()
    traced: bool = False
    search: Search | None = None

    @property
    def is_data(self) -> bool:
        """Whether compiled programs take its numbers as arguments.

        Agents that differ only in such hyperparameters share their programs.
        """
        return self.traced or float in options_of(self.type)

    @property
    def expected(self) -> str:
        """The values that are allowed, such as "an integer of at least 1"."""
        options = options_of(self.type)
        return either([word for option in options for word in _describe(option, self.range)])

    @property
    def type_name(self) -> str:
        """The type as code, such as "float" or "Schedule | None"."""
        return type_name_of(self.type)


@functools.cache
def hyperparameters(cls: type[Any]) -> Mapping[str, Hyperparameter]:
    """Return the hyperparameters of a config class by name, in the order of the class."""
    hints, texts = get_type_hints(cls, include_extras=True), descriptions(cls)
    found: dict[str, Hyperparameter] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
        bounds = next((mark for mark in marks if isinstance(mark, Range)), Range())
        search = next((mark for mark in marks if isinstance(mark, Search)), None)
        found[field.name] = Hyperparameter(
            field.name,
            kind,
            field.default,
            texts.get(field.name, ""),
            bounds,
            TRACED in marks,
            search,
        )
    return types.MappingProxyType(found)


def descriptions(cls: type[Any]) -> dict[str, str]:
    """Return the strings below the fields of a class, by the name of the field.

    Python itself does not keep them, so they are read from the source code, which is how pydantic's
    `use_attribute_docstrings` works. Without the source code the result is empty.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            match field, below:
                case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
                case _:
                    pass
    return texts


def options_of(hint: Any) -> list[Any]:
    """Return the alternatives of a union in order, or the type itself if it is no union."""
    if isinstance(hint, TypeAliasType):
        return options_of(hint.__value__)
    if get_origin(hint) in (Union, types.UnionType):
        return [option for part in get_args(hint) for option in options_of(part)]
    return [hint]


def _describe(kind: Any, bounds: Range) -> list[str]:
    """The values of a type that is no union, in words: one text for each alternative."""
    if get_origin(kind) is Literal:
        return [repr(word) for word in get_args(kind)]
    if kind is bool:
        return ["True", "False"]
    if get_origin(kind) is tuple:
        items = "integers" if get_args(kind)[0] is int else "strings"
        return [f"a tuple of {items} {bounds}".rstrip()]
    if kind in (int, float):
        return [f"{'an integer' if kind is int else 'a number'} {bounds}".rstrip()]
    if get_origin(kind) is Callable:
        return ["a function of the remaining progress"]
    names = {str: "a string", type(None): "None", Linear: "Linear(start, end)"}
    return [names.get(kind, type_name_of(kind))]


def either(words: list[str]) -> str:
    """Return words as a text, such as "A, B or C"."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def type_name_of(hint: Any) -> str:
    """Return a type as code, such as "float" or "Schedule | None"."""
    if isinstance(hint, TypeAliasType):
        return hint.__name__
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(type_name_of(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(map(_quoted, get_args(hint)))}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
