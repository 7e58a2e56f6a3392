"""Whether a benchmark may go on in a results folder, and what the folder remembers of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentzoo import __version__
from agentzoo.lab import results
from agentzoo.lab.jobs import Job, protocol_of
from agentzoo.types import ConfigurationError


def agree(folder: Path, jobs: Sequence[Job]) -> None:
    """Write the plan into the results folder, after checking that it fits what is there.

    Algorithms, environments and seeds may be added. Everything else has to be equal.

    Raises:
      ConfigurationError: if the folder holds runs with other settings, or is of another version.
    """
    make_folder(folder)
    plan, version = _describe(jobs), __version__
    if (folder / results.PLAN).is_file():
        found = results.read(folder)
        plan, version = _merge(folder, found.plan, plan), found.version
    try:
        results.write_plan(folder, plan, version)
    except OSError as error:
        raise _unwritable(folder, error) from error


def make_folder(folder: Path) -> None:
    """Make the results folder, if it does not exist.

    Raises:
      ConfigurationError: if it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"--out {folder} is a file. Choose a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The folder {folder} cannot be written to ({error.strerror}). Choose another folder."
    )


def _describe(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return what `plan.json` says of runs."""
    runs: dict[str, dict[str, Any]] = {}
    for job in jobs:
        runs.setdefault(job.label, {})[job.env] = job.about
    seeds = sorted({job.seed for job in jobs})
    return {"runs": runs, "seeds": seeds, "evaluation": protocol_of(jobs[0])._asdict()}


def _merge(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan that holds the runs of both.

    Raises:
      ConfigurationError: if they contradict each other.
    """
    if not {"runs", "seeds", "evaluation"} <= set(old):
        raise ConfigurationError(
            f"{folder / results.PLAN} does not say which runs the folder holds. Choose another "
            f"--out."
        )
    if old["evaluation"] != new["evaluation"]:
        raise _refusal(folder, "the evaluation", old["evaluation"], new["evaluation"])
    runs = {label: dict(envs) for label, envs in old["runs"].items()}
    for label, envs in new["runs"].items():
        for env, about in envs.items():
            before = runs.setdefault(label, {}).setdefault(env, about)
            if before != about:
                raise _refusal(folder, f"{label} on {env}", before, about)
    seeds = sorted({*old["seeds"], *new["seeds"]})
    return {"runs": runs, "seeds": seeds, "evaluation": new["evaluation"]}


def _refusal(
    folder: Path, what: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> ConfigurationError:
    before, after = _flat(old), _flat(new)
    names = sorted(set(before) | set(after))
    each = [
        f"{name}={before.get(name)!r}, not {after.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    return ConfigurationError(
        f"The results in {folder} have other settings for {what}: {'; '.join(each)}. Choose "
        f"another --out, or give the variant a label of its own in a plan."
    )


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name, hyperparameters among the others."""
    others = {name: value for name, value in about.items() if name not in _NESTED}
    return {**others, **about.get("hyperparameters", {}), **about.get("env_kwargs", {})}


_NESTED = ("hyperparameters", "changes", "env_kwargs")
