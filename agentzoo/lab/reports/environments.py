"""The section of a report about one environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentzoo.lab import charts, statistics
from agentzoo.lab.charts import Axis
from agentzoo.lab.reports import peers
from agentzoo.lab.reports.comparison import Comparison, Group, score
from agentzoo.lab.reports.document import (
    NOTHING,
    Cell,
    Details,
    Figure,
    Section,
    Table,
    Text,
    duration,
    estimate,
    number,
    rounded,
    slug,
)
from agentzoo.lab.reports.overall import POINTS, profile_rows
from agentzoo.lab.statistics import Summary

BANDS = "The bands are 95 % bootstrap intervals over seeds."
PARTS = " A dashed line is a single run that failed or has not ended. It counts in no mean."


def section(
    comparison: Comparison,
    env: str,
    library: Sequence[peers.Library] = (),
    videos: Sequence[Any] = (),
) -> Section:
    """Return the section.

    Args:
      comparison: the groups of runs.
      env: the environment.
      library: published scores, if they are to stand beside ours.
      videos: blocks with videos of this environment.
    """
    groups = comparison.of(env)
    scored = [group for group in groups if group.finished]
    summaries = {group.label: statistics.summarize([group.scores]) for group in scored}
    blocks: list[Any] = [_table(groups, summaries)]
    parts = _parts(comparison, env)
    if scored or parts:
        blocks.append(_curves(comparison.labels, env, scored, parts))
    if scored:
        blocks.append(_profile(comparison.labels, env, scored))
    blocks += peers.blocks(scored, summaries, library)
    blocks += videos
    blocks.append(_hyperparameters(groups))
    return Section(env, blocks)


def _table(groups: Sequence[Group], summaries: Mapping[str, Summary]) -> Table:
    names = ("mean", "median", "iqm")
    # Scores that look the same are equally good.
    best = {
        name: number(max((getattr(one, name).value for one in summaries.values()), default=0.0))
        for name in names
    }
    rows, nothing = [], Cell(NOTHING)
    for group in groups:
        failed, steps = Cell(str(len(group.failed))), Cell(f"{group.settings.steps:,}")
        if group.label not in summaries:
            rows.append([Cell(group.label), *[nothing] * 4, Cell("0"), failed, steps, nothing])
            continue
        summary = summaries[group.label]
        cells = [
            estimate(found, best=len(summaries) > 1 and number(found.value) == best[name])
            for name in names
            for found in [getattr(summary, name)]
        ]
        time = Cell(duration(float(np.mean([run.seconds for run in group.finished]))))
        worst, seeds = Cell(number(summary.worst)), Cell(str(summary.count))
        rows.append([Cell(group.label), *cells, worst, seeds, failed, steps, time])
    columns = (
        *("Algorithm", "Mean", "Median", "IQM", "Worst seed"),
        *("Seeds", "Failed", "Steps", "Time"),
    )
    return Table(columns, rows, "Return after training")


def _curves(
    labels: Sequence[str],
    env: str,
    groups: Sequence[Group],
    parts: Sequence[Mapping[str, Any]],
) -> Figure:
    rows = [row for group in groups for row in _curve(group)] + list(parts)
    labels = list(dict.fromkeys([*labels, *(part["label"] for part in parts)]))
    value = Axis("mean", "mean return")
    chart = charts.lines(rows, labels, charts.STEPS, value)
    over_time = charts.lines(rows, labels, charts.SECONDS, value)
    return Figure(
        f"curves-{slug(env)}",
        "Learning curves",
        chart,
        f"The mean over seeds of the mean return of each evaluation. {BANDS}{PARTS * bool(parts)}",
        over_time,
        logarithmic=True,
    )


def _curve(group: Group) -> list[dict[str, Any]]:
    """Return the points of a learning curve: the steps at which all runs were evaluated."""
    by_step = [{point.step: point for point in run.curve} for run in group.finished]
    steps = sorted(set.intersection(*(set(points) for points in by_step)))
    if not steps:
        return []
    curves = np.array([[score(points[step].episodes) for step in steps] for points in by_step])
    seconds = np.mean([[points[step].seconds for step in steps] for points in by_step], axis=0)
    found = statistics.mean_curve(curves)
    ends = (found.low, found.high) if found.low is not None else ([None] * len(steps),) * 2
    return [
        {
            "label": group.label,
            "step": step,
            "seconds": rounded(seconds[i]),
            "mean": rounded(found.value[i]),
            "low": rounded(ends[0][i]),
            "high": rounded(ends[1][i]),
        }
        for i, step in enumerate(steps)
    ]


def _parts(comparison: Comparison, env: str) -> list[dict[str, Any]]:
    """Return the points of the curves of single runs that failed or have not ended."""
    ended = [run for group in comparison.of(env) for run in group.failed]
    runs = [
        *((run, "failed") for run in ended),
        *((run, "not ended") for run in comparison.partial if run.env == env),
    ]
    return [
        {
            "label": run.label,
            "part": f"{run.label}, seed {run.seed}, {what}",
            "step": point.step,
            "seconds": rounded(point.seconds),
            "mean": rounded(score(point.episodes)),
        }
        for run, what in runs
        for point in run.curve
    ]


def _profile(labels: Sequence[str], env: str, groups: Sequence[Group]) -> Figure:
    """Return the fraction of the episodes after training above each return."""
    episodes = {
        group.label: [np.array(run.final.returns) for run in group.finished if run.final]
        for group in groups
    }
    every = np.concatenate([one for runs in episodes.values() for one in runs])
    thresholds = np.linspace(every.min(), every.max(), POINTS)
    rows = []
    for label, runs in episodes.items():
        fractions = np.array([np.mean(one[:, None] > thresholds, axis=0) for one in runs])
        rows += profile_rows(label, thresholds, statistics.mean_curve(fractions))
    chart = charts.lines(
        rows,
        labels,
        Axis("threshold", "return τ"),
        Axis("value", "fraction of episodes above τ", ".0%"),
    )
    caption = f"The episodes after training. A curve that lies higher is better. {BANDS}"
    return Figure(f"episodes-{slug(env)}", "Returns of single episodes", chart, caption)


def _hyperparameters(groups: Sequence[Group]) -> Details:
    settings = {group.label: group.settings for group in groups}
    values = {
        label: {
            **{"algorithm": run.algorithm, "n_envs": run.n_envs},
            **({"env_kwargs": run.env_kwargs} if run.env_kwargs else {}),
            **run.hyperparameters,
        }
        for label, run in settings.items()
    }
    names = list(dict.fromkeys(name for one in values.values() for name in one))
    same, rows = [], []
    for name in names:
        texts = [text_of(one[name]) if name in one else NOTHING for one in values.values()]
        if len(texts) > 1 and len(set(texts)) == 1:
            same.append(f"{name} {texts[0]}")
        else:
            rows.append([Cell(name), *map(Cell, texts)])
    tuned = [label for label, run in settings.items() if run.tuned]
    blocks: list[Any] = [Table(("Hyperparameter", *values), rows)]
    if same:
        blocks.append(Text(f"The same for all: {', '.join(same)}."))
    if tuned:
        blocks.append(Text(f"With tuned settings of agentzoo: {', '.join(tuned)}."))
    return Details("Hyperparameters that differ" if len(values) > 1 else "Hyperparameters", blocks)


def text_of(value: Any) -> str:
    """Return a hyperparameter as text."""
    match value:
        case {"linear": [start, end]}:
            return f"linear from {start:g} to {end:g}"
        case {"function": name}:
            return f"function {name}"
        case bool() | None | str():
            return str(value)
        case dict():
            return ", ".join(f"{key} {text_of(each)}" for key, each in value.items())
        case float():
            return f"{value:g}"
        case list() | tuple():
            return f"[{', '.join(map(text_of, value))}]"
        case _:
            return str(value)
