"""A report as a page in HTML, and as Markdown with images."""

import importlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentzoo import __version__
from agentzoo.lab import charts
from agentzoo.lab.reports.document import Document, Figure
from agentzoo.logging.files import write_whole
from agentzoo.types import ConfigurationError

PAGE, MARKDOWN = "index.html", "report.md"
_TEMPLATES = Path(__file__).parent / "templates"


def write(document: Document, folder: Path) -> tuple[Path, Path]:
    """Write a report.

    Args:
      document: the report.
      folder: the folder for the page, the Markdown file and its images.

    Returns:
      The page and the Markdown file.

    Raises:
      ConfigurationError: if a package is not installed.
      OSError: if a file cannot be written.
    """
    page, markdown = to_html(document), to_markdown(document)
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures(document):
        charts.save(figure.chart, folder / f"{figure.name}.svg")
        if figure.over_time is not None:
            charts.save(figure.over_time, folder / f"{figure.name}-time.svg")
    write_whole(folder / MARKDOWN, markdown)
    write_whole(folder / PAGE, page)
    return folder / PAGE, folder / MARKDOWN


def to_html(document: Document) -> str:
    """Return a report as a page that needs no network."""
    environment = _jinja(autoescape=True)
    environment.filters["groups"] = _groups
    safe = importlib.import_module("markupsafe").Markup
    return environment.get_template("page.html").render(
        report=document,
        version=__version__,
        style=safe((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=safe((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        # In a script, this would end the script.
        viewer=safe(charts.viewer().replace("</script", "<\\/script")),
        charts=safe(json.dumps(_specs(document), allow_nan=False).replace("<", "\\u003c")),
    )


def to_markdown(document: Document) -> str:
    """Return a report as Markdown. The images are files beside it."""
    environment = _jinja(autoescape=False)
    environment.filters["markdown"] = _escape
    text = environment.get_template("report.md").render(report=document, version=__version__)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def figures(document: Document) -> Iterator[Figure]:
    """Return the figures of a report."""
    blocks = [block for section in document.sections for block in section.blocks]
    return (block for block in blocks if isinstance(block, Figure))


def _specs(document: Document) -> dict[str, Any]:
    """Return the charts as JSON. Two charts of the same data have it once."""
    specs = {}
    for figure in figures(document):
        specs[figure.name] = {"spec": charts.to_spec(figure.chart)}
        if figure.over_time is not None:
            over_time = charts.to_spec(figure.over_time)
            specs[figure.name]["time"] = {**over_time, "data": None}  # that of `spec`
    return specs


def _groups(blocks: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return consecutive blocks of one kind together."""
    groups = itertools.groupby(blocks, key=lambda block: block.kind)
    return [(kind, list(members)) for kind, members in groups]


def _escape(text: str) -> str:
    """Return a text that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _jinja(autoescape: bool) -> Any:
    try:
        jinja2 = importlib.import_module("jinja2")
    except ImportError as error:
        raise ConfigurationError(
            "Reports need Jinja2, which is not installed. Run: pip install 'agentzoo[report]'"
        ) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
    )
