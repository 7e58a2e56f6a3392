"""Reading a file of tuned settings, and checking each value in it."""

import datetime
import difflib
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from agentzoo import config as configs
from agentzoo.types import ConfigurationError

PRESETS = "presets"
"""The section of a file that holds presets instead of an environment."""


class Row(NamedTuple):
    """Tuned settings for one environment.

    Attributes:
      env: the Gymnasium id of the environment.
      steps: environment steps of the training.
      n_envs: number of environments that are stepped at once.
      hyperparameters: the hyperparameters that differ from the defaults, those of the preset
        included.
      source: where the values come from.
      scores: what agents with these settings scored, or None. `seeds` is the number of agents;
        `mean`, `iqm` and `worst` summarise their mean returns over `episodes` episodes each, and
        `date` and `version` say when and with which agentzoo they were measured.
      name: the key of the row in the file; None for the id of the environment.
      preset: the name of the preset on which the row builds, or None.
    """

    env: str
    steps: int
    n_envs: int = 1
    hyperparameters: Mapping[str, Any] = {}
    source: str = ""
    scores: Mapping[str, Any] | None = None
    name: str | None = None
    preset: str | None = None

    @property
    def key(self) -> str:
        """The key of the row in its file."""
        return self.env if self.name is None else self.name


class Settings(NamedTuple):
    """What a file of settings holds.

    Attributes:
      path: the file; None if there is none.
      rows: the rows by their keys, which are ids of environments or names of variants.
      presets: hyperparameters by the name of the preset.
    """

    path: Path | None
    rows: dict[str, Row]
    presets: dict[str, dict[str, Any]]


_FIELDS = ("env", "steps", "n_envs", "preset", "hyperparameters", "source", "scores")
_SCORES: dict[str, type] = {
    **{"seeds": int, "mean": float, "iqm": float, "worst": float, "episodes": int},
    **{"date": str, "version": str},
}


def read_file(path: str | os.PathLike[str], config: type[Any]) -> Settings:
    """Read a file of settings.

    Args:
      path: the file.
      config: the config class of the algorithm.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is no YAML, or a name or a value in it is wrong. The message
        says in which line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of tuned settings at {path}.")
    return _Reader(path, config).read()


def load_yaml(path: Path) -> Any:
    """Return the mapping in a YAML file, whose parts know their lines. An empty file has none.

    Raises:
      ConfigurationError: if the file is no YAML, or holds something else than a mapping.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no YAML file: {error}.") from error


def parse_yaml(text: str, path: Path) -> Any:
    """Return the mapping in the text of a YAML file, as `load_yaml` does."""
    # It is imported here because `import agentzoo` and `agentzoo --help` do without it.
    from ruamel.yaml import YAML, YAMLError
    from ruamel.yaml.error import MarkedYAMLError

    try:
        content = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = (error.problem or "the text is no YAML").split("\n")[0]
        raise ConfigurationError(
            f"{path}{line}: {problem}. Correct the YAML of the file."
        ) from error
    except (YAMLError, ValueError) as error:
        raise ConfigurationError(f"{path} is no YAML file: {error}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no mapping. Write `name: value` on each line.")
    return content


def parse_value(text: str) -> Any:
    """Return the value that a text stands for in YAML, as one of Python's own types.

    Raises:
      ValueError: if the text is no YAML.
    """
    from ruamel.yaml import YAML, YAMLError

    try:
        return plain(YAML().load(text))
    except YAMLError as error:
        raise ValueError(f"{text!r} is no YAML") from error


def plain(value: Any) -> Any:
    """Return a value of a YAML file as one of Python's own types."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def fault(path: Path, node: Any, key: Any, message: str) -> ConfigurationError:
    """Return an error that names the file and the line of a key in a part of a YAML file."""
    line = line_of(node, key)
    return ConfigurationError(f"{path}{'' if line is None else f', line {line}'}: {message}")


def line_of(node: Any, key: Any) -> int | None:
    """Return the line of a part of a YAML file, from 1; None if it is not known.

    Args:
      node: a mapping or a list of the file.
      key: a key of the mapping, or an index of the list.
    """
    places: Any = getattr(node, "lc", None)
    try:
        place = places.item(key) if isinstance(node, list) else places.key(key)
    except (AttributeError, KeyError, TypeError):
        return None
    return place[0] + 1


def guess(word: Any, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown word."""
    known = list(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Choose from {', '.join(known)}."


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, config: type[Any]):
        self.path = path
        self.config = config
        self.presets: dict[str, dict[str, Any]] = {}

    def fail(self, node: Any, key: Any, message: str) -> NoReturn:
        raise fault(self.path, node, key, message)

    def read(self) -> Settings:
        content = load_yaml(self.path)
        sections = self._mapping(content, PRESETS) if PRESETS in content else {}
        for name in sections:
            section = self._mapping(sections, name)
            self._known(section, ("hyperparameters", "source"), f"The preset {name!r}")
            self.presets[str(name)] = self._hyperparameters(section)
        rows = {str(key): self._row(content, key) for key in content if key != PRESETS}
        return Settings(self.path, rows, self.presets)

    def _mapping(self, node: Any, key: Any) -> Any:
        value = node[key]
        if not isinstance(value, dict):
            self.fail(node, key, f"{key!r} is not a mapping. Write `name: value` lines below it.")
        return value

    def _known(self, node: Any, names: Iterable[str], where: str) -> None:
        for key in node:
            if key not in names:
                self.fail(node, key, f"{where} has no field {key!r}. {guess(key, names)}")

    def _row(self, content: Any, key: Any) -> Row:
        row = self._mapping(content, key)
        self._known(row, _FIELDS, f"The row {key!r}")
        if "steps" not in row:
            self.fail(content, key, f"The row {key!r} has no steps. Add `steps: 100_000`.")
        env, preset = self._text(row, "env", str(key)), self._text(row, "preset", None)
        if preset is not None and preset not in self.presets:
            advice = guess(preset, self.presets) if self.presets else "The file has none."
            self.fail(row, "preset", f"There is no preset {preset!r}. {advice}")
        return Row(
            env=env,
            steps=self._count(row, "steps"),
            n_envs=self._count(row, "n_envs") if "n_envs" in row else 1,
            hyperparameters={**self.presets.get(preset or "", {}), **self._hyperparameters(row)},
            source=" ".join(self._text(row, "source", "").split()),
            scores=self._scores(row) if "scores" in row else None,
            name=None if env == key else str(key),
            preset=preset,
        )

    def _text(self, node: Any, key: str, default: Any) -> Any:
        value = node.get(key, default)
        if not (isinstance(value, str) or value is default):
            self.fail(node, key, f"{key}: {plain(value)!r} is no text.")
        return value if value is None else str(value)

    def _count(self, node: Any, key: str) -> int:
        try:
            return configs.integer(key, plain(node[key]), 1)
        except ConfigurationError as error:
            self.fail(node, key, str(error))

    def _hyperparameters(self, node: Any) -> dict[str, Any]:
        if "hyperparameters" not in node:
            return {}
        values = self._mapping(node, "hyperparameters")
        return {str(name): self._hyperparameter(values, name) for name in values}

    def _hyperparameter(self, values: Any, name: Any) -> Any:
        try:
            value = from_plain(plain(values[name]))
            return getattr(configs.make_config(self.config, {str(name): value}), str(name))
        except ConfigurationError as error:
            self.fail(values, name, str(error))

    def _scores(self, row: Any) -> dict[str, Any]:
        scores = self._mapping(row, "scores")
        self._known(scores, _SCORES, "The entry scores")
        for name, kind in _SCORES.items():
            if name not in scores:
                self.fail(row, "scores", f"The scores have no {name!r}. `agentzoo benchmark` "
                          f"writes them with --save-scores.")  # fmt: skip
            value = plain(scores[name])
            good = isinstance(value, int | float if kind is float else kind)
            if not good or isinstance(value, bool):
                self.fail(scores, name, f"{name}: {value!r} is no {_NAMES[kind]}.")
        return plain(scores)


_NAMES: dict[type, str] = {int: "integer", float: "number", str: "text"}


def from_plain(value: Any) -> Any:
    """Return a hyperparameter that a file or a command line holds as plain data.

    A schedule is written as `{linear: [start, end]}` or as the text "linear:start,end".

    Raises:
      ConfigurationError: if the value is a mapping or a text that begins with "linear:", and is no
        such schedule.
    """
    ends: Any = None
    if isinstance(value, str) and value.startswith("linear:"):
        try:
            ends = [float(part) for part in value.removeprefix("linear:").split(",")]
        except ValueError:
            ends = []
    elif isinstance(value, dict):
        ends = value["linear"] if set(value) == {"linear"} else []
    if ends is None:
        return value
    numbers = isinstance(ends, list) and all(
        isinstance(end, int | float) and not isinstance(end, bool) for end in ends
    )
    if not (numbers and 1 <= len(ends) <= 2):
        raise ConfigurationError(
            f"{value!r} is no schedule. Write {{linear: [start, end]}} for a schedule."
        )
    return configs.Linear(*ends)


@functools.cache
def read_once(path: Path, config: type[Any]) -> Settings:
    """Return what `read_file` returns, for a file that does not change."""
    return read_file(path, config)
