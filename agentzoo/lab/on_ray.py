"""Runs as Ray tasks, on a cluster or on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentzoo.lab.board import Board
from agentzoo.lab.jobs import Job
from agentzoo.lab.results import RESULT
from agentzoo.lab.runs import home_of, record_failure
from agentzoo.types import ConfigurationError


def run_on_ray(folder: Path, groups: Sequence[Sequence[Job]], board: Board) -> None:
    """Do the runs of a benchmark, each group as a Ray task. Ray decides how many run at once.

    All machines have to see the results folder under the same path.

    Args:
      folder: the results folder.
      groups: the runs. Those of a group learn together.
      board: shows the runs.

    Raises:
      ConfigurationError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            "--ray needs Ray, which is not installed. Run: pip install 'agentzoo[ray]'"
        ) from error
    from agentzoo.runners.ray_actors import connect

    connect()
    task = ray.remote(_perform).options(num_cpus=1, max_retries=0)
    home = str(folder.absolute())
    running = {task.remote(home, [job._asdict() for job in jobs]): jobs for jobs in groups}
    board.begin([job for jobs in groups for job in jobs])
    try:
        while running:
            ended, _ = ray.wait(list(running), timeout=0.5)
            for reference in ended:
                jobs = running.pop(reference)
                _settle(folder, jobs, _error_of(ray, reference))
                board.end(jobs)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _perform(folder: str, jobs: Sequence[dict[str, Any]]) -> None:
    """Do the runs of a group, in a process of Ray."""
    from agentzoo.compilation import use_compilation_cache
    from agentzoo.lab.runs import perform

    use_compilation_cache()
    perform(Path(folder), [Job(**job) for job in jobs])


def _error_of(ray: Any, reference: Any) -> str | None:
    """Return what went wrong in a task that has ended, or None."""
    try:
        ray.get(reference)
    except Exception as error:  # Ray raises the errors of its tasks, and errors of its own
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
    return None


def _settle(folder: Path, jobs: Sequence[Job], error: str | None) -> None:
    """Record the runs of a task that has ended without a result as failed."""
    for job in jobs:
        if not os.path.isfile(home_of(folder, job) / RESULT):
            record_failure(folder, job, error or "The Ray task ended without a result.")
