"""Published scores of other libraries beside those of a report."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from agentzoo.lab.reports.comparison import Group, words
from agentzoo.lab.reports.document import (
    NOTHING,
    Cell,
    Links,
    Section,
    Table,
    Text,
    digits_of,
    number,
)
from agentzoo.lab.statistics import Summary

FILE = Path(__file__).parents[1] / "peers.yaml"


class Score(NamedTuple):
    """A published score.

    Attributes:
      env: the environment.
      algorithm: the name of the algorithm's class in agentzoo.
      mean: the mean return.
      spread: what stands behind the plus-minus sign, or None.
      steps: environment steps, or None if they are not stated.
      note: what is different from our runs, or "".
    """

    env: str
    algorithm: str
    mean: float
    spread: float | None
    steps: int | None
    note: str = ""


class Library(NamedTuple):
    """The published scores of a library.

    Attributes:
      name: the name of the library.
      source: the address of the page with the scores.
      protocol: how they were measured.
      scores: the scores.
    """

    name: str
    source: str
    protocol: str
    scores: tuple[Score, ...]


@functools.cache
def read() -> tuple[Library, ...]:
    """Read the published scores."""
    data = YAML(typ="safe", pure=True).load(FILE.read_text(encoding="utf-8"))
    return tuple(
        Library(
            one["library"],
            one["source"],
            one["protocol"],
            tuple(Score(*score) for score in one["scores"]),
        )
        for one in data
    )


def blocks(
    groups: Sequence[Group],
    summaries: Mapping[str, Summary],
    libraries: Sequence[Library],
) -> list[Any]:
    """Return the published scores of the same algorithms, and a sentence where ours are below."""
    rows, verdicts = [], []
    for group in groups:
        ours, below = summaries[group.label].mean, []
        for library in libraries:
            for score in library.scores:
                if not _is_comparable(group, score):
                    continue
                rows.append(_row(group, ours.value, library, score))
                if ours.value < score.mean:
                    within = ours.high is not None and score.mean <= ours.high
                    remark = f" {score.note}" if score.note else ""
                    remark += ", within our interval" if within else ""
                    below.append(f"{library.name}{remark} ({number(score.mean)})")
        if below:
            verdicts.append(f"{group.label} ({number(ours.value)}) is below {words(below)}.")
    if not rows:
        return []
    verdict = " ".join(verdicts) or "No score here is below a published one."
    columns = ("Algorithm", "Here", "Published", "Steps here", "Steps there", "Library", "Remark")
    return [Table(columns, rows, "Published scores", ("Library", "Remark")), Text(verdict)]


def _is_comparable(group: Group, score: Score) -> bool:
    """Return whether a score is one of the same algorithm in the same environment."""
    ours = group.settings
    return (score.env, score.algorithm) == (group.env, ours.algorithm) and not ours.env_kwargs


def _row(group: Group, ours: float, library: Library, score: Score) -> list[Cell]:
    digits = digits_of(score.mean)
    spread = "" if score.spread is None else f" ± {number(score.spread, digits)}"
    return [
        Cell(group.label),
        Cell(number(ours), best=ours >= score.mean),
        Cell(f"{number(score.mean)}{spread}", best=score.mean >= ours),
        Cell(f"{group.settings.steps:,}"),
        Cell(NOTHING if score.steps is None else f"{score.steps:,}"),
        Cell(library.name),
        Cell(score.note),
    ]


def sources(groups: Sequence[Group], libraries: Sequence[Library]) -> Section | None:
    """Return the section that says where published scores come from, if there are any."""
    scored = [group for group in groups if group.finished]
    used = [
        library
        for library in libraries
        if any(_is_comparable(group, score) for score in library.scores for group in scored)
    ]
    if not used:
        return None
    text = (
        f"Other libraries measure in other ways than this report, so the scores of "
        f"{words([library.name for library in used])} are points of reference, and no ranking."
    )
    links = [(one.name, one.source, " ".join(one.protocol.split())) for one in used]
    return Section("Sources of published scores", [Text(text), Links(links)])
