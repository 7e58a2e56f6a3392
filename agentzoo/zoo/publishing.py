"""Publishing the best agents of a benchmark in a zoo.

The record beside an agent has all that its card says:

- `format`, `label`, `algorithm`, `env`, `steps`, `n_envs`, `seed`, `seconds`, `date`: the run.
- `score`: `mean`, `std`, `min`, `max` and the number of `episodes` of the final evaluation.
- `returns`: the return of each of these episodes.
- `seeds`: the mean return of each run of the benchmark, by its seed.
- `hyperparameters`, `changes`, `tuned`: the settings.
- `versions`, `machine`, `command`: where and how the agent was trained.
"""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentzoo.algos import loading
from agentzoo.lab import results as results_of
from agentzoo.lab.plan import spec_of
from agentzoo.lab.results import Result
from agentzoo.logging.files import write_whole
from agentzoo.types import ConfigurationError
from agentzoo.zoo import cards, catalogue
from agentzoo.zoo.catalogue import Entry


def publish(
    results: str | os.PathLike[str], zoo: str | os.PathLike[str] | None = None
) -> list[Entry]:
    """Publish the best agent of each algorithm in each environment of a benchmark.

    Of each agent, the policy is saved, together with a record in JSON and a card in Markdown. An
    agent of the zoo with the same name is replaced.

    Args:
      results: the results folder of the benchmark.
      zoo: the folder of the zoo, which is created if necessary; None for the zoo in the package.

    Returns:
      The agents that were published.

    Raises:
      ConfigurationError: if the folder is not a results folder, or if a run has failed or has not
        ended.
    """
    read = results_of.read(Path(results))
    _check_finished(read)
    home = catalogue.FOLDER if zoo is None else Path(zoo)
    groups: dict[tuple[str, str], list[Result]] = {}
    for run in read.runs:
        groups.setdefault((run.label, run.env), []).append(run)
    try:
        return [_publish(read.folder, runs, home) for runs in groups.values()]
    except OSError as error:
        if error.filename is None or isinstance(error, FileNotFoundError):
            raise
        raise ConfigurationError(
            f"{error.filename} cannot be written ({error.strerror}). Choose another folder for the "
            f"zoo, and publish the results in {read.folder} again with agentzoo.zoo.publish."
        ) from error


def _check_finished(read: results_of.Results) -> None:
    """Refuse a benchmark that has not ended, because its best run may be still to come."""
    failed = [
        results_of.run_folder(Path(), run.label, run.env, run.seed)
        for run in read.runs
        if run.final is None
    ]
    begun = [path.relative_to(read.folder) for path in read.unfinished]
    ended = {(run.label, run.env, run.seed) for run in read.runs}
    missing = [
        results_of.run_folder(Path(), label, env, seed)
        for label, envs in read.plan.get("runs", {}).items()
        for env in envs
        for seed in read.plan.get("seeds", ())
        if (label, env, seed) not in ended
    ]
    unfinished = list(dict.fromkeys([*begun, *missing]))
    for what, paths in (("failed", failed), ("not ended", unfinished)):
        if paths:
            names = ", ".join(map(str, paths[:5])) + (", ..." if len(paths) > 5 else "")
            raise ConfigurationError(
                f"{len(paths)} run(s) in {read.folder} have {what}: {names}. Run the same "
                f"benchmark again before you publish its agents."
            )
    changed = next((run for run in read.runs if run.env_kwargs), None)
    if changed is not None:
        raise ConfigurationError(
            f"The runs of {changed.label} on {changed.env} had the arguments "
            f"{dict(changed.env_kwargs)} of the environment, which the name of an agent in the zoo "
            f"cannot hold. Register the environment with its arguments under an id of its own."
        )
    if not read.runs:
        raise ConfigurationError(
            f"{read.folder} has no runs to publish. Run the benchmark that made it again."
        )


def _publish(folder: Path, runs: Sequence[Result], home: Path) -> Entry:
    """Publish the best of the runs of one algorithm in one environment."""
    best = max(runs, key=lambda run: float(np.mean(_returns(run))))
    place = results_of.run_folder(folder, best.label, best.env, best.seed)
    agent = loading.load(place / results_of.RUN, n_envs=best.n_envs)
    record = _record(best, runs, spec_of(type(agent)))
    path = catalogue.place(home, best.label, best.env)
    path.parent.mkdir(parents=True, exist_ok=True)
    agent.save(path, policy_only=True)
    write_whole(catalogue.record_of(path), json.dumps(record) + "\n")
    entry = Entry(best.label, best.env, path, record)
    write_whole(entry.card, cards.card(record))
    return entry


def _returns(run: Result) -> tuple[float, ...]:
    assert run.final is not None
    return run.final.returns


def _record(best: Result, runs: Sequence[Result], algorithm: str) -> dict[str, Any]:
    """Return the record of the best of several runs."""
    returns = _returns(best)
    return {
        "format": catalogue.FORMAT,
        "label": best.label,
        "algorithm": best.algorithm,
        "env": best.env,
        "steps": best.steps,
        "n_envs": best.n_envs,
        "seed": best.seed,
        "seconds": round(best.seconds, 1),
        "date": best.date,
        "score": {
            "mean": float(np.mean(returns)),
            "std": float(np.std(returns)),
            "min": min(returns),
            "max": max(returns),
            "episodes": len(returns),
        },
        "returns": list(returns),
        "seeds": {str(run.seed): float(np.mean(_returns(run))) for run in runs},
        "hyperparameters": dict(best.hyperparameters),
        "changes": dict(best.changes),
        "tuned": best.tuned,
        "versions": dict(best.versions),
        "machine": dict(best.machine),
        "command": _command(best, algorithm, len(runs)),
    }


def _command(run: Result, algorithm: str, seeds: int) -> str:
    """Return the command that runs the same benchmark again."""
    words = ["agentzoo", "benchmark", "--algos", algorithm, "--envs", run.env]
    words += ["--seeds", str(seeds), "--steps", str(run.steps), "--n-envs", str(run.n_envs)]
    words += ["--tuned"] * run.tuned + ["--out", "results"]
    changes = [f"{name}={json.dumps(value)}" for name, value in run.changes.items()]
    return shlex.join([*words, *(["--set", *changes] if changes else [])])
