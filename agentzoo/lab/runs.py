"""One run of a benchmark, or several seeds of it that learn together."""

import contextlib
import datetime
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentzoo.algos.resuming import open_run
from agentzoo.callbacks import CallbackList
from agentzoo.lab.curve import Curve, CurveCallback, Stopwatch
from agentzoo.lab.jobs import Job, make_agent, protocol_of
from agentzoo.lab.machine import describe_machine, package_versions
from agentzoo.lab.results import (
    EVALUATIONS,
    PROGRESS,
    RESULT,
    RUN,
    Episodes,
    Evaluation,
    Progress,
    Result,
    read_progress,
    run_folder,
    write,
    write_progress,
)
from agentzoo.training.folder import CHECKPOINTS
from agentzoo.training.together import Plan, train_together

OUTPUT = "output.txt"


def home_of(folder: Path, job: Job) -> Path:
    """Return the folder of a run in the results folder."""
    return run_folder(folder, job.label, job.env, job.seed)


def is_resumable(folder: Path, job: Job) -> bool:
    """Return whether a run has a checkpoint from which it can go on."""
    return any((home_of(folder, job) / RUN / CHECKPOINTS).glob("*"))


def perform(folder: Path, jobs: Sequence[Job]) -> None:
    """Do a run, or several that learn together, and write the results.

    A run that was interrupted goes on from its last checkpoint. An error is recorded as the result
    of the run.

    Args:
      folder: the results folder.
      jobs: the runs. Several differ only in their seeds.
    """
    if len(jobs) == 1:
        _guarded(folder, jobs, functools.partial(_learn_alone, folder, jobs[0]))
    else:
        _guarded(folder, jobs, functools.partial(_learn_as_group, folder, jobs))


def forget(folder: Path, job: Job) -> None:
    """Remove the result of a run that is tried again."""
    for name in (RESULT, EVALUATIONS, *(() if is_resumable(folder, job) else (PROGRESS,))):
        (home_of(folder, job) / name).unlink(missing_ok=True)


def record_failure(folder: Path, job: Job, error: str, curve: Curve | None = None) -> None:
    """Write that a run has failed, with the part of the curve that exists.

    Args:
      folder: the results folder.
      job: the run.
      error: why it failed.
      curve: the curve; None for the one that the process of the run has left in its folder.
    """
    if curve is not None:
        clock, points, versions = curve.clock.read(), tuple(curve.points), curve.versions
    else:
        left = read_progress(home_of(folder, job))
        points = () if left is None else left.curve
        clock, versions = points[-1].seconds if points else 0.0, package_versions()
    write(folder, _result(job, clock, points, versions, None, error))
    (home_of(folder, job) / PROGRESS).unlink(missing_ok=True)


def _guarded(folder: Path, jobs: Sequence[Job], learn: Callable[[list[Curve]], None]) -> None:
    """Call `learn`, and record an error as the result of all runs that have none yet."""
    clock = Stopwatch(len(jobs))
    curves = [_curve(folder, job, clock) for job in jobs]
    try:
        learn(curves)
    except Exception as error:
        for job, curve in zip(jobs, curves, strict=True):
            if not (home_of(folder, job) / RESULT).is_file():
                record_failure(folder, job, _sentence(error), curve)
        raise


def _curve(folder: Path, job: Job, clock: Stopwatch) -> Curve:
    home = home_of(folder, job)
    home.mkdir(parents=True, exist_ok=True)

    def report(points: Sequence[Evaluation]) -> None:
        with contextlib.suppress(OSError):  # the run can do without
            write_progress(home, Progress(job.label, job.env, job.seed, job.steps, tuple(points)))

    return Curve(job.maker, job.seed, job.steps, protocol_of(job), report, clock)


def _learn_alone(folder: Path, job: Job, curves: list[Curve]) -> None:
    (curve,) = curves
    run = home_of(folder, job) / RUN
    callback = CurveCallback(curve)
    if is_resumable(folder, job):
        opened = open_run(run, job.maker)
        if opened.saved.is_finished:  # it was interrupted during the last evaluation
            CallbackList([callback]).set_state(opened.agent.session.callbacks or {})
        agent = opened.train([callback])
    else:
        shutil.rmtree(run, ignore_errors=True)
        agent = make_agent(job, run_dir=run)
        often = max(1, job.steps // job.evaluations)
        agent.learn(job.steps, callback, progress_bar=False, checkpoint_freq=often)
    _conclude(folder, job, agent, curve)


def _learn_as_group(folder: Path, jobs: Sequence[Job], curves: list[Curve]) -> None:
    """Train all seeds at once.

    There are no checkpoints, so an interrupted group begins anew. Seeds that went on alone would
    give the same results only up to rounding.
    """
    agents = []
    for job in jobs:
        run = home_of(folder, job) / RUN
        shutil.rmtree(run, ignore_errors=True)
        agents.append(make_agent(job, run_dir=run))
    by_agent = {id(agent): curve for agent, curve in zip(agents, curves, strict=True)}
    job = jobs[0]
    curves[0].clock.start()
    interval = -(-job.steps // job.evaluations)
    visit = functools.partial(_visit, by_agent)
    plan = Plan(job.steps, interval, reset_num_timesteps=True, checkpoint_freq=None, keep=0)
    train_together(agents, plan, progress_bar=False, watch=visit)
    for job, agent, curve in zip(jobs, agents, curves, strict=True):
        curve.visit(agent)  # if the last interval is not whole
        _conclude(folder, job, agent, curve)


def _visit(curves: dict[int, Curve], agent: Any) -> None:
    curves[id(agent)].visit(agent)


def _conclude(folder: Path, job: Job, agent: Any, curve: Curve) -> None:
    """Evaluate the trained agent, and write the result."""
    with curve.clock.paused():
        final = curve.finish(agent)
    seconds, points = curve.clock.seconds, tuple(curve.points)
    write(folder, _result(job, seconds, points, curve.versions, final, None))
    (home_of(folder, job) / PROGRESS).unlink(missing_ok=True)
    # From here on nobody resumes the run, so what only resuming needs goes.
    shutil.rmtree(home_of(folder, job) / RUN / CHECKPOINTS, ignore_errors=True)
    agent.save(home_of(folder, job) / RUN / "model", exclude="replay")


def _result(
    job: Job,
    seconds: float,
    points: tuple[Evaluation, ...],
    versions: Mapping[str, str],
    final: Episodes | None,
    error: str | None,
) -> Result:
    return Result(
        label=job.label,
        algorithm=job.algorithm,
        env=job.env,
        seed=job.seed,
        steps=job.steps,
        hyperparameters=job.hyperparameters,
        changes=job.changes,
        tuned=job.tuned is not None,
        n_envs=job.n_envs,
        versions=dict(versions),
        machine=describe_machine(),
        seconds=round(seconds, 3),
        date=datetime.date.today().isoformat(),
        curve=points,
        final=final,
        status="finished" if error is None else "failed",
        error=error,
        env_kwargs=job.env_kwargs,
    )


def _sentence(error: Exception) -> str:
    """Return an error as one line of text."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"
