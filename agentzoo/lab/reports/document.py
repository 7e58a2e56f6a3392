"""What a report consists of, without a format: sections of texts, tables and figures."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentzoo.lab.charts import Chart
from agentzoo.lab.statistics import Estimate

NOTHING = "\N{EN DASH}"  # in a cell without a value


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
      text: the text.
      detail: a smaller text below it, such as an interval.
      best: whether the cell is to stand out.
    """

    text: str
    detail: str = ""
    best: bool = False


class Text(NamedTuple):
    """A paragraph."""

    text: str
    kind: str = "text"


class Table(NamedTuple):
    """A table. The first column names the rows.

    Attributes:
      columns: the titles of the columns.
      rows: the cells.
      title: the title.
      texts: the titles of further columns that hold words, which begin at the left.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    texts: Sequence[str] = ()
    kind: str = "table"


class Figure(NamedTuple):
    """A chart.

    Attributes:
      name: the stem of its file.
      title: what it shows.
      chart: the chart of `agentzoo.lab.charts`.
      caption: how to read it.
      over_time: the same data over time, if the reader may switch to it.
      logarithmic: whether the reader may switch to logarithmic axes.
      wide: whether nothing stands beside it.
    """

    name: str
    title: str
    chart: Chart
    caption: str = ""
    over_time: Chart | None = None
    logarithmic: bool = False
    wide: bool = False
    kind: str = "figure"


class Details(NamedTuple):
    """Blocks that the reader may open."""

    title: str
    blocks: Sequence[Any]
    kind: str = "details"


class Links(NamedTuple):
    """A list of sources: a name, an address, and a text for each."""

    links: Sequence[tuple[str, str, str]]
    kind: str = "links"


class Code(NamedTuple):
    """A text that keeps its lines."""

    text: str
    kind: str = "code"


class Video(NamedTuple):
    """A video.

    Attributes:
      caption: what it shows.
      file: its path beside the page.
    """

    caption: str
    file: str


class Videos(NamedTuple):
    """Videos beside each other."""

    videos: Sequence[Video]
    kind: str = "videos"


class Section(NamedTuple):
    """A section of a report.

    Attributes:
      title: the title.
      blocks: texts, tables, figures and so on.
    """

    title: str
    blocks: Sequence[Any]

    @property
    def slug(self) -> str:
        """The title in a form for addresses and names of files."""
        return slug(self.title)


class Document(NamedTuple):
    """A report.

    Attributes:
      title: the title.
      facts: what stands below the title, as pairs of a name and a value.
      notices: what a reader has to know about the comparison, as sentences.
      sections: the sections.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notices: Sequence[str]
    sections: Sequence[Section]


def slug(text: str) -> str:
    """Return a text in a form for addresses and names of files."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def number(value: float, digits: int | None = None) -> str:
    """Return a number as text, with few digits after the point if it is large."""
    text = f"{value:,.{digits_of(value) if digits is None else digits}f}"
    return (
        text.replace("-", "\N{MINUS SIGN}")
        if float(text.replace(",", ""))
        else text.replace("-", "")
    )


def digits_of(value: float) -> int:
    """Return how many digits after the point a number of this size has."""
    return 0 if abs(value) >= 10_000 else 1 if abs(value) >= 10 else 2


def estimate(found: Estimate, digits: int | None = None, best: bool = False) -> Cell:
    """Return an estimate and its interval as a cell."""
    digits = digits_of(found.value) if digits is None else digits
    if found.low is None:
        return Cell(number(found.value, digits), best=best)
    interval = f"[{number(found.low, digits)}, {number(found.high, digits)}]"
    return Cell(number(found.value, digits), interval, best)


def duration(seconds: float) -> str:
    """Return a duration as text, such as "1 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def rounded(value: Any) -> float | None:
    """Return a number for the data of a chart, with six digits."""
    return None if value is None else float(f"{float(value):.6g}")
