"""The runs of a results folder in groups that can be compared, and what limits the comparison."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentzoo.lab.results import (
    RESULT,
    Episodes,
    Progress,
    Result,
    Results,
    read_progress,
    run_folder,
)
from agentzoo.types import ConfigurationError

MOST_NAMES = 8  # in a sentence
FEW = 3  # with fewer seeds, an interval says little


class Group(NamedTuple):
    """The runs of one algorithm in one environment.

    Attributes:
      label: the algorithm.
      env: the environment.
      finished: the runs that have a score, by seed.
      failed: the runs that failed, by seed.
    """

    label: str
    env: str
    finished: tuple[Result, ...]
    failed: tuple[Result, ...]

    @property
    def settings(self) -> Result:
        """A run, of whose settings only the seed differs from those of the other runs."""
        return (*self.finished, *self.failed)[0]

    @property
    def scores(self) -> np.ndarray:
        """The mean return of the last evaluation of each finished run."""
        return np.array([score(run.final) for run in self.finished if run.final is not None])


class Comparison(NamedTuple):
    """Groups of runs.

    Attributes:
      labels: the algorithms.
      envs: the environments.
      groups: the groups by label and environment, without those that have no run.
      shared: the environments in which every algorithm has a score.
      partial: runs that have begun and have no result. They count in no statistics.
      notices: what a reader has to know about the comparison, as sentences.
    """

    labels: tuple[str, ...]
    envs: tuple[str, ...]
    groups: Mapping[tuple[str, str], Group]
    shared: tuple[str, ...]
    notices: tuple[str, ...]
    partial: tuple[Progress, ...] = ()

    def of(self, env: str) -> list[Group]:
        """Return the groups of an environment."""
        groups = (self.groups.get((label, env)) for label in self.labels)
        return [group for group in groups if group is not None]


def score(episodes: Episodes) -> float:
    """Return the score of an evaluation: its mean return."""
    return float(np.mean(episodes.returns))


def compare(results: Results) -> Comparison:
    """Group the runs of a results folder.

    Args:
      results: the results.

    Returns:
      The groups, and what limits the comparison.

    Raises:
      ConfigurationError: if there is no finished run, or runs of one group have different settings.
    """
    if not any(run.status == "finished" for run in results.runs):
        raise ConfigurationError(
            f"{results.folder} has no finished run, so there is nothing to report. "
            f"{_counts(results)} Run the benchmark again."
        )
    groups = {}
    for key, runs in itertools.groupby(results.runs, key=lambda run: (run.label, run.env)):
        members = tuple(runs)
        _refuse_mixed_settings(results, members)
        finished = tuple(run for run in members if run.status == "finished")
        failed = tuple(run for run in members if run.status == "failed")
        groups[key] = Group(*key, finished, failed)
    labels = tuple(sorted({run.label for run in results.runs}))
    envs = tuple(sorted({run.env for run in results.runs}))
    shared = tuple(
        env
        for env in envs
        if all((label, env) in groups and groups[label, env].finished for label in labels)
    )
    notices = tuple(_notices(results, groups, labels, envs))
    begun = map(read_progress, results.unfinished)
    partial = tuple(one for one in begun if one is not None and one.curve)
    return Comparison(labels, envs, groups, shared, notices, partial)


def _counts(results: Results) -> str:
    failed, unfinished = plural(len(results.runs), "run"), len(results.unfinished)
    return f"{failed} failed, and {unfinished} did not end."


SETTINGS = ("algorithm", "steps", "n_envs", "tuned", "hyperparameters", "changes", "env_kwargs")


def _refuse_mixed_settings(results: Results, runs: Sequence[Result]) -> None:
    """Raise `ConfigurationError` if runs differ in more than their seed."""
    first = runs[0]
    for run in runs[1:]:
        for name in SETTINGS:
            ours, other = getattr(first, name), getattr(run, name)
            if ours == other:
                continue
            if isinstance(ours, Mapping):
                name, ours, other = next(_differences(ours, other))
            home, its_home = (
                run_folder(results.folder, one.label, one.env, one.seed) / RESULT
                for one in (first, run)
            )
            raise ConfigurationError(
                f"{results.folder} mixes two settings of {run.label} on {run.env}: {name} is "
                f"{ours!r} in {home}, and {other!r} in {its_home}. Move the runs of one of the "
                f"settings to another folder."
            )


def _differences(
    ours: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*ours, *other}):
        if ours.get(name) != other.get(name):
            yield name, ours.get(name), other.get(name)


def _notices(
    results: Results,
    groups: Mapping[tuple[str, str], Group],
    labels: Sequence[str],
    envs: Sequence[str],
) -> Iterator[str]:
    yield from _notices_about_runs(results, groups)
    for env in envs:
        here = [groups[label, env] for label in labels if (label, env) in groups]
        yield from _notices_about_seeds(env, here)
        missing = [label for label in labels if (label, env) not in groups]
        if missing:
            yield f"{words(missing)} {'has' if len(missing) == 1 else 'have'} no run on {env}."
        yield from _differing(f"On {env}, the algorithms trained for different numbers of steps", {
            group.label: f"{group.settings.steps:,}" for group in here
        })  # fmt: skip
    yield from _notices_about_versions(results.runs)
    tuned = {True: [], False: []}
    for (label, env), group in groups.items():
        tuned[group.settings.tuned].append(f"{label} on {env}")
    if tuned[True] and tuned[False]:
        yield f"Some settings are tuned, and some are not. Not tuned: {words(tuned[False])}."


def _notices_about_runs(results: Results, groups: Mapping[tuple[str, str], Group]) -> Iterator[str]:
    failed = [run for group in groups.values() for run in group.failed]
    if failed:
        each = [f"{run.label} on {run.env} with seed {run.seed}" for run in failed]
        yield (
            f"{plural(len(failed), 'run')} failed: {words(each)}. The scores are those of the "
            f"other runs, which may be the luckier ones."
        )
    if results.unfinished:
        places = ["/".join(path.relative_to(results.folder).parts) for path in results.unfinished]
        verb = "has" if len(places) == 1 else "have"
        yield f"{plural(len(places), 'run')} {verb} not ended yet: {words(places)}."
    waiting = _not_begun(results)
    if waiting:
        verb = "has" if len(waiting) == 1 else "have"
        yield (
            f"{plural(len(waiting), 'run')} of the plan {verb} not begun yet: {words(waiting)}. "
            f"Type the command of the benchmark again to go on."
        )


def _not_begun(results: Results) -> list[str]:
    """Return the runs of a plan without a folder. A plan of another form has none."""
    match results.plan:
        case {"runs": {**planned}, "seeds": [*seeds]}:
            return [
                f"{label} on {env} with seed {seed}"
                for label, envs in planned.items()
                for env in envs
                for seed in seeds
                if not run_folder(results.folder, label, env, seed).is_dir()
            ]
    return []


def _notices_about_seeds(env: str, groups: Sequence[Group]) -> Iterator[str]:
    everyone = {run.seed for group in groups for run in (*group.finished, *group.failed)}
    for group in groups:
        seeds = {run.seed for run in (*group.finished, *group.failed)}
        lacking = [str(seed) for seed in sorted(everyone - seeds)]
        if lacking:
            word = "seed" if len(lacking) == 1 else "seeds"
            yield (
                f"{group.label} lacks {word} {words(lacking)} on {env}, which other algorithms "
                f"have."
            )
    for few in range(FEW):
        names = [group.label for group in groups if len(group.finished) == few]
        if names and few == 0:
            yield f"{words(names)} {'has' if len(names) == 1 else 'have'} no score on {env}."
        elif names and few == 1:
            yield f"One seed of {words(names)} on {env} has a score, so there is no interval."
        elif names:
            yield (
                f"{plural(few, 'seed')} of {words(names)} on {env} have a score. An interval of so "
                f"few seeds is too narrow."
            )


def _notices_about_versions(runs: Iterable[Result]) -> Iterator[str]:
    for package in sorted({package for run in runs for package in run.versions}):
        by_version: dict[str, int] = {}
        for run in runs:
            version = run.versions.get(package, "none")
            by_version[version] = by_version.get(version, 0) + 1
        if len(by_version) > 1:
            each = [f"{version} in {plural(n, 'run')}" for version, n in by_version.items()]
            yield f"The runs have several versions of {package}: {words(each)}."
    if len({tuple(sorted(map(str, run.machine.items()))) for run in runs}) > 1:
        yield "The runs come from several machines, so their times cannot be compared."


def _differing(sentence: str, values: Mapping[str, str]) -> Iterator[str]:
    if len(set(values.values())) > 1:
        yield f"{sentence}: {words([f'{label} {value}' for label, value in values.items()])}."


def plural(number: int, noun: str) -> str:
    """Return a number and its noun, such as "3 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def words(names: Sequence[str]) -> str:
    """Return names as a list in a sentence, with the number of those beyond the first ones."""
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1:,} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
