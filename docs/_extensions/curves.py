"""Learning curves, drawn from the evaluations that `scripts/curves.py` keeps beside the pages."""

import itertools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from agentzoo.lab import charts

DOCS = Path(__file__).parents[1]
KEPT = DOCS / "results" / "curves"
DRAWN = DOCS / "_build" / "curves"
RETURN = charts.Axis("mean", "mean return")


class LearningCurves(SphinxDirective):
    """The curves of one environment, of all algorithms or of those that are named.

    The arguments are the environment, and algorithms. With the option `commands`, the commands that
    trained the agents stand below.
    """

    required_arguments = 1
    optional_arguments = 10
    option_spec: ClassVar = {"height": directives.nonnegative_int, "commands": directives.flag}

    def run(self):
        """Draw the curves, and return the picture."""
        env, *algorithms = self.arguments
        path = KEPT / f"{env.replace('/', '--')}.json"
        self.env.note_dependency(str(path))
        self.env.note_dependency(__file__)
        kept = json.loads(path.read_text())
        runs = {name: kept[name] for name in algorithms or kept}
        picture = DRAWN / f"{'_'.join(self.arguments).replace('/', '--')}.svg"
        draw(runs, picture, self.options.get("height", 260))
        numbers = sorted({len(each["seeds"]) for each in runs.values()})
        what = f"{env}: mean and range of {' or '.join(map(str, numbers))} seeds"
        uri = f"/{picture.relative_to(DOCS).as_posix()}"
        image = nodes.image("", uri=uri, alt=f"Learning curves in {what}", classes=["curves"])
        found = [nodes.figure("", image, nodes.caption("", f"{what}."))]
        if "commands" in self.options:
            text = "\n".join(f"$ {each['command']}" for each in runs.values())
            found.append(nodes.literal_block(text, text, language="console"))
        return found


def draw(runs, picture, height):
    """Write the curves of algorithms as a picture."""
    labels = list(runs)
    rows = [row for label in labels for row in curve(label, runs[label]["seeds"].values())]
    charts.save(charts.lines(rows, labels, charts.STEPS, RETURN, height), picture, width=600)


def curve(label, seeds):
    """Yield the points of an algorithm: the mean, the lowest and the highest of its seeds."""
    by_step = {}
    for step, value in itertools.chain.from_iterable(seeds):
        by_step.setdefault(step, []).append(value)
    for step, found in sorted(by_step.items()):
        low, high = min(found), max(found)
        yield {
            "label": label,
            "step": step,
            "mean": float(np.mean(found)),
            "low": low,
            "high": high,
        }


def setup(app):
    """Register the directive."""
    app.add_directive("learning-curves", LearningCurves)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
