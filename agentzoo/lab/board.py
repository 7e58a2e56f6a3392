"""What a benchmark shows while it runs: one live table, or lines if there is no terminal."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentzoo.lab.jobs import Job
from agentzoo.lab.results import RESULT, Evaluation, Result, read_progress, read_run
from agentzoo.lab.runs import home_of


class Board:
    """Shows the runs of a benchmark. It is a context manager.

    Args:
      folder: the results folder.
      jobs: all runs of the benchmark, those that have ended included.
      enabled: whether anything is shown.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], enabled: bool = True):
        self._folder = folder
        self._jobs = jobs
        self._running: dict[Any, None] = {}  # in the order of their beginning
        self._results: dict[Path, Result] = {}
        self._began = time.monotonic()
        self._live: Any = None
        self._enabled = enabled
        for job in jobs:
            self._note(job)

    def __enter__(self) -> "Board":
        if self._enabled and sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(get_renderable=self._table, refresh_per_second=2)
            self._live.start()
        elif self._enabled:
            ended = len(self._results)
            more = f", {ended} of them have finished already" if ended else ""
            self._say(f"{len(self._jobs)} runs in {self._folder}{more}")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, jobs: Iterable[Job]) -> None:
        """Note that runs have begun."""
        self._running.update(dict.fromkeys(map(_key, jobs)))

    def end(self, jobs: Iterable[Job]) -> None:
        """Note that runs have ended."""
        for job in jobs:
            self._running.pop(_key(job), None)
            result = self._note(job)
            if result is not None and self._enabled and self._live is None:
                self._say(_line(result))

    def _note(self, job: Job) -> Result | None:
        home = home_of(self._folder, job)
        if not (home / RESULT).is_file():
            return None
        self._results[home] = read_run(home)
        return self._results[home]

    def _say(self, line: str) -> None:
        print(line, flush=True)

    def _table(self) -> Any:
        from rich.table import Table

        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        ended = len(self._results)
        table = Table(title=f"{ended} of {len(self._jobs)} runs, {minutes}:{seconds:02}")
        for name, side in _COLUMNS.items():
            table.add_column(name, justify=side)
        rows: dict[tuple[str, str], list[Job]] = {}
        for job in self._jobs:
            rows.setdefault((job.label, job.env), []).append(job)
        for (label, env), jobs in rows.items():
            table.add_row(label, env, *self._cells(jobs))
        return table

    def _cells(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Return the cells of a label and an environment after their names."""
        found = [self._results.get(home_of(self._folder, job)) for job in jobs]
        results = [result for result in found if result is not None]
        finals = [np.mean(result.final.returns) for result in results if result.final is not None]
        failed = sum(result.final is None for result in results)
        found = [self._latest(job) for job in jobs if _key(job) in self._running]
        latest = [one for one in found if one is not None]
        total = sum(job.steps for job in jobs)
        taken = sum(one.step for one in latest) + len(finals) * jobs[0].steps
        mean = f"{np.mean(finals):.1f}" if finals else ""
        now = f"{np.mean([np.mean(one.episodes.returns) for one in latest]):.1f}" if latest else ""
        problems = f"{failed} failed" if failed else ""
        share = f"{min(1.0, taken / total):.0%}"
        return f"{len(finals)}/{len(jobs)}", share, now, mean, problems

    def _latest(self, job: Job) -> Evaluation | None:
        """Return the last evaluation of a run that has not ended."""
        progress = read_progress(home_of(self._folder, job))
        return progress.curve[-1] if progress is not None and progress.curve else None


_COLUMNS: dict[str, Any] = {
    **{"algorithm": "left", "environment": "left", "seeds": "right", "steps": "right"},
    **{"return now": "right", "final return": "right", "": "left"},
}


def _key(job: Job) -> Any:
    return (job.label, job.env, job.seed)


def _line(result: Result) -> str:
    name = f"{result.label} on {result.env}, seed {result.seed}"
    if result.final is None:
        return f"{name}: failed. {result.error}"
    mean, number = np.mean(result.final.returns), len(result.final.returns)
    return f"{name}: mean return {mean:.1f} of {number} episodes, {result.seconds:.0f} s"
