"""`agentzoo report` and `agentzoo plot`, which show what runs have reached."""

from agentzoo import lab
from agentzoo.cli.options import Plot, Report


def report(options: Report) -> None:
    """Make a page about the results of a benchmark, and the same as Markdown."""
    page = lab.report(options.results, options.out, peers=options.peers, videos=options.videos)
    print(f"The report is {page}, and the same as Markdown is {page.with_name('report.md')}")


def plot(options: Plot) -> None:
    """Draw curves of one or several runs as PNG or SVG."""
    print(f"Saved in {lab.plot(options.runs, options.out, x=options.x, metric=options.metric)}")
