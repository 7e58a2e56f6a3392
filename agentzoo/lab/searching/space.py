"""What a search varies: ranges and choices of hyperparameters, and fixed values.

The config of an algorithm declares them. A YAML file can choose among them and narrow them::

    learning_rate: {low: 1e-5, high: 1e-3, log: true}
    gamma:                                  # the declared values
    batch_size: {choices: [64, 128]}
    ent_coef: 0.0                           # fixed
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentzoo import config as configs
from agentzoo.config import Hyperparameter, Linear, Search
from agentzoo.settings import reading
from agentzoo.types import ConfigurationError

_FIELDS = ("low", "high", "log", "choices")


class Dimension(NamedTuple):
    """A hyperparameter that a search varies.

    Attributes:
      about: what the config class says about the hyperparameter.
      search: the values to try.
    """

    about: Hyperparameter
    search: Search

    @property
    def is_integer(self) -> bool:
        """Whether a range stands for its integers."""
        return float not in configs.options_of(self.about.type)

    @property
    def labels(self) -> dict[Any, Any]:
        """The choices by what a database can hold: sequences and schedules are texts there."""
        return {_label(value): value for value in self.search.choices}

    def suggest(self, trial: Any) -> Any:
        """Return the value that Optuna suggests for a trial."""
        name, search = self.about.name, self.search
        if search.choices:
            return self.labels[trial.suggest_categorical(name, list(self.labels))]
        suggest = trial.suggest_int if self.is_integer else trial.suggest_float
        return self.value(suggest(name, search.low, search.high, log=search.log))

    def value(self, number: Any) -> Any:
        """Return the hyperparameter for a drawn number, which is the start of a schedule."""
        default = self.about.default
        if isinstance(default, Linear):
            return Linear(number, number * default.end / default.start)
        return number

    def drawn(self, value: Any) -> Any:
        """Return what Optuna would have drawn for a value; None if it cannot be drawn."""
        if self.search.choices:
            return _label(value) if _label(value) in self.labels else None
        number = value.start if isinstance(value, Linear) else value
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        return number if is_number and self.search.low <= number <= self.search.high else None

    def to_json(self) -> Any:
        """Return the values to try as plain JSON."""
        if self.search.choices:
            return {"choices": list(self.labels)}
        return {"low": self.search.low, "high": self.search.high, "log": self.search.log}


class Space(NamedTuple):
    """What a search varies, and what stays.

    Attributes:
      dimensions: the hyperparameters that vary, by name.
      fixed: the other hyperparameters that differ from the defaults, by name.
    """

    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Any]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Return the hyperparameters of a trial by name."""
        drawn = {name: each.suggest(trial) for name, each in self.dimensions.items()}
        return {**self.fixed, **drawn}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a trial that drew these values before."""
        values = {
            name: each.labels[drawn[name]] if each.search.choices else each.value(drawn[name])
            for name, each in self.dimensions.items()
            if name in drawn
        }
        return {**self.fixed, **values}

    def start(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Optuna would have drawn for hyperparameters, as far as it can draw them."""
        drawn = {
            name: each.drawn(values.get(name, each.about.default))
            for name, each in self.dimensions.items()
        }
        return {name: value for name, value in drawn.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the space as plain JSON."""
        fixed = {name: _label(value) for name, value in sorted(self.fixed.items())}
        varied = {name: each.to_json() for name, each in sorted(self.dimensions.items())}
        return {"dimensions": varied, "fixed": fixed}


def declared(cls: type[Any], structure: bool = False) -> Space:
    """Return the search space that an algorithm declares.

    Args:
      cls: the class of the algorithm.
      structure: whether hyperparameters vary, too, of which each value needs a compilation of its
        own, such as the sizes of layers.

    Raises:
      ConfigurationError: if the algorithm declares nothing.
    """
    known = configs.hyperparameters(cls.Config).values()
    found = {
        about.name: Dimension(about, about.search)
        for about in known
        if about.search is not None and (structure or about.is_data)
    }
    if not found:
        raise ConfigurationError(
            f"{cls.__name__} declares no search space. Write one into a YAML file and pass it as "
            f"space, or add agentzoo.config.Search(low, high) to the annotations of its config."
        )
    return Space(found, {})


def read(path: str | os.PathLike[str], cls: type[Any]) -> Space:
    """Read a search space from a YAML file. Only the hyperparameters in the file vary.

    Args:
      path: the file.
      cls: the class of the algorithm.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if a name or a value in the file is wrong. The message says in which line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no search space at {path}.")
    return _Reader(path, cls).read()


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, cls: type[Any]):
        self.path = path
        self.cls = cls
        self.content = reading.load_yaml(path)
        self.known = configs.hyperparameters(cls.Config)

    def read(self) -> Space:
        varied: dict[str, Dimension] = {}
        fixed: dict[str, Any] = {}
        for key in self.content:
            name, value = str(key), reading.plain(self.content[key])
            if name not in self.known:
                where = self.cls.__name__
                raise self._fault(
                    key, f"{where} has no hyperparameter {name!r}. {reading.guess(key, self.known)}"
                )
            if value is None or (isinstance(value, dict) and set(value) != {"linear"}):
                varied[name] = Dimension(self.known[name], self._search(key, value or {}))
            else:
                fixed[name] = self._checked(key, value)
        if not varied:
            raise ConfigurationError(
                f"{self.path} varies no hyperparameter. Write a line such as "
                f"`learning_rate: {{low: 1e-5, high: 1e-2, log: true}}`."
            )
        return Space(varied, fixed)

    def _search(self, key: Any, entry: dict[str, Any]) -> Search:
        """Return the values that the file gives, completed by the declared ones."""
        about = self.known[str(key)]
        for field in entry:
            if field not in _FIELDS:
                advice = reading.guess(field, _FIELDS)
                raise self._fault(key, f"A search has no field {field!r}. {advice}")
        if "choices" in entry:
            return Search(choices=self._choices(key, entry))
        before = about.search
        if before is None or before.choices:
            if not entry and before is not None:
                return before
            missing = [name for name in ("low", "high") if name not in entry]
            if missing:
                raise self._fault(
                    key,
                    f"{key} has no declared range, so {' and '.join(missing)} must be given. "
                    f"Write {{low: ..., high: ...}} or {{choices: [...]}}.",
                )
            before = Search()
        return self._range(key, {**_range_of(before), **entry})

    def _choices(self, key: Any, entry: dict[str, Any]) -> tuple[Any, ...]:
        choices = entry["choices"]
        if len(entry) > 1 or not isinstance(choices, list) or not choices:
            raise self._fault(
                key,
                f"{key}: the choices are no list of values alone. Write {{choices: [1, 2]}}.",
            )
        return tuple(self._checked(key, value) for value in choices)

    def _range(self, key: Any, entry: dict[str, Any]) -> Search:
        low, high, log = entry["low"], entry["high"], entry["log"]
        for name in ("low", "high"):
            if not isinstance(entry[name], int | float) or isinstance(entry[name], bool):
                raise self._fault(key, f"{key}: {name}={entry[name]!r} is no number.")
        if not low < high:
            raise self._fault(
                key, f"{key}: the range from {low:g} to {high:g} is empty. Choose low < high."
            )
        if not isinstance(log, bool) or (log and low <= 0):
            raise self._fault(
                key, f"{key}: log={log!r} needs to be true or false, and low above 0 if it is true."
            )
        dimension = Dimension(self.known[str(key)], Search(low, high, log))
        if dimension.is_integer and not (float(low).is_integer() and float(high).is_integer()):
            raise self._fault(key, f"{key} is an integer. Choose integers as low and high.")
        for end in (low, high):
            self._checked(key, end)
        kind: Callable[[float], float] = int if dimension.is_integer else float
        return Search(kind(low), kind(high), log)

    def _checked(self, key: Any, value: Any) -> Any:
        """Return a value as the config would hold it."""
        name = str(key)
        try:
            config = configs.make_config(self.cls.Config, {name: reading.from_plain(value)})
        except ConfigurationError as error:
            raise self._fault(key, str(error)) from None
        return getattr(config, name)

    def _fault(self, key: Any, message: str) -> ConfigurationError:
        return reading.fault(self.path, self.content, key, message)


def _range_of(search: Search) -> dict[str, Any]:
    return {"low": search.low, "high": search.high, "log": search.log}


def _label(value: Any) -> Any:
    """Return a value as a database can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Linear):
        return json.dumps({"linear": [value.start, value.end]})
    return json.dumps(value)
