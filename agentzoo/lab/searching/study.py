"""A search for hyperparameters with Optuna, which can be interrupted and run in parallel."""

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from agentzoo import config as configs
from agentzoo.algos import loading
from agentzoo.envs import EnvLike
from agentzoo.lab.searching import space as spaces
from agentzoo.lab.searching import trial as trials_of
from agentzoo.lab.searching.result import Tuning
from agentzoo.lab.searching.space import Space
from agentzoo.lab.searching.trial import Task
from agentzoo.types import ConfigurationError, TrainingError

NAME = "agentzoo"
"""The name of the study in its database."""

_FAILED = "error"  # the attribute of a trial that failed by itself, and was not interrupted
_ABOUT = "about"  # the attribute of a study that says what it searches
_HEARTBEAT, _GRACE = 10, 60  # seconds; a process that is silent for the second one is gone
_ATTEMPTS, _PAUSE = 10, 0.5  # to open a new database, and seconds between two of them
_POLL = 0.5  # seconds between two looks at the trials of other processes

StrPath = str | os.PathLike[str]


def tune(
    algorithm: str | type[Any],
    env: EnvLike,
    trials: int = 50,
    steps: float = 1e5,
    *,
    storage: StrPath | None = None,
    space: StrPath | None = None,
    structure: bool = False,
    start: Mapping[str, Any] | None = None,
    n_envs: int = 1,
    evaluations: int = 10,
    episodes: int = 10,
    seed: int = 0,
    progress: Callable[[str], None] | None = print,
) -> Tuning:
    """Search for the hyperparameters with the highest mean return.

    Each trial trains an agent and evaluates it at equal intervals. A trial is ended early if its
    return is below the median of the earlier trials at the same point, but not in the first quarter
    of its steps. The first trial uses the hyperparameters of `start`, or the defaults, as far as
    they are in the ranges of the search.

    All trials run in this process, so agents whose structure is equal share their compiled
    programs. The search can be interrupted: a call with the same `storage` goes on. Several
    processes that search with the same `storage` share the trials.

    Args:
      algorithm: the name of the algorithm, "module:Class", or a class.
      env: the environment, as for an agent.
      trials: the number of trials in total, those of earlier calls and other processes included.
        Processes that run at the same time can exceed it by a trial each.
      steps: environment steps of each trial.
      storage: the file of an SQLite database, or the address of another database that Optuna knows,
        such as "postgresql://...". None keeps the trials in memory.
      space: a YAML file with the hyperparameters to vary. None varies all hyperparameters for which
        the algorithm declares a range, and that need no compilation.
      structure: whether to vary hyperparameters that do need one, too, such as `net_arch`.
      start: hyperparameters that replace the defaults, unless they vary.
      n_envs: number of environments that are stepped at once.
      evaluations: number of evaluations of each trial.
      episodes: episodes per evaluation.
      seed: seed of the search. Trial `n` trains with the seed `seed + n`.
      progress: called with a line of text after each trial; None for nothing.

    Returns:
      The trials, and the best hyperparameters.

    Raises:
      FileNotFoundError: if there is no file `space`.
      ConfigurationError: if an argument is out of range, Optuna is not installed, the file `space`
        is wrong, or the storage holds another search.
      TrainingError: if all trials failed.
    """
    cls = loading.find(algorithm) if isinstance(algorithm, str) else algorithm
    counts = {"steps": steps, "n_envs": n_envs, "evaluations": evaluations, "episodes": episodes}
    task = _make_task(cls, env, seed, **counts)
    trials = configs.integer("trials", trials, 1)
    found = spaces.declared(cls, structure) if space is None else spaces.read(space, cls)
    base = {name: value for name, value in (start or {}).items() if name not in found.fixed}
    others = {name: value for name, value in base.items() if name not in found.dimensions}
    found = found._replace(fixed={**others, **found.fixed})
    # Errors of the environment and of the fixed values are reported before anything is stored.
    agent = task.make({**base, **found.fixed}, 0)
    env_id = agent.env_id or getattr(env, "__name__", type(env).__name__)
    study = _open(storage, _describe(task, found, env_id), warmup=math.ceil(task.evaluations / 4))
    if not study.trials:
        study.enqueue_trial(found.start(base), skip_if_exists=True)
    _search(study, task, found, trials, progress)
    tuning = Tuning(study, found, cls.__name__, env_id, task.steps, task.n_envs)
    if tuning.best_trial is None:
        raise TrainingError(_all_failed(study))
    return tuning


def _make_task(cls: type[Any], env: EnvLike, seed: Any, **counts: Any) -> Task:
    """Check the arguments that all trials have in common."""
    if isinstance(env, gym.Env | gym.vector.VectorEnv):
        raise ConfigurationError(
            f"{env} cannot be used by several agents. Pass its id, or a function that makes it."
        )
    checked = {name: configs.integer(name, value, 1) for name, value in counts.items()}
    if checked["steps"] >= 2**31:
        raise ConfigurationError(
            f"steps={counts['steps']!r} is out of range. Choose at most 2^31 - 1."
        )
    return Task(cls, env, seed=configs.integer("seed", seed), **checked)


def _describe(task: Task, space: Space, env_id: str) -> dict[str, Any]:
    """Return what makes two searches the same, as plain JSON."""
    counts = {name: getattr(task, name) for name in ("steps", "n_envs", "evaluations", "episodes")}
    about = {
        "algorithm": task.cls.__name__,
        "env": env_id,
        **counts,
        "seed": task.seed,
        **space.to_json(),
    }
    return json.loads(json.dumps(about))


def optuna() -> Any:
    """Return the package Optuna.

    Raises:
      ConfigurationError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError(
            "The search needs a package that is not installed. Run: pip install 'agentzoo[tune]'"
        ) from error
    return optuna


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Optuna's own messages, and warnings of features that may change."""
    package = optuna()
    before = package.logging.get_verbosity()
    package.logging.set_verbosity(package.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
            yield
    finally:
        package.logging.set_verbosity(before)


def _open(storage: StrPath | None, about: dict[str, Any], warmup: int) -> Any:
    """Return the study in a storage, which is created if necessary.

    Args:
      storage: as for `tune`.
      about: what makes two searches the same.
      warmup: number of the first evaluation at which a trial may end.

    Raises:
      ConfigurationError: if the storage cannot be used, or holds another search.
    """
    package = optuna()
    pruner = package.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
    with _quiet():
        try:
            study = package.create_study(
                storage=None if storage is None else _database(package, storage),
                study_name=NAME,
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
            before = study.user_attrs.get(_ABOUT)
            if before is None:
                study.set_user_attr(_ABOUT, about)
        except _database_errors() as error:
            reason = str(error).split("\n")[0]
            raise ConfigurationError(
                f"The storage {storage} cannot be used ({reason}). Name another file, or the "
                f"address of a database."
            ) from error
    if before is not None and before != about:
        raise ConfigurationError(
            f"The storage {storage} holds another search: {_differences(before, about)}. Give the "
            f"same options to continue it, or name another storage."
        )
    return study


def _database_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    # Optuna raises a RuntimeError for a database of another version of Optuna.
    return SQLAlchemyError, RuntimeError, ImportError, OSError, optuna().exceptions.OptunaError


def _database(package: Any, storage: StrPath) -> Any:
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    text = os.fspath(storage)
    if "://" in text:
        address, options = text, {}
    else:
        # Other processes may be writing. SQLite lets them wait.
        address, options = f"sqlite:///{Path(text).absolute()}", {"connect_args": {"timeout": 60}}
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            return package.storages.RDBStorage(
                address, engine_kwargs=options, heartbeat_interval=_HEARTBEAT, grace_period=_GRACE
            )
        except SQLAlchemyError as error:
            # Another process is creating the tables of a new database at the same moment.
            is_conflict = "already exists" in str(error) or isinstance(error, IntegrityError)
            if remaining == 0 or not is_conflict:
                raise
            time.sleep(_PAUSE)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how two searches differ."""
    names = [name for name in now if before.get(name) != now[name]]
    parts: list[str] = []
    for name in names:
        if name in ("dimensions", "fixed"):
            keys = {*(before.get(name) or {}), *now[name]}
            other = [key for key in sorted(keys) if before[name].get(key) != now[name].get(key)]
            parts.append(f"another search space ({', '.join(other)})")
        else:
            parts.append(f"{name} {before.get(name)}, not {now[name]}")
    return "; ".join(parts) or "of another version of agentzoo"


def _search(
    study: Any,
    task: Task,
    space: Space,
    trials: int,
    progress: Callable[[str], None] | None,
) -> None:
    """Run trials until there are enough, those of other processes included."""
    package = optuna()

    def objective(trial: Any) -> float:
        # The draws of a trial depend on its number alone, so parallel processes draw differently.
        seed = (task.seed * 1_000_003 + trial.number) % 2**32
        study.sampler = package.samplers.TPESampler(
            seed=seed, multivariate=False, constant_liar=True
        )
        return _run(package, trial, task, space)

    def show(study: Any, trial: Any) -> None:
        if progress is not None:
            progress(_line(study, trial, trials))

    with _quiet():
        while (state := _count(package, study)).counted < trials:
            if state.counted + state.running < trials:
                study.optimize(
                    objective,
                    n_trials=1,
                    catch=(ConfigurationError, TrainingError),
                    callbacks=[show],
                )
            else:  # other processes run the last trials, and may fail
                time.sleep(_POLL)
                package.storages.fail_stale_trials(study)


def _run(package: Any, trial: Any, task: Task, space: Space) -> float:
    """Run a trial, and record why it failed."""

    def report(index: int, score: float) -> bool:
        trial.report(score, index)
        return not trial.should_prune()

    try:
        score = trials_of.train(task, space.suggest(trial), trial.number, report)
    except (ConfigurationError, TrainingError) as error:
        trial.set_user_attr(_FAILED, str(error))
        raise
    if score is None:
        raise package.TrialPruned
    return score


class _Counts(NamedTuple):
    counted: int  # trials that have ended by themselves
    running: int


def _count(package: Any, study: Any) -> _Counts:
    """Count the trials. A trial whose process died or was interrupted does not count."""
    states = package.trial.TrialState
    found = study.get_trials(deepcopy=False)
    ended = [
        one
        for one in found
        if one.state in (states.COMPLETE, states.PRUNED)
        or (one.state == states.FAIL and _FAILED in one.user_attrs)
    ]
    running = [one for one in found if one.state == states.RUNNING]
    return _Counts(len(ended), len(running))


def _line(study: Any, trial: Any, trials: int) -> str:
    """Return a line of text about a trial that has ended."""
    states = type(trial.state)
    seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
    what = {
        states.COMPLETE: lambda: f"mean return {trial.value:.1f}",
        states.PRUNED: lambda: f"ended early after {len(trial.intermediate_values)} evaluations",
    }.get(trial.state, lambda: f"failed: {trial.user_attrs.get(_FAILED, 'interrupted')}")()
    complete = [one for one in study.get_trials(deepcopy=False) if one.state == states.COMPLETE]
    best = max(complete, key=lambda one: one.value, default=None)
    leader = "" if best is None else f"; best {best.value:.1f} in trial {best.number}"
    return f"Trial {trial.number} of {trials}: {what} ({seconds:.1f} s{leader})"


def _all_failed(study: Any) -> str:
    """Return what to say if there is no best trial."""
    reasons = [one.user_attrs[_FAILED] for one in study.trials if _FAILED in one.user_attrs]
    last = f" The last error: {reasons[-1]}" if reasons else ""
    return f"None of the {len(study.trials)} trials reached its end, so there is no best one.{last}"
