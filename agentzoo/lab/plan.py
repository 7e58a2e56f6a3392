"""The plan of a benchmark: which algorithms, environments and seeds it compares."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentzoo import config as configs
from agentzoo.settings.reading import (
    fault,
    from_plain,
    guess,
    line_of,
    load_yaml,
    plain,
)
from agentzoo.types import ConfigurationError


class Variant(NamedTuple):
    """An algorithm with its hyperparameters, under the name that it has in the comparison.

    Attributes:
      label: the name.
      algorithm: the name of the algorithm, or "module:Class".
      changes: the hyperparameters that are set for it alone.
      envs: its environments; None for those of the plan.
    """

    label: str
    algorithm: str
    changes: Mapping[str, Any] = {}
    envs: tuple[str, ...] | None = None


class Protocol(NamedTuple):
    """How agents are evaluated: in fresh episodes, with the deterministic policy.

    Attributes:
      evaluations: number of evaluations during the run, at equal distances.
      eval_episodes: episodes of each of them.
      final_episodes: episodes of the evaluation at the end.
    """

    evaluations: int = 20
    eval_episodes: int = 10
    final_episodes: int = 100


class Plan(NamedTuple):
    """What a benchmark compares.

    Attributes:
      variants: the algorithms.
      envs: the ids of the environments.
      seeds: the number of seeds, which are 0, 1, ...
      steps: environment steps of each run; None for those of the tuned settings, or 100,000.
      n_envs: number of environments of each run; None for that of the tuned settings, or 1.
      tuned: whether the tuned settings of each environment are used.
      settings: a file or a folder with tuned settings; None for those of the package.
      changes: the hyperparameters that are set for all algorithms.
      env_kwargs: the arguments of all environments.
      protocol: how agents are evaluated.
      places: where the parts of a plan file stand, by the name of the entry and of the part.
    """

    variants: tuple[Variant, ...]
    envs: tuple[str, ...]
    seeds: int = 5
    steps: int | None = None
    n_envs: int | None = None
    tuned: bool = False
    settings: str | None = None
    changes: Mapping[str, Any] = {}
    env_kwargs: Mapping[str, Any] = {}
    protocol: Protocol = Protocol()
    places: Mapping[tuple[str, str], str] = {}

    @contextlib.contextmanager
    def located(self, entry: str, part: str) -> Iterator[None]:
        """Return a context in which errors say where a part of the plan stands in its file."""
        try:
            yield
        except ConfigurationError as error:
            place = self.places.get((entry, part))
            if place is None:
                raise
            raise ConfigurationError(f"{place}: {error}") from error


FIELDS = (
    "algos",
    "envs",
    "seeds",
    "steps",
    "n_envs",
    "tuned",
    "settings",
    "set",
    "env_kwargs",
    *Protocol._fields,
)


def make_plan(algos: Any, envs: Any, **others: Any) -> Plan:
    """Return a plan, after checking what can be checked without making an agent.

    Args:
      algos: names of algorithms, "module:Class" texts, or classes; or a mapping from a label to one
        of them, or to a mapping with `algorithm` and `set`.
      envs: ids of environments.
      **others: the other entries of a plan file, by name.

    Raises:
      ConfigurationError: if a value is wrong.
    """
    return _Maker(lambda key: ConfigurationError).make({"algos": algos, "envs": envs, **others})


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan from a YAML file.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if something in the file is wrong. The message says in which line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no plan at {path}.")
    content = load_yaml(path)

    def error_at(key: str) -> Any:
        return lambda message: fault(path, content, key, message)

    for key in content:
        if key not in FIELDS:
            raise error_at(key)(f"A plan has no entry {key!r}. {guess(key, FIELDS)}")
    for key in ("algos", "envs"):
        if content.get(key) is None:
            raise ConfigurationError(f"{path} has no {key}. Add `{key}: [...]`.")
    return _Maker(error_at).make(plain(content))._replace(places=_places(path, content))


def _places(path: Path, content: Any) -> dict[tuple[str, str], str]:
    """Return where each algorithm, environment and hyperparameter stands in a plan file."""
    places: dict[tuple[str, str], str] = {}
    for entry in ("algos", "envs", "set"):
        parts = content.get(entry) or ()
        if not isinstance(parts, dict | list):
            continue
        is_list = isinstance(parts, list)
        for key, part in enumerate(parts) if is_list else [(part, part) for part in parts]:
            name = _label(part) if is_list and entry == "algos" else str(part)
            line = line_of(parts, key)
            places[entry, name] = f"{path}" if line is None else f"{path}, line {line}"
    return places


class _Maker:
    """Makes a plan from plain values.

    Args:
      error_at: returns, for the name of an entry, a function from a message to an error.
    """

    def __init__(self, error_at: Any):
        self.error_at = error_at

    def make(self, entries: Mapping[str, Any]) -> Plan:
        values = {name: value for name, value in entries.items() if value is not None}
        protocol = {name: self._count(name, values[name])
                    for name in Protocol._fields if name in values}  # fmt: skip
        return Plan(
            variants=self._variants(values["algos"]),
            envs=self._envs(values["envs"]),
            seeds=self._count("seeds", values.get("seeds", 5)),
            steps=self._count("steps", values["steps"]) if "steps" in values else None,
            n_envs=self._count("n_envs", values["n_envs"]) if "n_envs" in values else None,
            tuned=self._flag("tuned", values.get("tuned", False)),
            settings=self._path("settings", values["settings"]) if "settings" in values else None,
            changes=self._changes("set", values.get("set", {})),
            env_kwargs=self._keywords(values.get("env_kwargs", {})),
            protocol=Protocol(**protocol),
        )

    def _count(self, name: str, value: Any) -> int:
        try:
            return configs.integer(name, value, 1)
        except ConfigurationError as error:
            raise self.error_at(name)(str(error)) from None

    def _flag(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.error_at(name)(f"{name}={value!r} is neither true nor false.")
        return value

    def _path(self, name: str, value: Any) -> str:
        if not isinstance(value, str | os.PathLike):
            raise self.error_at(name)(f"{name}={value!r} is no path of a file or a folder.")
        return os.fspath(value)

    def _names(self, entry: str, value: Any) -> list[Any]:
        """Return one name or several names as a list."""
        if isinstance(value, str | type):
            return [value]
        if not isinstance(value, Iterable):
            raise self.error_at(entry)(f"{value!r} is no list of names. Write [name, name].")
        return list(value)

    def _keywords(self, kwargs: Any) -> dict[str, Any]:
        if not (isinstance(kwargs, Mapping) and all(str(key).isidentifier() for key in kwargs)):
            raise self.error_at("env_kwargs")(
                f"{kwargs!r} is no mapping from the names of arguments to values."
            )
        try:
            return json.loads(json.dumps(dict(kwargs)))
        except (TypeError, ValueError) as error:
            raise self.error_at("env_kwargs")(
                f"The arguments {kwargs!r} of the environments cannot be recorded ({error}). Use "
                f"numbers, texts, true, false, lists and mappings."
            ) from error

    def _envs(self, envs: Any, entry: str = "envs") -> tuple[str, ...]:
        envs = self._names(entry, envs)
        for env in envs:
            if not isinstance(env, str):
                raise self.error_at(entry)(
                    f"The environment {env!r} is not an id. Register the environment with "
                    f"gymnasium.register, and name it as 'my_module:MyEnv-v0'."
                )
        return tuple(self._distinct("envs", envs, entry))

    def _variants(self, algos: Any) -> tuple[Variant, ...]:
        if isinstance(algos, Mapping):
            return self._checked([self._variant(str(key), algos[key]) for key in algos])
        specs = [self._spec(one) for one in self._names("algos", algos)]
        return self._checked([Variant(_label(spec), spec) for spec in specs])

    def _checked(self, variants: Sequence[Variant]) -> tuple[Variant, ...]:
        self._distinct("algos", [variant.label for variant in variants])
        for variant in variants:
            if not variant.label or {"/", "\\"} & set(variant.label) or variant.label[0] == ".":
                raise self.error_at("algos")(
                    f"The label {variant.label!r} cannot be the name of a folder. Choose letters, "
                    f"digits and hyphens."
                )
        return tuple(variants)

    def _distinct(
        self, name: str, values: Sequence[str], entry: str | None = None
    ) -> Sequence[str]:
        entry = entry or name
        if not values:
            raise self.error_at(entry)(f"{name} is empty. Name at least one.")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            advice = "Leave out one."
            if name == "algos":
                advice = "Give each variant of an algorithm a label of its own in a plan."
            raise self.error_at(entry)(f"{name} names {twice[0]!r} twice. {advice}")
        return values

    def _variant(self, label: str, value: Any) -> Variant:
        if not isinstance(value, Mapping):
            return Variant(label, label if value is None else self._spec(value))
        unknown = [key for key in value if key not in ("algorithm", "set", "envs")]
        if unknown:
            raise self.error_at("algos")(
                f"The variant {label!r} has no entry {unknown[0]!r}. Write algorithm, set and envs."
            )
        changes = self._changes("algos", value.get("set") or {})
        envs = self._envs(value["envs"], "algos") if value.get("envs") is not None else None
        return Variant(label, self._spec(value.get("algorithm", label)), changes, envs)

    def _spec(self, algorithm: Any) -> str:
        if isinstance(algorithm, str):
            return algorithm
        if not isinstance(algorithm, type) or "<locals>" in algorithm.__qualname__:
            raise self.error_at("algos")(
                f"{algorithm!r} names no algorithm. Write its name, or 'my_module:MyAlgorithm' for "
                f"a class of your own."
            )
        if algorithm.__module__ == "__main__":
            raise self.error_at("algos")(
                f"The class {algorithm.__name__} is defined in a script or notebook, from which "
                f"the processes of a benchmark cannot import it. Move it into a module, and write "
                f"'my_module:{algorithm.__name__}'."
            )
        return spec_of(algorithm)

    def _changes(self, name: str, changes: Any) -> dict[str, Any]:
        if not isinstance(changes, Mapping):
            raise self.error_at(name)(f"{changes!r} is no mapping from hyperparameters to values.")
        try:
            return {str(key): from_plain(value) for key, value in changes.items()}
        except ConfigurationError as error:
            raise self.error_at(name)(str(error)) from None


def spec_of(cls: type[Any]) -> str:
    """Return an algorithm as text: its name, or "module:Class" for one of a user."""
    if cls.__module__.startswith("agentzoo.algos."):
        return cls.__name__.lower()
    return f"{cls.__module__}:{cls.__name__}"


def _label(spec: str) -> str:
    return spec.split(":")[-1].lower()
