"""The last sections of a report: failures, versions, machines and methods."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agentzoo.lab.reports.comparison import Comparison, plural
from agentzoo.lab.reports.document import NOTHING, Cell, Code, Details, Section, Table, Text
from agentzoo.lab.results import Result, Results
from agentzoo.lab.statistics import RESAMPLES

_MACHINE = {"cpu": "CPU", "memory_gb": "memory in GB"}  # names of a machine's parts, in words


def sections(results: Results, comparison: Comparison) -> list[Section]:
    """Return the sections."""
    failed = [run for group in comparison.groups.values() for run in group.failed]
    found = [Section("Failed runs", [_failures(failed)])] if failed else []
    return [*found, Section("Versions and machines", _origins(results)), _methods(results)]


def _failures(failed: list[Result]) -> Table:
    rows = [
        [Cell(run.label), Cell(run.env), Cell(str(run.seed)), Cell(run.error or "unknown")]
        for run in failed
    ]
    columns = ("Algorithm", "Environment", "Seed", "Error")
    return Table(columns, rows, texts=("Environment", "Error"))


def _origins(results: Results) -> list[Any]:
    """Return a table with a column for each combination of versions and machine."""
    kinds = Counter(
        json.dumps([dict(run.versions), dict(run.machine)], sort_keys=True) for run in results.runs
    )
    columns, origins = [""], []
    for text, count in kinds.most_common():
        versions, machine = json.loads(text)
        columns.append(plural(count, "run"))
        origins.append(
            {**versions, **{_MACHINE.get(name, name): machine[name] for name in machine}}
        )
    names = list(dict.fromkeys(name for origin in origins for name in origin))
    rows = [
        [Cell(name), *(Cell(str(origin.get(name, NOTHING))) for origin in origins)]
        for name in names
    ]
    plan = json.dumps(_without_hyperparameters(results.plan), indent=1)
    return [Table(columns, rows), Details("The plan of the benchmark", [Code(plan)])]


def _without_hyperparameters(plan: Any) -> Any:
    """Return a plan without the hyperparameters, which the sections of environments show."""
    if not isinstance(plan, Mapping):
        return plan
    return {
        name: _without_hyperparameters(value)
        for name, value in plan.items()
        if name != "hyperparameters"
    }


def _methods(results: Results) -> Section:
    finished = [run for run in results.runs if run.final is not None]
    episodes = sorted({len(run.final.returns) for run in finished if run.final})
    points = sorted({len(run.curve) for run in finished})
    texts = [
        f"Every run was evaluated {_either(points)} times during training, and in "
        f"{_either(episodes)} fresh episodes afterwards, with the deterministic policy. The score "
        f"of a run is the mean return of the latter. Tables and intervals are about scores of "
        f"runs, and the worst seed is the run with the lowest score. The curves show the "
        f"evaluations during training.",
        f"Intervals are percentile intervals of 95 % from {RESAMPLES:,} bootstrap resamples of the "
        f"runs. Over several environments, runs are resampled within each environment (stratified "
        f"bootstrap). The interquartile mean (IQM) leaves out the lowest and the highest quarter "
        f"of the scores. The rank of an algorithm is the rank of its mean score in each "
        f"environment, averaged over environments; 1 is the best. The probability of improvement "
        f"is the Mann-Whitney statistic, divided by the number of pairs. The methods are those of "
        f"Agarwal et al., “Deep Reinforcement Learning at the Edge of the Statistical Precipice” "
        f"(2021), computed by SciPy.",
    ]
    return Section("Methods", [Text(text) for text in texts])


def _either(numbers: list[int]) -> str:
    """Return a number, or the ends of the numbers."""
    if len(numbers) == 1:
        return f"{numbers[0]:,}"
    return f"{numbers[0]:,} to {numbers[-1]:,}"
