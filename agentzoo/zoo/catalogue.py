"""Finding and loading the trained agents of a zoo."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentzoo.algos import loading
from agentzoo.algos.base import Algorithm
from agentzoo.checkpoint import SUFFIX
from agentzoo.envs import EnvLike
from agentzoo.types import ConfigurationError

FOLDER = Path(__file__).parent / "agents"
"""The zoo in the package. The agents of a label are in a folder with its name."""

FORMAT = 1
"""The version of the records."""

PREFIX = "zoo:"
"""How the command line distinguishes the name of an agent in the zoo from a path."""

_NEEDED = ("algorithm", "env", "steps", "seed", "score", "seeds", "hyperparameters", "versions")
_SCORE = ("mean", "std", "episodes")


class Entry(NamedTuple):
    """A trained agent of a zoo.

    Attributes:
      label: the name under which the agent's settings were benchmarked. Usually, it is the name of
        the algorithm in lower case.
      env: the id of the environment.
      path: the file of the agent.
      record: how the agent was trained and what it scored, as plain JSON.
    """

    label: str
    env: str
    path: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the agent on the command line, such as "zoo:dqn/CartPole-v1"."""
        return f"{PREFIX}{self.label}/{self.env}"

    @property
    def mean(self) -> float:
        """Mean return of the evaluation episodes."""
        return self.record["score"]["mean"]

    @property
    def std(self) -> float:
        """Standard deviation of the returns of the evaluation episodes."""
        return self.record["score"]["std"]

    @property
    def card(self) -> Path:
        """The Markdown file that describes the agent."""
        return self.path.with_suffix(".md")


def place(folder: Path, label: str, env: str) -> Path:
    """Return the file of an agent in a zoo. Its card and its record are beside it."""
    return folder / label / f"{env.replace('/', '--')}{SUFFIX}"


def record_of(path: Path) -> Path:
    """Return the file of the record of an agent."""
    return path.with_suffix(".json")


def entries(folder: str | os.PathLike[str] | None = None) -> list[Entry]:
    """Return the agents of a zoo, ordered by environment and algorithm.

    Args:
      folder: the folder of the zoo; None for the zoo in the package.

    Raises:
      FileNotFoundError: if there is no such folder.
      ConfigurationError: if a record is damaged.
    """
    home = FOLDER if folder is None else Path(folder)
    if folder is not None and not home.is_dir():
        raise FileNotFoundError(f"There is no zoo in {home}. Pass a folder that publish() wrote.")
    found = [_read(path) for path in home.glob(f"*/*{SUFFIX}")]
    return sorted(found, key=lambda entry: (entry.env, entry.label))


def _read(path: Path) -> Entry:
    """Return the agent in a file, with its record."""
    about = record_of(path)
    try:
        record = json.loads(about.read_text())
        lacks = [name for name in ("format", *_NEEDED) if name not in record]
        lacks += [f"score/{name}" for name in _SCORE if name not in record.get("score", {})]
        if not lacks:
            _check(record)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"The record {about} of the agent cannot be read ({error}). Publish the agent again."
        ) from error
    if lacks or record["format"] != FORMAT:
        reason = f"lacks {', '.join(lacks)}" if lacks else f"has format {record['format']}"
        raise ConfigurationError(
            f"The record {about} {reason}, so this version cannot read it. Publish the agent again."
        )
    return Entry(path.parent.name, record["env"], path, record)


def _check(record: Mapping[str, Any]) -> None:
    """Check the parts of a record that lists and cards show.

    Raises:
      TypeError: if one is of another type.
    """
    numbers = {name: record["score"][name] for name in _SCORE} | {"steps": record["steps"]}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}: {value!r} is no number")
    for name in ("env", "algorithm"):
        if not isinstance(record[name], str):
            raise TypeError(f"{name}: {record[name]!r} is no text")


def is_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the name of an agent in the zoo, as "zoo:dqn/CartPole-v1"."""
    return Path(path).as_posix().startswith(PREFIX)


def locate(name: str | os.PathLike[str]) -> Path:
    """Return the file of an agent in the zoo, given by its name.

    Args:
      name: the name, such as "zoo:dqn/CartPole-v1".

    Raises:
      ConfigurationError: if the zoo has no such agent.
    """
    label, slash, env = Path(name).as_posix().removeprefix(PREFIX).partition("/")
    if not slash or not label or not env:
        raise ConfigurationError(
            f"{name} names no agent of the zoo. Write zoo:ALGORITHM/ENVIRONMENT, such as "
            f"zoo:dqn/CartPole-v1. The command agentzoo zoo lists all agents."
        )
    return find(label, env).path


def find(algorithm: str, env_id: str, folder: str | os.PathLike[str] | None = None) -> Entry:
    """Return an agent of a zoo.

    Args:
      algorithm: the name of the algorithm in any case, or another label of a benchmark.
      env_id: the id of the environment.
      folder: the folder of the zoo; None for the zoo in the package.

    Raises:
      FileNotFoundError: if there is no such folder.
      ConfigurationError: if there is no such agent. The message names similar ones.
    """
    known = entries(folder)
    label = str(algorithm).lower()
    for entry in known:
        if (entry.label.lower(), entry.env) == (label, env_id):
            return entry
    raise ConfigurationError(
        f"The zoo has no agent of {algorithm} in {env_id}. {_advice(known, label, str(env_id))}"
    )


def _advice(known: list[Entry], label: str, env: str) -> str:
    """Return what to choose instead of an agent that does not exist."""
    envs = list(dict.fromkeys(entry.env for entry in known))
    same_env = [entry.label for entry in known if entry.env == env]
    same_label = [entry.env for entry in known if entry.label.lower() == label]
    close = difflib.get_close_matches(env, same_label or envs, n=1, cutoff=0.7)
    if same_env:
        return f"It has agents of {', '.join(same_env)} there."
    if close:
        return f"Did you mean {close[0]}?"
    if same_label:
        return f"It has agents of {label} in {', '.join(same_label)}."
    labels = ", ".join(sorted({entry.label for entry in known})) or "no algorithm"
    return f"It has agents of {labels}. The command agentzoo zoo lists all of them."


def pretrained(
    algorithm: str,
    env_id: str,
    env: EnvLike | None = None,
    *,
    zoo: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Algorithm:
    """Load a trained agent of the zoo.

    The file holds the policy alone. `learn` therefore begins with a new optimiser and an empty
    replay buffer.

    Args:
      algorithm: the name of the algorithm, such as "dqn".
      env_id: the id of the environment in which the agent was trained.
      env: the environment in which to train further, such as the same id; None if the agent should
        only act.
      zoo: the folder of another zoo, which `agentzoo.zoo.publish` wrote; None for the zoo in the
        package.
      **kwargs: other arguments of `agentzoo.load`.

    Returns:
      The agent.

    Raises:
      ConfigurationError: if the zoo has no such agent.
    """
    return loading.load(find(algorithm, env_id, zoo).path, env, **kwargs)
