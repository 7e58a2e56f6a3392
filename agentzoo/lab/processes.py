"""Runs in processes of their own on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentzoo.lab.board import Board
from agentzoo.lab.jobs import Job
from agentzoo.lab.results import RESULT
from agentzoo.lab.runs import OUTPUT, home_of, record_failure
from agentzoo.training.interrupts import interrupts

_WAIT = 0.2  # seconds between two looks at the processes
_PATIENCE = 30.0  # seconds in which a process that has to end may save its agent


class _Running(NamedTuple):
    jobs: Sequence[Job]
    process: subprocess.Popen


def run_in_processes(
    folder: Path, groups: Sequence[Sequence[Job]], at_once: int, board: Board
) -> None:
    """Do the runs of a benchmark, each group in a process of its own.

    After Ctrl-C and SIGTERM, the runs write a checkpoint and end.

    Args:
      folder: the results folder.
      groups: the runs. Those of a group learn together.
      at_once: how many processes run at once.
      board: shows the runs.

    Raises:
      KeyboardInterrupt: after Ctrl-C.
      SystemExit: after SIGTERM.
    """
    waiting, running = deque(groups), []
    with interrupts(on_termination=True) as arrived:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    jobs = waiting.popleft()
                    running.append(_Running(jobs, _start(folder, jobs)))
                    board.begin(jobs)
                time.sleep(_WAIT)
                arrived.check()
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _settle(folder, one)
                    board.end(one.jobs)
        finally:
            _stop(running)


def _start(folder: Path, jobs: Sequence[Job]) -> subprocess.Popen:
    text = json.dumps([job._asdict() for job in jobs])
    command = [sys.executable, "-m", "agentzoo.lab.worker", str(folder.absolute()), text]
    home = home_of(folder, jobs[0])
    home.mkdir(parents=True, exist_ok=True)
    # Modules of the user are found where this process finds them.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with open(home / OUTPUT, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
        )


def _settle(folder: Path, one: _Running) -> None:
    """Record the runs of a process that has ended without a result as failed."""
    if one.process.stdin is not None:
        one.process.stdin.close()
    code = one.process.returncode
    for job in one.jobs:
        if (home_of(folder, job) / RESULT).is_file():
            continue
        output = home_of(folder, one.jobs[0]) / OUTPUT
        record_failure(folder, job, f"The process of the run {_end(code)}. See {output}.")


def _end(code: int) -> str:
    """Return how a process has ended, in words."""
    if code >= 0:
        return f"ended with exit code {code} and without a result"
    name = signal.Signals(-code).name
    reason = ", as when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{reason}"


def _stop(running: Sequence[_Running]) -> None:
    """End processes, after they have written a checkpoint."""
    for one in running:
        one.process.terminate()
    limit = time.monotonic() + _PATIENCE
    for one in running:
        try:
            one.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        if one.process.stdin is not None:
            one.process.stdin.close()
