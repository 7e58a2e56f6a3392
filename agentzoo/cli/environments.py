"""The environments that a command names, and checks that several commands need."""

import contextlib
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentzoo.cli.options import Eval, Video
from agentzoo.cli.pairs import parse_keywords
from agentzoo.envs import needs_import
from agentzoo.types import ConfigurationError


def environment_of(agent: Any, options: Eval | Video) -> tuple[str, dict[str, Any]]:
    """Return id and arguments of the environment: those of training, or those in the options.

    Raises:
      ConfigurationError: if they are not in the file and not in the options, or the file names a
        module that has not been imported.
    """
    given = parse_keywords(options.env_kwargs)
    if options.env is not None:
        return options.env, given
    if agent.env_id is None:
        raise ConfigurationError(
            "The agent was not trained in an environment with an id. Name one with --env."
        )
    if agent.env_kwargs is None:
        raise ConfigurationError(
            f"The agent was trained in {agent.env_id!r} with arguments that its file cannot hold. "
            f"Name an environment with --env, and its arguments with --env-kwargs."
        )
    saved = {**agent.env_kwargs, **given}
    if needs_import(agent.env_id):
        pairs = [shlex.quote(f"{key}:{value}") for key, value in saved.items()]
        kwargs = f" --env-kwargs {' '.join(pairs)}" if pairs else ""
        raise ConfigurationError(
            f"The agent was trained in {agent.env_id!r}, and a file cannot make agentzoo import a "
            f"module. If you trust the module, add --env {shlex.quote(agent.env_id)}{kwargs}."
        )
    return agent.env_id, saved


def check_at_least(lowest: int, name: str, value: int) -> None:
    """Raise `ConfigurationError` if the value of an option is too small."""
    if value < lowest:
        raise ConfigurationError(f"{name} {value} is too small. Choose at least {lowest}.")


@contextlib.contextmanager
def clear_folder(path: Path) -> Iterator[None]:
    """Raise `ConfigurationError` in place of the error of a folder that cannot be made."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"The folder {path} cannot be made ({error.strerror}). Choose another folder."
        ) from error


@contextlib.contextmanager
def warnings_unless_refused() -> Iterator[None]:
    """Show warnings only if no error follows.

    Gymnasium calls an id out of date just before it says that the environment does not exist.
    """
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        warnings.showwarning(one.message, one.category, one.filename, one.lineno)
