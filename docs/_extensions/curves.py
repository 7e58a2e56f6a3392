"""Learning curves, drawn from the evaluations that `scripts/curves.py` keeps beside the pages."""

import csv
import itertools
from pathlib import Path
from typing import ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from agentzoo.lab import charts

KEPT = Path(__file__).parents[1] / "results" / "curves"
DRAWN = Path(__file__).parents[1] / "_build" / "curves"
RETURN = charts.Axis("mean", "mean return")


class LearningCurves(SphinxDirective):
    """The curves of one environment, of all algorithms or of those that are named.

    The arguments are the environment, and algorithms.
    """

    required_arguments = 1
    optional_arguments = 10
    option_spec: ClassVar = {"height": directives.nonnegative_int}

    def run(self):
        """Draw the curves, and return the picture."""
        env, *algorithms = self.arguments
        path = KEPT / f"{env.replace('/', '--')}.csv"
        self.env.note_dependency(str(path))
        runs = read(path, algorithms)
        labels = list(runs)
        chart = charts.lines(
            [row for label in labels for row in curve(label, runs[label])],
            labels,
            charts.STEPS,
            RETURN,
            self.options.get("height", 260),
        )
        picture = DRAWN / f"{'_'.join(self.arguments).replace('/', '--')}.svg"
        charts.save(chart, picture, width=600)
        self.env.note_dependency(str(KEPT.parents[1] / "_extensions" / "curves.py"))
        seeds = max(len(found) for found in runs.values())
        what = f"Learning curves in {env}: mean and range of {seeds} seeds"
        uri = "/" + picture.relative_to(KEPT.parents[1]).as_posix()
        image = nodes.image("", uri=uri, alt=what, width="100%", classes=["curves"])
        node = nodes.figure("", image, nodes.caption("", f"{what}."))
        self.set_source_info(node)
        return [node]


def read(path, algorithms=()):
    """Return the curves of a file: by algorithm and seed, points of a step and a mean return."""
    runs = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if not algorithms or row["algorithm"] in algorithms:
                points = runs.setdefault(row["algorithm"], {}).setdefault(row["seed"], {})
                points[int(row["step"])] = float(row["mean_return"])
    return runs


def curve(label, seeds):
    """Return the points of an algorithm: the mean, the lowest and the highest of its seeds."""
    steps = sorted(set(itertools.chain.from_iterable(seeds.values())))
    for step in steps:
        found = [points[step] for points in seeds.values() if step in points]
        yield {
            "label": label,
            "step": step,
            "mean": float(np.mean(found)),
            "low": min(found),
            "high": max(found),
        }


def setup(app):
    """Register the directive."""
    app.add_directive("learning-curves", LearningCurves)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
