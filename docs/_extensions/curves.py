"""Learning curves, drawn from the evaluations that `scripts/curves.py` keeps beside the pages."""

import csv
import itertools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from tables import console

from agentzoo.lab import charts

DOCS = Path(__file__).parents[1]
KEPT = DOCS / "results" / "curves"
DRAWN = DOCS / "_build" / "curves"
RETURN = charts.Axis("mean", "mean return")
# Curves of long runs, which `benchmarks/curves` keeps: by environment and algorithm.
LONG_RUNS = {"HalfCheetah-v5": {"SAC": "halfcheetah_sac", "MPO": "halfcheetah_mpo"}}


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
        self.env.note_dependency(__file__)
        kept = read(env)
        runs = {name: kept[name] for name in algorithms or kept}
        picture = DRAWN / f"{'_'.join(self.arguments).replace('/', '--')}.svg"
        draw(runs, picture, self.options.get("height", 260))
        number = max(len(each["seeds"]) for each in runs.values())
        what = f"{env}: {f'mean and range of {number} seeds' if number > 1 else 'one seed'}"
        uri = f"/{picture.relative_to(DOCS).as_posix()}"
        image = nodes.image("", uri=uri, alt=f"Learning curves in {what}", classes=["curves"])
        found = [nodes.figure("", image, nodes.caption("", f"{what}."))]
        if "commands" in self.options:
            found.append(console([each["command"] for each in runs.values()]))
        return found


def read(env):
    """Return the curves of an environment: by algorithm, points by seed, and the command."""
    if env not in LONG_RUNS:
        return json.loads((KEPT / f"{env.replace('/', '--')}.json").read_text())
    found = {}
    for algorithm, name in LONG_RUNS[env].items():
        with (DOCS.parent / "benchmarks" / "curves" / f"{name}.csv").open(newline="") as file:
            points = [[int(row["step"]), float(row["evaluation"])] for row in csv.DictReader(file)]
        task = "-".join(reversed(name.split("_")))
        command = f"python benchmarks/parts.py runs/hc {task} --every 20000 --episodes 5"
        found[algorithm] = {"seeds": {"0": points}, "command": command}
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
