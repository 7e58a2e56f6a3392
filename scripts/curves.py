"""Keep the learning curves of results folders for the documentation.

    python scripts/curves.py results/CartPole-v1 results/Pendulum-v1

For each environment of the folders, which `agentzoo benchmark` made, it writes a file in
`docs/results/curves`: one line per evaluation, with its mean return. Curves of an algorithm replace
those that are in the file already, and curves of other algorithms stay.
"""

import csv
import sys
from pathlib import Path

from agentzoo.lab import results

KEPT = Path(__file__).parents[1] / "docs" / "results" / "curves"
FIELDS = ("algorithm", "seed", "step", "mean_return")


def rows_of(run):
    """Yield a row for each evaluation of a run, with the one at its end."""
    for one in run.curve:
        returns = one.episodes.returns
        yield run.algorithm, run.seed, one.step, round(sum(returns) / len(returns), 2)
    if not run.curve or run.curve[-1].step < run.steps:
        returns = run.final.returns
        yield run.algorithm, run.seed, run.steps, round(sum(returns) / len(returns), 2)


def main(folders):
    """Write the files."""
    found = {}
    for folder in folders:
        for run in results.read(folder).runs:
            if run.final is not None:
                found.setdefault(run.env, []).extend(rows_of(run))
    for env, rows in found.items():
        path = KEPT / f"{env.replace('/', '--')}.csv"
        new = {row[0] for row in rows}
        if path.exists():
            with path.open(newline="") as file:
                kept = [tuple(row[name] for name in FIELDS) for row in csv.DictReader(file)]
            rows = [row for row in kept if row[0] not in new] + rows
        rows.sort(key=lambda row: (row[0], int(row[1]), int(row[2])))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([FIELDS, *rows])
        print(f"{path}: {', '.join(sorted({row[0] for row in rows}))}")


if __name__ == "__main__":
    main(sys.argv[1:])
