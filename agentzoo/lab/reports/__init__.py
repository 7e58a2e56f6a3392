"""Reports about a results folder: a page, and the same as Markdown."""

import importlib
from pathlib import Path

from agentzoo.lab import results as _results
from agentzoo.lab.results import Results
from agentzoo.types import ConfigurationError


def report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    peers: bool = False,
    videos: bool = False,
) -> Path:
    """Write a report about a results folder.

    Args:
      folder: the results folder, which `agentzoo.lab.benchmark` has made.
      out: the folder for the report; None for the folder `report` in the results folder.
      peers: whether published scores of other libraries stand beside ours.
      videos: whether to record the best and the worst episode of each algorithm in each
        environment that renders. The recording loads the saved agents.

    Returns:
      The page, `index.html`. Beside it are `report.md` and its images.

    Raises:
      ConfigurationError: if the folder is not a results folder, has no finished run, mixes settings
        of one algorithm, or if a package is not installed.
    """
    _check_packages()
    from agentzoo.lab.reports import pages

    found = _results.read(folder)
    out = found.folder / "report" if out is None else Path(out)
    document = _document(found, out, peers, videos)
    try:
        page, _ = pages.write(document, out)
    except OSError as error:
        raise ConfigurationError(
            f"The report cannot be written to {out} ({error.strerror}). Choose another folder."
        ) from error
    return page


def _check_packages() -> None:
    for name in ("altair", "jinja2", "scipy", "vl_convert"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"Reports need {name}, which is not installed. Run: pip install 'agentzoo[report]'"
            ) from error


def _document(results: Results, out: Path, with_peers: bool, with_videos: bool):
    from agentzoo.lab.reports import appendix, environments, overall, peers, videos
    from agentzoo.lab.reports.comparison import compare
    from agentzoo.lab.reports.document import Document

    comparison = compare(results)
    libraries = peers.read() if with_peers else ()
    recorded = videos.record(results, comparison, out) if with_videos else {}
    sections = [
        overall.section(comparison),
        *(
            environments.section(comparison, env, libraries, recorded.get(env, ()))
            for env in comparison.envs
        ),
        peers.sources(list(comparison.groups.values()), libraries),
        *appendix.sections(results, comparison),
    ]
    runs = len(results.runs) + len(results.unfinished)
    finished = sum(run.status == "finished" for run in results.runs)
    dates = sorted({run.date for run in results.runs})
    facts = [
        ("Algorithms", str(len(comparison.labels))),
        ("Environments", str(len(comparison.envs))),
        ("Runs", f"{finished} finished of {runs}"),
        ("Date", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"),
        ("agentzoo", results.version),
    ]
    present = [section for section in sections if section is not None]
    return Document("Benchmark of agents", facts, comparison.notices, present)
