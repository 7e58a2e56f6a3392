"""Writing what agents scored in a benchmark into the files of tuned settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from agentzoo import __version__, settings
from agentzoo.algos.loading import find
from agentzoo.lab.jobs import Job
from agentzoo.lab.results import Result, read_run
from agentzoo.lab.runs import home_of
from agentzoo.types import ConfigurationError


def files_for_scores(folder: Path, jobs: Sequence[Job]) -> dict[str, Path]:
    """Return the files of settings into which scores can be written, by label.

    Args:
      folder: the folder of the files.
      jobs: the runs of a benchmark.

    Raises:
      ConfigurationError: if the scores of a run would not be those of its row, or the row is not
        in the file.
    """
    files: dict[str, Path] = {}
    for job in jobs:
        row = _row(folder, job)
        planned = (job.steps, job.n_envs, job.changes, job.env_kwargs)
        if planned != (row.steps, row.n_envs, {}, {}):
            raise ConfigurationError(
                f"The runs of {job.label} on {job.env} differ from the tuned settings in "
                f"{folder}, so that their scores do not belong there. Leave out --steps, "
                f"--n-envs, --env-kwargs and --set."
            )
        files[job.label] = _file(folder, job)
    return files


def save_scores(folder: Path, out: Path, jobs: Sequence[Job]) -> list[str]:
    """Write the scores of finished runs into the rows of the settings.

    Args:
      folder: the folder of the files of settings.
      out: the results folder.
      jobs: the runs of the benchmark, all of which have ended.

    Returns:
      What was written and what was not, one line for each algorithm in each environment.
    """
    files = files_for_scores(folder, jobs)
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.label, job.env), []).append(job)
    lines = []
    for (label, env), group in groups.items():
        results = [read_run(home_of(out, job)) for job in group]
        if any(result.final is None for result in results):
            lines.append(f"{label} on {env}: no scores are written, because a run failed.")
            continue
        row, scores = _row(folder, group[0]), summarize(results)
        try:
            settings.write_row(files[label], row._replace(scores=scores))
        except OSError as error:
            lines.append(f"{label} on {env}: {files[label]} cannot be written ({error.strerror}).")
            continue
        lines.append(f"{label} on {env}: mean {scores['mean']} is written into {files[label]}.")
    return lines


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """Return the scores of the seeds of one algorithm in one environment, for its row.

    The interquartile mean is the mean of the middle half of the seeds.
    """
    means = [float(np.mean(result.final.returns)) for result in results if result.final is not None]
    episodes = [len(result.final.returns) for result in results if result.final is not None]
    return {
        "seeds": len(means),
        "mean": round(float(np.mean(means)), 2),
        "iqm": round(float(stats.trim_mean(means, 0.25)), 2),
        "worst": round(min(means), 2),
        "episodes": min(episodes),
        "date": max(result.date for result in results),
        "version": __version__,
    }


def _row(folder: Path, job: Job) -> settings.Row:
    if job.tuned is None:
        raise ConfigurationError("--save-scores writes scores of tuned settings. Add --tuned.")
    rows = settings.read(find(job.spec), _file(folder, job))
    if job.tuned not in rows:
        raise ConfigurationError(f"{_file(folder, job)} has no row {job.tuned!r}.")
    return rows[job.tuned]


def _file(folder: Path, job: Job) -> Path:
    path = settings.file_of(find(job.spec), folder)
    assert path is not None
    if not path.is_file():
        raise ConfigurationError(
            f"There is no file of settings at {path} for the scores of {job.algorithm}. Name the "
            f"folder of the files with --save-scores."
        )
    return path
