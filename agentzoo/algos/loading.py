"""Finding an algorithm by its name, in code and in saved files, and registering your own."""

import dataclasses
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from agentzoo import checkpoint
from agentzoo.algos import ALGORITHMS
from agentzoo.algos.base import Algorithm
from agentzoo.types import ConfigurationError

Class = TypeVar("Class", bound=type[Algorithm])

_registered: dict[str, type[Algorithm]] = {}
"""The algorithms of users, by the name of the class in lower case."""


def names() -> list[str]:
    """Return the names of all algorithms, those of users included."""
    return [*ALGORITHMS, *(cls.__name__ for cls in _registered.values())]


def register(cls: Class) -> Class:
    """Register an algorithm of your own by the name of its class.

    `agentzoo.load` and the command line then find it. It can be used as a decorator. A class that
    is defined again, as in a notebook, replaces the earlier one.

    Args:
      cls: a subclass of `Algorithm` with `Config`, `make_agent` and `action_spaces`.

    Returns:
      The class.

    Raises:
      ConfigurationError: if the class lacks a part, or another class has that name.
    """
    check(cls)
    key = cls.__name__.lower()
    ours = {name.lower(): f"{module}.{name}" for name, module in ALGORITHMS.items()}
    other = _place(_registered[key]) if key in _registered else ours.get(key, _place(cls))
    if other != _place(cls):
        raise ConfigurationError(
            f"The name {cls.__name__} is taken by {other}. Give your class another name."
        )
    if key not in ours:
        _registered[key] = cls
    return cls


def check(cls: Any) -> None:
    """Raise `ConfigurationError` if a class is not an algorithm, or lacks a part of one."""
    if not (isinstance(cls, type) and issubclass(cls, Algorithm)):
        raise ConfigurationError(
            f"{cls!r} is not an algorithm. Register a subclass of agentzoo.Algorithm."
        )
    missing = [part for part in ("Config", "make_agent", "action_spaces") if not hasattr(cls, part)]
    if missing:
        raise ConfigurationError(
            f"{cls.__name__} lacks {', '.join(missing)}. Set Config, make_agent and "
            f"action_spaces in the class."
        )
    if not callable(cls.make_agent):
        raise ConfigurationError(
            f"{cls.__name__}.make_agent={cls.make_agent!r} is not a function. Set it to a function "
            f"from a config, an EnvSpec and a network to an Agent."
        )
    kinds = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
    if not isinstance(cls.action_spaces, tuple) or not {*cls.action_spaces} <= {*kinds}:
        raise ConfigurationError(
            f"{cls.__name__}.action_spaces={cls.action_spaces!r} is not a tuple of action spaces. "
            f"Choose from {', '.join(map(repr, kinds))}."
        )
    _check_config(cls.Config)


def _check_config(config: Any) -> None:
    parameters = getattr(config, "__dataclass_params__", None)
    if not (isinstance(config, type) and parameters is not None and parameters.frozen):
        raise ConfigurationError(
            f"Config={config!r} is not a frozen dataclass. Write @dataclass(frozen=True) above it."
        )
    for field in dataclasses.fields(config):
        factory = field.default_factory is not dataclasses.MISSING
        if field.default is dataclasses.MISSING and not factory:
            raise ConfigurationError(
                f"{config.__name__}.{field.name} has no default. Give each hyperparameter one."
            )
        if field.name in inspect.signature(Algorithm.__init__).parameters:
            raise ConfigurationError(
                f"{config.__name__}.{field.name} has the name of an argument of every agent. "
                f"Choose another name."
            )


def find(name: str) -> type[Algorithm]:
    """Return the class of an algorithm.

    Args:
      name: the name of the class in any case, or "module:Class" for a class that is not registered.
        The module is imported.

    Raises:
      ConfigurationError: if there is no such algorithm, or it lacks a part.
    """
    if ":" in name:
        return register(_import(*name.split(":", 1)))
    key = name.lower()
    if key in _registered:
        return _registered[key]
    for own, module in ALGORITHMS.items():
        if own.lower() == key:
            return getattr(importlib.import_module(module), own)
    known = {each.lower(): each for each in names()}
    close = difflib.get_close_matches(key, known, n=1)
    guess = f"Did you mean {known[close[0]]}? " if close else ""
    raise ConfigurationError(
        f"There is no algorithm {name!r} in agentzoo. {guess}Choose from {', '.join(names())}, or "
        f"write my_module:MyAlgorithm for a class of your own."
    )


def _import(module: str, name: str) -> Any:
    if not module or not name:
        raise ConfigurationError(
            f"{module}:{name} names no class of a module. Write my_module:MyAlgorithm."
        )
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, and lacks another module
        raise ConfigurationError(
            f"There is no module {module!r} for {module}:{name}. Check its name, and that it is in "
            f"the current folder or installed."
        ) from None
    if not hasattr(imported, name):
        raise ConfigurationError(f"The module {module} has no class {name!r}. Check its name.")
    return getattr(imported, name)


def load(path: str | os.PathLike, env: Any = None, **kwargs: Any) -> Algorithm:
    """Load a saved agent of any algorithm; see `Algorithm.load` for the arguments.

    An algorithm of your own is found if it is registered, or if its module has been imported. A
    file never makes this function import a module.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file holds no agent, or one whose algorithm is unknown.
    """
    return find_saved(path).load(path, env, **kwargs)


def find_saved(path: str | os.PathLike) -> type[Algorithm]:
    """Return the class of a saved agent. The file never causes an import of a user's module.

    Args:
      path: the file, or a run folder.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file holds no agent, or one whose algorithm is unknown.
    """
    return find_recorded(checkpoint.read_manifest(path, ["algorithm"]), path)


def find_recorded(manifest: Mapping[str, Any], path: str | os.PathLike) -> type[Algorithm]:
    """Return the class of the agent that the manifest of a file or a folder describes.

    Raises:
      ConfigurationError: as `find_saved` does.
    """
    # Files of earlier versions name no module, because they can only hold agents of our own.
    name, module = manifest["algorithm"], manifest.get("module")
    if not name.isidentifier():  # "module:Class" would import the module
        raise ConfigurationError(f"{path} holds an agent of no class, but of {name!r}.")
    known = find(name) if module is None or name in names() else None
    # A user's class may have moved since, but one with the name of ours is not ours.
    if known is not None and (name not in ALGORITHMS or module in (None, known.__module__)):
        return known
    cls = getattr(sys.modules.get(str(module)), name, None)
    if cls is None:
        place = "a script or notebook" if module == "__main__" else f"the module {module}"
        advice = (
            f"train it with: agentzoo train my_module:{name}"
            if module == "__main__"
            else f"add --algorithm {module}:{name}"
        )
        raise ConfigurationError(
            f"{path} holds an agent of your class {name} from {place}, which is not registered. "
            f"Call agentzoo.register({name}) before you load it. For the command line, {advice}"
        )
    check(cls)
    return cls


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
