"""Benchmarks: several algorithms in several environments with several seeds, in processes."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentzoo import config as configs
from agentzoo import progress
from agentzoo.lab import results
from agentzoo.lab.agreement import agree, make_folder
from agentzoo.lab.board import Board
from agentzoo.lab.jobs import Job, jobs_of
from agentzoo.lab.plan import Plan, make_plan, read_plan
from agentzoo.lab.results import RESULT, Results, read_run
from agentzoo.lab.runs import forget, home_of, is_resumable
from agentzoo.lab.scoring import files_for_scores, save_scores
from agentzoo.training.folder import Lock
from agentzoo.types import ConfigurationError, TrainingError


def benchmark(
    algos: Any = None,
    envs: Sequence[str] | str | None = None,
    seeds: int | None = None,
    out: str | os.PathLike[str] = "results",
    *,
    steps: float | None = None,
    n_envs: int | None = None,
    tuned: bool | None = None,
    settings: str | os.PathLike[str] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    evaluations: int | None = None,
    eval_episodes: int | None = None,
    final_episodes: int | None = None,
    plan: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    together: bool = False,
    ray: bool = False,
    scores: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> Results:
    """Compare algorithms: train each of them in each environment with each seed, and evaluate it.

    Every run has a process of its own. An interrupted benchmark goes on if this function is called
    again with the same arguments, and then its results are the same to the bit. A run that fails
    is recorded, does not stop the others, and is tried again in the next call.

    Args:
      algos: names of algorithms, "my_module:MyAlgorithm" texts, or classes; or a mapping from a
        label to one of them, or to a mapping with `algorithm`, `set`, its hyperparameters, and
        `envs`, its environments, if they are not those of all.
      envs: ids of environments, such as "CartPole-v1" or "my_module:MyEnv-v0". An algorithm that
        cannot act in one of several environments has no run there.
      seeds: the number of seeds, which are 0, 1, ...; None for 5.
      out: the results folder. It may hold other runs of the same kind.
      steps: environment steps of each run; None for those of the tuned settings, or 100,000.
      n_envs: number of environments of each run; None for that of the tuned settings, or 1.
      tuned: whether to use the tuned settings of each environment.
      settings: a file or a folder with tuned settings; None for those of the package.
      hyperparameters: hyperparameters of all algorithms, by name.
      env_kwargs: arguments of all environments, by name.
      evaluations: evaluations during a run, at equal distances; None for 20.
      eval_episodes: episodes of each evaluation; None for 10.
      final_episodes: episodes of the evaluation at the end; None for 100.
      plan: a YAML file with all arguments up to here except `out`, instead of these arguments. It
        calls `hyperparameters` `set`.
      jobs: how many processes run at once.
      together: whether the seeds of an environment that can be compiled learn side by side in one
        process. Such a group writes no checkpoints, so after an interruption it begins anew.
      ray: whether to do the runs as Ray tasks, on the cluster that `RAY_ADDRESS` names or on this
        machine. Ray decides how many run at once.
      scores: a folder with files of tuned settings, into whose rows the scores are written.
      verbose: whether to show a table of the runs, or lines if there is no terminal.

    Returns:
      The results, those of earlier calls included.

    Raises:
      ConfigurationError: if an argument is wrong, or the results folder holds runs with other
        settings. Nothing has started then.
      TrainingError: if results cannot be written, as when the disk is full.
      KeyboardInterrupt: after Ctrl-C. The runs have written a checkpoint.
      SystemExit: after SIGTERM, in the same way.
    """
    given = {
        **{"algos": algos, "envs": envs, "seeds": seeds, "steps": steps, "n_envs": n_envs},
        **{"tuned": tuned, "settings": settings, "set": hyperparameters},
        "env_kwargs": env_kwargs,
        **{"evaluations": evaluations, "eval_episodes": eval_episodes},
        "final_episodes": final_episodes,
    }
    runs = jobs_of(_plan(plan, given), print if verbose else None)
    folder, at_once = Path(out), configs.integer("jobs", jobs, 1)
    if scores is not None:
        files_for_scores(Path(scores), runs)
    with _alone(folder), _writable(folder):
        agree(folder, runs)
        _perform(folder, runs, at_once, together, ray, verbose)
        if scores is not None:
            for line in save_scores(Path(scores), folder, runs):
                print(line)
    return results.read(folder)


def _plan(path: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> Plan:
    """Return the plan in a file, or the one that the arguments make."""
    named = [name for name, value in given.items() if value is not None]
    if path is not None:
        if named:
            raise ConfigurationError(
                f"The plan {os.fspath(path)} takes the place of {', '.join(named)}. Write them "
                f"into the plan, or leave out the plan."
            )
        return read_plan(path)
    for name, example in (("algos", "dqn,ppo"), ("envs", "CartPole-v1")):
        if given[name] is None:
            raise ConfigurationError(
                f"Nothing says which {name} to compare. Name them, such as {example}, or a plan."
            )
    return make_plan(**given)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Return a context in which no other benchmark uses the folder.

    Raises:
      ConfigurationError: if another one does, or the folder cannot be made.
    """
    make_folder(folder)
    try:
        lock = Lock(folder)
    except ConfigurationError as error:
        if "Another agent" not in str(error):
            raise
        raise ConfigurationError(
            f"Another benchmark is running in {folder}. Wait until it has finished, or choose "
            f"another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Return a context in which errors of the file system say what to do.

    Raises:
      TrainingError: in place of these errors, such as that of a disk that is full.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"The results in {folder} cannot be written ({error.strerror or error}). When that is "
            f"mended, the same command goes on."
        ) from error


def _perform(
    folder: Path, runs: Sequence[Job], at_once: int, together: bool, ray: bool, verbose: bool
) -> None:
    """Do the runs that have not finished."""
    missing = [job for job in runs if not _is_finished(folder, job)]
    for job in missing:
        forget(folder, job)
    with Board(folder, runs, verbose) as board:
        try:
            if ray:
                from agentzoo.lab.on_ray import run_on_ray

                run_on_ray(folder, _groups(folder, missing, together), board)
            else:
                from agentzoo.lab.processes import run_in_processes

                run_in_processes(folder, _groups(folder, missing, together), at_once, board)
        except (KeyboardInterrupt, SystemExit) as error:
            ended = sum(_is_finished(folder, job) for job in runs)
            sentence = f"interrupted after {ended} of {len(runs)} runs. The same command goes on."
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(sentence) from None
            progress.write(f"The benchmark was {sentence}")
            raise


def _is_finished(folder: Path, job: Job) -> bool:
    home = home_of(folder, job)
    return (home / RESULT).is_file() and read_run(home).final is not None


def _groups(folder: Path, jobs: Sequence[Job], together: bool) -> list[list[Job]]:
    """Return the runs in groups that one process does.

    A run that has a checkpoint goes on alone, because a group begins anew.
    """
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        joins = together and job.compiled and not is_resumable(folder, job)
        key = (job.label, job.env) if joins else (job.label, job.env, job.seed)
        groups.setdefault(key, []).append(job)
    return list(groups.values())
