"""Finding the settings of an algorithm, and the row of an environment in them."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentzoo.algos import ALGORITHMS
from agentzoo.settings.reading import Row, Settings, guess, read_file, read_once
from agentzoo.types import ConfigurationError

_FOLDER = Path(__file__).parent

StrPath = str | os.PathLike[str]


def read(algorithm: str | type[Any], path: StrPath | None = None) -> dict[str, Row]:
    """Return the tuned settings of an algorithm.

    Args:
      algorithm: the name of one of agentzoo's algorithms in any case, or the class of any
        algorithm.
      path: a file of settings, or a folder in which the file is called `<algorithm>.yaml`. None
        reads the settings in the package.

    Returns:
      The rows by their keys, which are ids of environments or names of variants.

    Raises:
      FileNotFoundError: if there is no file at `path`.
      ConfigurationError: if there is no such algorithm, or something in the file is wrong. The
        message says in which line.
    """
    return dict(settings_of(_class(algorithm), path).rows)


def file_of(algorithm: str | type[Any], path: StrPath | None = None) -> Path | None:
    """Return the file with the settings of an algorithm, or None if it has none.

    The arguments are those of `read`.
    """
    return _locate(_class(algorithm), path)[0]


def find_row(cls: type[Any], env: Any, row: str | None = None, path: StrPath | None = None) -> Row:
    """Return the tuned settings of an algorithm for an environment.

    Args:
      cls: the class of the algorithm.
      env: the id of the environment, the key of a row, or an environment that has an id.
      row: the key of the row, if it is not the id of the environment.
      path: as for `read`.

    Raises:
      ConfigurationError: if there is no such row.
    """
    key = _id_of(env) if row is None else row
    if key is None:
        raise ConfigurationError(
            f"The environment has no id by which its tuned settings could be found. Name the row: "
            f"{cls.__name__}.tuned(env, row='CartPole-v1')."
        )
    found = settings_of(cls, path)
    for name in (key, key.split(":")[-1]):  # my_module:MyEnv-v0
        if name in found.rows:
            return found.rows[name]
    if not found.rows:
        raise ConfigurationError(
            f"{cls.__name__} has no tuned settings. Name a file of yours with settings=."
        )
    raise ConfigurationError(
        f"{cls.__name__} has no tuned settings for {key!r}. {guess(key, found.rows)}"
    )


def presets_of(cls: type[Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the presets of an algorithm's class, hyperparameters by the name of the preset."""
    return settings_of(cls).presets


def settings_of(cls: type[Any], path: StrPath | None = None) -> Settings:
    """Return the settings of an algorithm's class, which are empty if it has none.

    The errors are those of `read`.
    """
    file, owner = _locate(cls, path)
    if file is None:
        return Settings(None, {}, {})
    in_package = file.parent == _FOLDER
    return (read_once if in_package else read_file)(file, owner.Config)


def _locate(cls: type[Any], path: StrPath | None) -> tuple[Path | None, type[Any]]:
    """Return the file of an algorithm's class, and the class to whose config it belongs."""
    if path is not None:
        path = Path(path)
        return (path / f"{cls.__name__.lower()}.yaml" if path.is_dir() else path), cls
    for base in cls.__mro__:  # a subclass of one of our algorithms has the settings of that one
        own = vars(base).get("settings_file")
        if own is not None:
            return Path(own), base
        if ALGORITHMS.get(base.__name__) == base.__module__:
            file = _FOLDER / f"{base.__name__.lower()}.yaml"
            return (file if file.is_file() else None), base
    return None, cls


def _class(algorithm: str | type[Any]) -> type[Any]:
    if isinstance(algorithm, type):
        return algorithm
    for name, module in ALGORITHMS.items():
        if name.lower() == algorithm.lower():
            return getattr(importlib.import_module(module), name)
    names = [name.lower() for name in ALGORITHMS]
    raise ConfigurationError(
        f"There is no algorithm {algorithm!r} in agentzoo. {guess(algorithm.lower(), names)}"
    )


def _id_of(env: Any) -> str | None:
    """Return the id of an environment, or None if it has none."""
    return env if isinstance(env, str) else getattr(getattr(env, "spec", None), "id", None)
