"""A session: everything that decides how a run continues, and how it is saved and loaded."""

import contextlib
import math
import os
from collections import deque
from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from agentzoo import checkpoint
from agentzoo.envs import number
from agentzoo.logging import versions
from agentzoo.process import host_memory
from agentzoo.runners import Episode, RunState
from agentzoo.training.recipe import spec_from_json
from agentzoo.types import ConfigurationError, EnvSpec

REVISION = 4
"""What the arrays of a saved agent mean.

Files of revision 1 hold the Box actions of PPO and IMPALA in the environment's units. Files of
revision 2 have other names for the parts of a session. Files of revision 3 hold no episodes of
Python environments.
"""

_OLD_NAMES = {"learner_state": "agent", "act_calls": "moves", "rollout_state": "worlds"}
_REQUIRED = (
    *("algorithm", "env_id", "seed", "hyperparameters", "network", "spec"),
    *("excluded", "predictions"),
)
_CAUSED_BY_VALUES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError),
    *(TypeError, ValueError, jax.errors.JaxRuntimeError),
)
_SMALL = 2**20  # Observations with fewer numbers than this are possible in any file.
_FEW = 4_096  # environments that are possible in any file
_JSON = ("plan", "log", "callbacks", "unfinished")  # fields that are plain JSON
_ANY_LENGTH = ("['rollout_state'].episodes.actions",)
_WINDOW = 100  # episodes over which statistics are averaged


class EpisodeWindow:
    """Statistics of the last 100 training episodes.

    Attributes:
      rewards: the sum of the rewards of each episode.
      lengths: the number of steps of each episode.
      infos: numbers from the `info` of the last steps, by name, of the last 100 episodes that had
        them.
    """

    def __init__(self) -> None:
        self.rewards: deque[float] = deque(maxlen=_WINDOW)
        self.lengths: deque[int] = deque(maxlen=_WINDOW)
        self.infos: dict[str, deque[float]] = {}

    def extended(
        self, episodes: Sequence[Episode], info_keywords: Collection[str]
    ) -> "EpisodeWindow":
        """Return the statistics with episodes that ended. These statistics stay as they are.

        Args:
          episodes: the episodes.
          info_keywords: which entries of their `info` to keep, besides "is_success".

        Raises:
          ConfigurationError: if an entry of `info_keywords` is not a number.
        """
        if not episodes:
            return self
        window = self._copy()
        for episode in episodes:
            window.rewards.append(episode.reward)
            window.lengths.append(episode.length)
            for name in {"is_success", *info_keywords}.intersection(episode.info):
                value = number(episode.info[name])
                if value is not None:
                    window.infos.setdefault(name, deque(maxlen=_WINDOW)).append(value)
                elif name in info_keywords:
                    raise _no_number(name, episode.info[name])
        return window

    def _copy(self) -> "EpisodeWindow":
        window = EpisodeWindow()
        window.rewards, window.lengths = self.rewards.copy(), self.lengths.copy()
        window.infos = {name: values.copy() for name, values in self.infos.items()}
        return window

    @property
    def mean_reward(self) -> float:
        """Mean return; NaN before the first episode."""
        return float(np.mean(self.rewards)) if self.rewards else math.nan

    @property
    def mean_length(self) -> float:
        """Mean number of steps; NaN before the first episode."""
        return float(np.mean(self.lengths)) if self.lengths else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as plain JSON."""
        infos = {name: list(values) for name, values in self.infos.items()}
        return {"rewards": list(self.rewards), "lengths": list(self.lengths), "infos": infos}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EpisodeWindow":
        """Return the statistics that `to_json` has written."""
        window = cls()
        window.rewards.extend(data["rewards"])
        window.lengths.extend(data["lengths"])
        for name, values in data["infos"].items():
            window.infos[name] = deque(values, maxlen=_WINDOW)
        return window


class Session(NamedTuple):
    """Everything that decides how a run continues: arrays, and what plain JSON can hold.

    Attributes:
      run: the learner's state, the random key of acting, and the counters.
      episodes: statistics of the last training episodes.
      predictions: calls of `predict` that drew random numbers.
      env_name: identifies the environments to which `rollout_state` belongs; None if their
        episodes cannot be resumed.
      rollout_state: the state of the environments and of their episodes, or None. Python
        environments are represented by the actions of their running episodes.
      plan: how the run was started, and whether it has ended; see `Trainer.begin`. It holds the
        step at which the run ends, on which schedules depend.
      log: the end of the run's log; see `RunLog.state`.
      callbacks: the state of the callbacks; see `BaseCallback.state`.
      unfinished: the last training cycle, if callbacks and log have not seen it yet.
    """

    run: RunState
    episodes: EpisodeWindow
    predictions: int = 0
    env_name: str | None = None
    rollout_state: Any = None
    plan: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    callbacks: dict[str, Any] | None = None
    unfinished: dict[str, Any] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the learner's state is finite.

        The replay buffer is left out, because environments are checked at every step.
        """
        parts = self.run.learner_state._asdict().items()
        return checkpoint.all_finite({name: part for name, part in parts if name != "replay"})

    def without_run(self) -> "Session":
        """Return the session without its environments, its episodes, and how its run goes on."""
        return Session(self.run, EpisodeWindow(), self.predictions)


def save_session(
    path: str | os.PathLike[str],
    session: Session,
    recipe: Mapping[str, Any],
    exclude: Collection[str] = (),
) -> Path:
    """Save a session as one file, all or nothing.

    Args:
      path: the file.
      session: the session.
      recipe: what the agent is made of, as plain JSON.
      exclude: fields of the learner's state that are left out.

    Returns:
      The path of the file.
    """
    tree, manifest = to_tree(session, recipe, exclude)
    return checkpoint.save(path, tree, manifest)


def to_tree(
    session: Session, recipe: Mapping[str, Any], exclude: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays of a session, and all else as plain JSON. See `save_session`."""
    state = session.run.learner_state._asdict()
    kept = {name: part for name, part in state.items() if name not in exclude}
    tree = {**session.run._asdict(), "learner_state": kept}
    if session.rollout_state is not None:
        tree["rollout_state"] = session.rollout_state
    manifest = {
        **recipe,
        "revision": REVISION,
        "excluded": sorted(exclude),
        "predictions": session.predictions,
        "episodes": session.episodes.to_json(),
        "env_name": session.env_name if session.rollout_state is not None else None,
        "versions": versions(),
        "step": session.run.step,
        **{name: getattr(session, name) for name in _JSON},
    }
    return tree, manifest


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a saved session says in plain JSON, with the names of today.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if it holds no session.
    """
    manifest = checkpoint.read_manifest(path, _REQUIRED)
    revision = manifest.setdefault("revision", 1)
    if revision > REVISION:
        raise checkpoint.LaterFormatError(
            f"{path} has revision {revision}, which this version cannot read. Please update "
            f"agentzoo."
        )
    if revision < 3:
        manifest["env_name"] = manifest.get("worlds")
        manifest["episodes"] = EpisodeWindow().to_json()
        manifest.setdefault("env_kwargs", {})
    for name in ("env_name", "env_kwargs", "episodes"):
        if name not in manifest:
            raise ConfigurationError(
                f"{path} is damaged: its manifest lacks {name!r}. Use an earlier checkpoint."
            )
    return manifest


def read_spec(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], n_envs: int | None
) -> EnvSpec:
    """Return what a saved agent knows of its environments.

    Args:
      path: the file.
      manifest: what `read_manifest` returned for the file.
      n_envs: the number of environments that the user asks for; None for the number in the file.

    Raises:
      ConfigurationError: if the file declares more than it can be about.
    """
    about = checkpoint.describe(path)
    spec = spec_from_json(manifest["spec"], most=max(_SMALL, about.size))
    if n_envs is None and spec.num_envs > _FEW and spec.num_envs not in about.lengths:
        raise ConfigurationError(
            f"{path} declares {spec.num_envs} environments, but holds no array of this length. It "
            f"is damaged, or was saved without its replay buffer: then pass n_envs."
        )
    return spec


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Generator[None, None, None]:
    """Say in errors which file makes an agent impossible.

    Raises:
      ConfigurationError: in place of any error that a file with wrong values can cause.
    """
    try:
        yield
    except ConfigurationError as error:
        message = str(error)
        if str(path) in message:
            raise
        raise ConfigurationError(f"The agent in {path} cannot be made. {message}") from error
    except _CAUSED_BY_VALUES as error:
        raise ConfigurationError(
            f"The agent in {path} cannot be made, because of {type(error).__name__}: {error}. If "
            f"you passed no arguments that could cause this, the file is damaged."
        ) from error


def check_learner_state(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], state: Any
) -> None:
    """Check that a file holds a learner's state, before there is memory for that state.

    Args:
      path: the file.
      manifest: what `read_manifest` returned for the file.
      state: the learner's state, with `jax.ShapeDtypeStruct` for arrays.

    Raises:
      ConfigurationError: if the file holds something else, or the state does not fit into memory.
    """
    name = _names(manifest).get("learner_state", "learner_state")
    checkpoint.check_shapes(path, {name: state._asdict()}, _missing(manifest), surplus="")
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    if size > host_memory():
        raise ConfigurationError(
            f"The agent in {path} needs {size / 1e9:.1f} GB, but this machine has "
            f"{host_memory() / 1e9:.1f} GB of memory. Load it with a smaller buffer_size."
        )


def made_later(manifest: Mapping[str, Any], state: Any) -> tuple[str, ...]:
    """Return the parts of the learner's state that a file lacks, and that acting does without.

    These parts may be large, so they are made when the agent learns.

    Args:
      manifest: what `read_manifest` returned for the file.
      state: the learner's state, or its shapes.
    """
    lacks = "replay" in manifest["excluded"] and "replay" in state._fields
    return ("replay",) if lacks and manifest["revision"] >= 2 else ()


def _names(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what the file calls the parts of a session that had another name in its time."""
    return {} if manifest["revision"] >= 3 else _OLD_NAMES


def _missing(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the beginnings of the names of leaves that may be absent from the file.

    Those are what was left out, and the counts of an agent that was loaded with `on_nan="skip"`.
    """
    excluded = (_part(manifest, part) for part in manifest["excluded"])
    return (*excluded, _part(manifest, "skipped"))


def _part(manifest: Mapping[str, Any], part: str) -> str:
    """Return how the names of a part of the learner's state begin in the file."""
    name = _names(manifest).get("learner_state", "learner_state")
    return f"['{name}']['{part}']"


def load_session(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], template: Session
) -> Session:
    """Load a session.

    Args:
      path: the file.
      manifest: what `read_manifest` returned for the file.
      template: a session of the same structure, shapes and dtypes. The file's environments are
        loaded if they have the same `env_name`, and the `rollout_state` of the template otherwise.

    Raises:
      ConfigurationError: if the file is damaged or does not fit the template.
    """
    names = _names(manifest)
    state = template.run.learner_state
    same_envs = template.env_name is not None and template.env_name == manifest["env_name"]
    parts = {**template.run._asdict(), "learner_state": state._asdict()}
    if same_envs:
        parts["rollout_state"] = template.rollout_state
    tree = {names.get(name, name): part for name, part in parts.items()}
    rollout_name = names.get("rollout_state", "rollout_state")
    surplus = (f"['{rollout_name}']", _part(manifest, "skipped"))
    loaded = checkpoint.load(
        path, tree, _missing(manifest), surplus=surplus, any_length=_ANY_LENGTH
    )
    parts = {name: loaded[names.get(name, name)] for name in parts}
    parts["learner_state"] = type(state)(**parts["learner_state"])
    rollout_state = parts.pop("rollout_state", template.rollout_state)
    return Session(
        run=RunState(**parts),
        episodes=EpisodeWindow.from_json(manifest["episodes"]),
        predictions=manifest["predictions"],
        env_name=template.env_name,
        rollout_state=rollout_state,
        **{name: manifest.get(name) for name in _JSON},
    )


def _no_number(name: str, value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"info[{name!r}] at the end of an episode is of type {type(value).__name__} and shape "
        f"{np.shape(value)}; choose other info_keywords, which must be single numbers."
    )
