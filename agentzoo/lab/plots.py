"""Curves of run folders as a picture."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from agentzoo.lab import charts
from agentzoo.lab.charts import Axis
from agentzoo.lab.results import RUN
from agentzoo.types import ConfigurationError

TABLE = "progress.csv"
METRIC = "rollout/ep_rew_mean"
MOST_POINTS = 2000  # of a curve

_STEP, _SECONDS = "time/total_timesteps", "time/time_elapsed"
_TITLES = {METRIC: "mean return of training episodes"}

XAxis = Literal["steps", "time"]


def plot(
    runs: Sequence[str | Path] | str | Path,
    out: str | Path = "curves.png",
    *,
    x: XAxis = "steps",
    metric: str = METRIC,
) -> Path:
    """Draw curves of one or several runs.

    Args:
      runs: run folders, or their `progress.csv`.
      out: the picture, whose name ends in .png or .svg.
      x: what the horizontal axis shows: environment steps, or seconds.
      metric: a column of `progress.csv`. The part after the last "/" suffices if no other column
        ends like that.

    Returns:
      The picture.

    Raises:
      ConfigurationError: if a folder holds no run, a column does not exist, the picture cannot be
        written, or a package is not installed.
    """
    out = Path(out)
    if out.suffix not in charts.SUFFIXES:
        raise ConfigurationError(
            f"{out} cannot be drawn, because charts are SVG or PNG files. Choose a name that ends "
            f"in {' or '.join(charts.SUFFIXES)}."
        )
    axis = {"steps": charts.STEPS, "time": charts.SECONDS}.get(x)
    if axis is None:
        raise ConfigurationError(f"x={x!r} is no axis. Choose 'steps' or 'time'.")
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise ConfigurationError("There is no run to draw. Name one or several run folders.")
    tables = [_table(Path(path)) for path in paths]
    column = ""
    rows: list[dict[str, Any]] = []
    labels = _labels(tables)
    for label, table in zip(labels, tables, strict=True):
        column, points = _curve(table, metric, axis)
        rows += ({"label": label, **point} for point in charts.thin(points, MOST_POINTS))
    chart = charts.lines(rows, labels, axis, Axis("value", _TITLES.get(column, column)))
    try:
        charts.save(chart, out)
    except OSError as error:
        raise ConfigurationError(
            f"{out} cannot be written ({error.strerror}). Choose another path."
        ) from error
    return out


def _table(path: Path) -> Path:
    """Return the table of a run folder, or of the folder of a run of a benchmark."""
    candidates = [path, path / TABLE, path / RUN / TABLE]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    what = "has no progress.csv" if path.is_dir() else "does not exist"
    raise ConfigurationError(f"{path} {what}, so there is no curve. Name a run folder.")


def _labels(tables: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell the runs apart."""
    folders = [path.absolute().parent for path in tables]
    repeated = [str(folder) for folder, count in Counter(folders).items() if count > 1]
    if repeated:
        raise ConfigurationError(f"The run {repeated[0]} is named twice. Name each run once.")
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def _curve(path: Path, metric: str, x: Axis) -> tuple[str, list[dict[str, float]]]:
    """Return the name of the column of a metric, and the points of its curve."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}). Name the folder of a run of agentzoo."
        ) from error
    column = _find(metric, columns, path)
    points = list(_points(rows, column, x, path))
    if not points:
        raise ConfigurationError(
            f"{path} has no value of {column} yet. Let the run go on, or choose another metric."
        )
    return column, points


def _find(metric: str, columns: Sequence[str], path: Path) -> str:
    if metric in columns:
        return metric
    found = [column for column in columns if column.rpartition("/")[2] == metric]
    if len(found) == 1:
        return found[0]
    several = f"{metric!r} could be {' or '.join(found)}" if found else f"has no column {metric!r}"
    raise ConfigurationError(
        f"{path} {several}. The columns are {', '.join(columns) or 'none'}."
        if not found
        else f"{several} in {path}. Write the whole name."
    )


def _points(
    rows: Sequence[dict[str, Any]], column: str, x: Axis, path: Path
) -> Iterator[dict[str, float]]:
    place = _STEP if x == charts.STEPS else _SECONDS
    for line, row in enumerate(rows, start=2):
        if row.get(column) in ("", None) or row.get(place) in ("", None):
            continue
        try:
            at, value = float(row[place]), float(row[column])
        except ValueError as error:
            raise ConfigurationError(
                f"{path}, line {line}: {column} is no number ({row[column]!r}). Choose another "
                f"metric."
            ) from error
        if math.isfinite(value):
            yield {x.field: at, "value": value}
