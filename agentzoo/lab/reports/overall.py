"""The section of a report that compares algorithms over all environments."""

import itertools
from collections.abc import Mapping

import numpy as np

from agentzoo.lab import charts, statistics
from agentzoo.lab.charts import Axis
from agentzoo.lab.reports.comparison import Comparison, score, words
from agentzoo.lab.reports.document import Cell, Figure, Section, Table, Text, estimate, rounded
from agentzoo.lab.statistics import Estimate, Strata, Summary

TITLE = "Comparison"
POINTS = 61  # of a performance profile

Scores = Mapping[str, Strata]


def section(comparison: Comparison) -> Section | None:
    """Return the section, or None if there is nothing to compare."""
    if len(comparison.labels) < 2:
        return None
    if not comparison.shared:
        text = (
            "No environment has a score of every algorithm, so there are no statistics over all "
            "environments."
        )
        return Section(TITLE, [Text(text)])
    scores = {
        label: [_normalised(comparison, label, env) for env in comparison.shared]
        for label in comparison.labels
    }
    summaries = {label: statistics.summarize(strata) for label, strata in scores.items()}
    labels = sorted(scores, key=lambda label: -summaries[label].iqm.value)
    blocks = [
        Text(_introduction(comparison)),
        _table(labels, summaries, statistics.mean_ranks(scores)),
        _iqm(comparison, labels, summaries),
        _profile(comparison, scores),
        _improvement(labels, scores),
    ]
    return Section(TITLE, blocks)


def _introduction(comparison: Comparison) -> str:
    left_out = [env for env in comparison.envs if env not in comparison.shared]
    without = (
        f" {words(left_out)} {'is' if len(left_out) == 1 else 'are'} left out, because not every "
        f"algorithm has a score there."
        if left_out
        else ""
    )
    envs = "environment is" if len(comparison.shared) == 1 else "environments are"
    return (
        f"The scores are normalised in each environment: 0 is the lowest mean return of any "
        f"evaluation of any run in this report, and 1 is the highest. The {envs} "
        f"{words(list(comparison.shared))}.{without}"
    )


def _normalised(comparison: Comparison, label: str, env: str) -> np.ndarray:
    groups = comparison.of(env)
    ends = [
        *(
            score(point.episodes)
            for group in groups
            for run in group.finished
            for point in run.curve
        ),
        *itertools.chain.from_iterable(group.scores for group in groups),
    ]
    low, high = min(ends), max(ends)
    scores = comparison.groups[label, env].scores
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def _table(
    labels: list[str], summaries: Mapping[str, Summary], ranks: Mapping[str, Estimate]
) -> Table:
    best = {
        name: max(round(getattr(summaries[label], name).value, 3) for label in labels)
        for name in ("iqm", "mean", "median")
    }
    first = min(round(rank.value, 2) for rank in ranks.values())
    rows = []
    for label in labels:
        summary, rank = summaries[label], ranks[label]
        cells = [
            estimate(found, 3, round(found.value, 3) == best[name])
            for name in best
            for found in [getattr(summary, name)]
        ]
        worst = Cell(f"{summary.worst:.3f}")
        ranked = estimate(rank, 2, round(rank.value, 2) == first)
        rows.append([Cell(label), *cells, worst, ranked, Cell(str(summary.count))])
    columns = ("Algorithm", "IQM", "Mean", "Median", "Worst run", "Mean rank", "Runs")
    return Table(columns, rows, "Normalised scores")


def _iqm(comparison: Comparison, labels: list[str], summaries: Mapping[str, Summary]) -> Figure:
    rows = [{"name": label, "label": label, **_as_row(summaries[label].iqm)} for label in labels]
    chart = charts.intervals(
        rows, "interquartile mean of normalised scores", labels=comparison.labels
    )
    return Figure("iqm", "Interquartile mean", chart, _INTERVALS, wide=True)


def _profile(comparison: Comparison, scores: Scores) -> Figure:
    thresholds = np.linspace(0, 1, POINTS)
    rows = []
    for label in comparison.labels:
        found = statistics.performance_profile(scores[label], thresholds)
        rows += profile_rows(label, thresholds, found)
    chart = charts.lines(
        rows,
        comparison.labels,
        Axis("threshold", "normalised score τ", ".3~f"),
        Axis("value", "fraction of runs above τ", ".0%"),
    )
    caption = f"A curve that lies higher is better. {_BANDS}"
    return Figure("profile", "Performance profile", chart, caption)


def _improvement(labels: list[str], scores: Scores) -> Figure:
    rows = []
    for ours, other in itertools.combinations(labels, 2):
        found = statistics.probability_of_improvement(scores[ours], scores[other])
        rows.append({"name": f"{ours} > {other}", **_as_row(found)})
    chart = charts.intervals(rows, "probability of improvement", reference=0.5, domain=(0, 1))
    caption = (
        "The probability that a run of the first algorithm scores higher than a run of the second, "
        f"averaged over environments. {_INTERVALS} An interval that contains 0.5 does not tell "
        "the two apart."
    )
    return Figure("improvement", "Probability of improvement", chart, caption)


_INTERVALS = "The bars are 95 % stratified bootstrap intervals."
_BANDS = "The bands are 95 % stratified bootstrap intervals."


def profile_rows(label: str, thresholds: np.ndarray, found: Estimate) -> list[dict]:
    """Return the points of a performance profile as data of a chart."""
    ends = (
        [(None, None)] * len(thresholds)
        if found.low is None
        else zip(found.low, found.high, strict=True)
    )
    return [
        {
            "label": label,
            "threshold": rounded(threshold),
            "value": rounded(value),
            "low": rounded(low),
            "high": rounded(high),
        }
        for threshold, value, (low, high) in zip(thresholds, found.value, ends, strict=True)
    ]


def _as_row(found: Estimate) -> dict[str, float | None]:
    return {name: rounded(value) for name, value in found._asdict().items()}
