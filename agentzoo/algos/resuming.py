"""Resuming a run where it was interrupted."""

import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentzoo import checkpoint, progress
from agentzoo import config as configs
from agentzoo.algos import loading
from agentzoo.algos.base import Algorithm
from agentzoo.callbacks import CallbackLike
from agentzoo.checkpoint import CheckpointStore, schema
from agentzoo.envs import EnvLike, OnError, env_maker, needs_import
from agentzoo.logging import TrackersLike
from agentzoo.training import Lock, RunPlan, named, read_manifest
from agentzoo.training.folder import CHECKPOINTS, MODEL, holds_run
from agentzoo.types import ConfigurationError

_RECORDED = (
    *("algorithm", "module", "env_id", "env_kwargs", "seed", "hyperparameters", "network"),
    *("spec", "plan"),
)


class SavedRun(NamedTuple):
    """A run as its folder holds it.

    Attributes:
      folder: the run folder.
      path: the newest whole state of the run; None if it was interrupted before the first.
      record: what the run is made of, as plain JSON.
    """

    folder: Path
    path: Path | None
    record: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end, and everything is written.

        The last checkpoint is written before the end of the log and the model.
        """
        is_model = self.path is not None and self.path.name == MODEL
        return is_model and self.record["plan"]["finished"]


def resume(
    run_dir: str | os.PathLike[str],
    env: EnvLike | None = None,
    callback: CallbackLike = None,
    *,
    network: Callable[..., Any] | None = None,
    progress_bar: bool | None = None,
    env_timeout: float | None = None,
    on_env_error: OnError | None = None,
    checkpoint_freq: float | None = None,
    keep: int | None = None,
    trackers: TrackersLike | None = None,
    **functions: Any,
) -> Algorithm:
    """Resume an interrupted run, and train to its end as if it had never been interrupted.

    The agent is made as it was, from the newest whole state in the folder. Hyperparameters, the
    number of environments, the runner and the end of the run are those of the run. A run that was
    interrupted before its first checkpoint starts anew. A run that has finished is loaded.

    Args:
      run_dir: the folder of the run.
      env: the environment to train in. None makes it from the id in the folder. An environment
        without an id, one that you made yourself, by a function or with a wrapper, and one whose id
        names a module that has not been imported must be passed.
      callback: the same callbacks that the run had, as for `learn`.
      network: the network that the agent was made with, if it was a user's.
      progress_bar: as for `learn`; None for what the run had.
      env_timeout: as for a new agent; None for what the run had.
      on_env_error: as for a new agent; None for what the run had.
      checkpoint_freq: as for `learn`; None for what the run had.
      keep: as for `learn`; None for what the run had.
      trackers: as for a new agent; None for those of the run that were given by name. Others must
        be passed again, and each goes on with the run that it had.
      **functions: the hyperparameters that were functions.

    Returns:
      The agent.

    Raises:
      FileNotFoundError: if the folder holds no run.
      ConfigurationError: if another process trains in the folder, the run cannot be continued, or
        an argument is missing, unknown, or differs from the run's.
    """
    given = {
        "env_timeout": env_timeout,
        "on_env_error": on_env_error,
        "checkpoint_freq": checkpoint_freq,
        "keep": keep,
        "progress_bar": progress_bar,
        "trackers": trackers,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return open_run(run_dir, env, network, changes, **functions).train(callback)


class OpenRun(NamedTuple):
    """A run that can be resumed. Nobody else can train in its folder until it has ended.

    Attributes:
      agent: the agent as the folder holds it.
      saved: what else the folder holds.
      plan: how long it trains, and what it writes.
    """

    agent: Algorithm
    saved: SavedRun
    plan: RunPlan

    def train(self, callback: CallbackLike = None) -> Algorithm:
        """Train to the end of the run, and return the agent; see `resume`."""
        folder, plan = self.saved.folder, self.plan
        if self.saved.is_finished:
            progress.write(f"The run in {folder} has already finished, so its agent is loaded.")
            self.agent.attach(folder)
            return self.agent
        if self.saved.path is None:
            progress.write(
                f"The run in {folder} has no checkpoint yet, so it starts again from step 0."
            )
        else:
            step, total = self.agent.num_timesteps, plan.total
            progress.write(f"Resuming the run in {folder} at step {step:,} of {total:,}.")
        try:
            self.agent.resume_run(folder, plan, callback, anew=self.saved.path is None)
        finally:
            self.agent.trainer.log.release()
        return self.agent


def open_run(
    run_dir: str | os.PathLike[str],
    env: EnvLike | None = None,
    network: Callable[..., Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    **functions: Any,
) -> OpenRun:
    """Return the run in a folder, ready to be resumed. Errors are those of `resume`.

    Args:
      run_dir: as for `resume`.
      env: as for `resume`.
      network: as for `resume`.
      changes: other arguments of `resume`, by name, that replace those of the run.
      **functions: as for `resume`.
    """
    folder = Path(run_dir)
    if not (folder.is_dir() and holds_run(folder)):
        raise FileNotFoundError(
            f"There is no run in the folder {run_dir}. Pass the folder of a run, or begin one with "
            f"run_dir={str(run_dir)!r}."
        )
    lock = Lock(folder)
    try:
        run = read_run(folder)
        plan = _with_changes(run.record["plan"], changes or {})
        agent = _make_agent(run, plan["placement"], env, network, functions)
        opened = OpenRun(agent, run, RunPlan.from_json(plan))
    except BaseException:
        lock.release()
        raise
    if run.is_finished:
        lock.release()
    else:
        opened.agent.trainer.log.lock = lock
    return opened


def read_run(folder: Path) -> SavedRun:
    """Return the run in a folder, with its newest whole state.

    Raises:
      ConfigurationError: if the folder holds no run that can be continued.
    """
    states: list[tuple[tuple[int, bool], Path, dict[str, Any]]] = []
    damaged, without_plan = False, None
    latest = CheckpointStore(folder / CHECKPOINTS).latest()
    for path in (folder / MODEL, latest):
        if path is None or not path.is_file():
            continue
        try:
            manifest = read_manifest(path)
            if path != latest:  # `latest` has verified its own file
                checkpoint.verify_file(path)
        except ConfigurationError as error:
            progress.write(f"{error} It is left out.")
            damaged = True
            continue
        plan = manifest.get("plan")
        without_plan = path if plan is None else without_plan
        damaged |= bool(plan and manifest["excluded"])  # a part of the state is missing
        if plan and not manifest["excluded"]:
            # At the same step, the model comes last if the run has ended, and the checkpoint if it
            # was interrupted.
            is_later = plan["finished"] == (path.name == MODEL)
            rank = (manifest["step"], is_later)
            states.append((rank, path, manifest))
    if states:
        _, path, manifest = max(states, key=lambda state: state[0])
        return SavedRun(folder, path, manifest)
    if damaged or any((folder / CHECKPOINTS).glob("step_*.safetensors")):
        # To begin anew would overwrite what may still be repaired.
        raise ConfigurationError(
            f"No saved state of the run in {folder} is whole, so the run cannot be continued. "
            f"Restore a file from a backup, or begin the run in another folder."
        )
    if without_plan is not None:
        raise ConfigurationError(
            f"{without_plan} does not say how its run continues. An earlier version of agentzoo "
            f"wrote it, or it was saved outside of a run. Load the agent with "
            f"agentzoo.load({str(without_plan)!r}, env), and call learn."
        )
    return SavedRun(folder, None, read_config(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the run in a folder was begun with, as plain JSON.

    Raises:
      ConfigurationError: if the folder does not say so.
    """
    path = folder / "config.json"
    try:
        record = schema.parse(path, path.read_text())
        schema.check(path, record, schema.MANIFEST, "the configuration", _RECORDED)
    except (OSError, UnicodeDecodeError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{folder} holds no run that can be continued ({error}). Load its agent with "
            f"agentzoo.load({str(folder)!r}, env), and call learn."
        ) from error
    return record


def _with_changes(plan: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of a run with other values of what makes no difference to learning."""
    new: dict[str, Any] = {**plan, "placement": {**plan["placement"]}}
    for name, value in changes.items():
        (new if name in plan else new["placement"])[name] = value
    return new


def _make_agent(
    run: SavedRun,
    placement: dict[str, Any],
    env: EnvLike | None,
    network: Any,
    functions: dict[str, Any],
) -> Algorithm:
    record = run.record
    cls = loading.find_recorded(record, run.folder)
    _check_functions(cls, run, functions)
    if record["network"] is not None and network is None:
        raise ConfigurationError(
            f"The agent was made with your network {record['network']!r}, which the folder does "
            f"not hold. Pass it: agentzoo.resume({str(run.folder)!r}, network=...)."
        )
    if env is None and not (run.is_finished and _cannot_be_made(record)):
        env = _environment(run)
    options: dict[str, Any] = {**placement, "network": network}
    if run.path is not None:
        return cls.load(run.path, env, **options, **functions)
    assert env is not None
    with named(run.folder / "config.json"):
        config = configs.from_json(cls.Config, record["hyperparameters"], functions)
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        agent = cls(env, n_envs=record["spec"][2], seed=record["seed"], **options, **values)
        agent.trainer.recipe = agent.trainer.recipe.with_tuned(record.get("tuned"))
        return agent


def _check_functions(cls: type[Algorithm], run: SavedRun, given: Mapping[str, Any]) -> None:
    """Check that the given hyperparameters are the functions of the run, or have its values.

    Raises:
      ConfigurationError: if one is unknown, missing, or has another value.
    """
    saved = run.record["hyperparameters"]
    known = {name: value for name, value in saved.items() if not configs.is_function(value)}
    for name in saved.keys() - known.keys() - given.keys():
        raise ConfigurationError(
            f"The hyperparameter {name!r} was your function {saved[name].get('function')!r}, which "
            f"the folder does not hold. Pass it: agentzoo.resume({str(run.folder)!r}, {name}=...)."
        )
    for name, value in given.items():
        if name not in saved:
            names = ", ".join([*inspect.signature(resume).parameters][1:-1])
            raise ConfigurationError(
                f"resume has no argument {name!r}. Its arguments are {names}, and those "
                f"hyperparameters of the run that are functions."
            )
        if name not in known:
            continue
        config = configs.from_json(cls.Config, known, {name: value})
        now = json.loads(json.dumps(configs.to_json(config)[name]))  # tuples are lists there
        if now != saved[name]:
            before = getattr(configs.from_json(cls.Config, known, {}), name)
            raise ConfigurationError(
                f"{name}={value!r} differs from the run's {name}={before!r}. Leave it out; only "
                f"hyperparameters that are functions have to be passed."
            )


def _cannot_be_made(record: dict[str, Any]) -> str | None:
    """Return why the environment cannot be made from what the folder holds, or None."""
    env_id = record["env_id"]
    if env_id is None:
        return "The run was in an environment without an id"
    if record["env_kwargs"] is None:
        return f"The run was in {env_id!r} with arguments that cannot be saved"
    if record.get("custom_env"):
        return "The run trained in an environment that you made yourself"
    if needs_import(env_id):
        return f"The environment {env_id!r} needs a module that has not been imported"
    return None


def _environment(run: SavedRun) -> EnvLike:
    reason = _cannot_be_made(run.record)
    if reason is not None:
        raise ConfigurationError(
            f"{reason}. Pass the environment: agentzoo.resume({str(run.folder)!r}, env)."
        )
    return env_maker(run.record["env_id"], run.record["env_kwargs"])
