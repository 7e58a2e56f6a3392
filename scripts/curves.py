"""Keep the learning curves of results folders for the documentation.

    python scripts/curves.py results

For each environment of the folders, which `agentzoo benchmark` made, it writes a file in
`docs/results/curves`. It holds the mean return of each evaluation, by algorithm and seed, and the
command that trained the agents. Curves of an algorithm replace those that are in the file already,
and curves of other algorithms stay.
"""

import json
import shlex
import sys
from pathlib import Path

from agentzoo.lab import results

KEPT = Path(__file__).parents[1] / "docs" / "results" / "curves"


def curve_of(run):
    """Return the steps and mean returns of the evaluations of a run, the last one included."""
    points = [[each.step, mean(each.episodes.returns)] for each in run.curve]
    if not points or points[-1][0] < run.steps:
        points.append([run.steps, mean(run.final.returns)])
    return points


def mean(returns):
    """Return a mean with two decimals."""
    return round(sum(returns) / len(returns), 2)


def command_of(runs):
    """Return the command that trains the agents of one algorithm again."""
    run = runs[0]
    words = ["agentzoo", "benchmark", "--algos", run.label, "--envs", run.env]
    words += ["--seeds", str(len(runs)), "--steps", str(run.steps)] + ["--tuned"] * run.tuned
    if run.curve:
        words += ["--evaluations", str(len(run.curve))]
        words += ["--eval-episodes", str(len(run.curve[0].episodes.returns))]
    changes = [f"{name}={json.dumps(value)}" for name, value in run.changes.items()]
    return shlex.join([*words, *(["--set", *changes] if changes else [])])


def main(folders):
    """Write the files."""
    found = {}
    for folder in folders:
        for run in results.read(folder).runs:
            if run.final is not None:
                found.setdefault(run.env, {}).setdefault(run.algorithm, []).append(run)
    for env, algorithms in found.items():
        path = KEPT / f"{env.replace('/', '--')}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        for algorithm, runs in algorithms.items():
            kept[algorithm] = {
                "command": command_of(runs),
                "date": max(run.date for run in runs),
                "version": runs[0].versions["agentzoo"],
                "episodes": len(runs[0].curve[0].episodes.returns) if runs[0].curve else None,
                "seeds": {str(run.seed): curve_of(run) for run in runs},
            }
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f'"{name}": {json.dumps(kept[name], separators=(",", ":"))}' for name in sorted(kept)
        ]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{path}: {', '.join(sorted(kept))}")


if __name__ == "__main__":
    main(sys.argv[1:])
