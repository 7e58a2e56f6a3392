"""The results folder of a benchmark: one folder per run, with its result as JSON and CSV.

The folder of a run is `<label>/<environment>/seed_<seed>`. It holds `result.json`, the same
evaluations as a table in `evaluations.csv`, and the run folder `run`. The file `plan.json` of the
results folder says what was asked for.
"""

import csv
import dataclasses
import functools
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentzoo import __version__
from agentzoo.logging.files import write_whole
from agentzoo.types import ConfigurationError

FORMAT = 1
PLAN, RESULT, EVALUATIONS, RUN = "plan.json", "result.json", "evaluations.csv", "run"
PROGRESS = ".progress.json"


class Episodes(NamedTuple):
    """Evaluation episodes.

    Attributes:
      returns: the sum of the rewards of each episode.
      lengths: the number of steps of each episode.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]


class Evaluation(NamedTuple):
    """An evaluation during training.

    Attributes:
      step: the environment steps that the agent had learned from.
      seconds: the seconds that training had taken until then.
      episodes: the evaluation episodes.
    """

    step: int
    seconds: float
    episodes: Episodes


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one run.

    Attributes:
      label: the name of the algorithm, or of the variant of it, in the comparison.
      algorithm: the name of the algorithm's class.
      env: the Gymnasium id of the environment.
      seed: the random seed of the run.
      steps: the environment steps of the whole run.
      hyperparameters: all hyperparameters, as `agentzoo.config.to_json` returns them.
      changes: the hyperparameters that the plan set.
      tuned: whether the tuned settings of agentzoo were used.
      n_envs: the number of environments that were stepped at once.
      versions: the versions of the packages, by name.
      machine: the machine: `cpu`, `cores`, `memory_gb`, `device` and `system`.
      seconds: the seconds that training took.
      date: the day on which the run ended, such as "2026-12-01".
      curve: the evaluations during training.
      final: the evaluation episodes after training, or None if the run failed.
      status: whether the run reached its end.
      error: why the run failed, or None.
      env_kwargs: the arguments of the environment.
    """

    label: str
    algorithm: str
    env: str
    seed: int
    steps: int
    hyperparameters: Mapping[str, Any]
    changes: Mapping[str, Any]
    tuned: bool
    n_envs: int
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    seconds: float
    date: str
    curve: tuple[Evaluation, ...]
    final: Episodes | None
    status: Literal["finished", "failed"] = "finished"
    error: str | None = None
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Progress(NamedTuple):
    """A run that has not ended.

    Attributes:
      label: the name of the algorithm in the comparison.
      env: the Gymnasium id of the environment.
      seed: the random seed of the run.
      steps: the environment steps of the whole run.
      curve: the evaluations so far.
    """

    label: str
    env: str
    seed: int
    steps: int
    curve: tuple[Evaluation, ...]


class Results(NamedTuple):
    """The results of a benchmark.

    Attributes:
      folder: the results folder.
      version: the version of agentzoo that began the benchmark.
      plan: what was asked for.
      runs: the results, sorted by environment, label and seed.
      unfinished: the folders of runs that have begun, and have no result yet.
    """

    folder: Path
    version: str
    plan: Mapping[str, Any]
    runs: tuple[Result, ...]
    unfinished: tuple[Path, ...]


def run_folder(folder: Path, label: str, env: str, seed: int) -> Path:
    """Return the folder of a run in a results folder."""
    return folder / label / env.replace("/", "--") / f"seed_{seed}"


def write_plan(folder: Path, plan: Mapping[str, Any], version: str = __version__) -> None:
    """Write what was asked for, which makes a folder a results folder.

    Args:
      folder: the results folder.
      plan: what was asked for.
      version: the version of agentzoo that began the benchmark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / PLAN, {"format": FORMAT, "version": version, "plan": dict(plan)}, indent=1)


def write(folder: Path, result: Result) -> Path:
    """Write the result of a run, all or nothing.

    Args:
      folder: the results folder.
      result: the result.

    Returns:
      The folder of the run.

    Raises:
      OSError: if the files cannot be written.
    """
    home = run_folder(folder, result.label, result.env, result.seed)
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / EVALUATIONS, _as_csv(result))
    _write_json(home / RESULT, _to_json(result))
    return home


def read(folder: str | Path) -> Results:
    """Read a results folder.

    Args:
      folder: the results folder.

    Returns:
      The results. Runs that have not ended are only counted.

    Raises:
      ConfigurationError: if the folder is not a results folder, or a file of it is damaged or has
        the format of another version.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise ConfigurationError(
            f"{folder} is not a results folder, because it has no {PLAN}. Name the folder that "
            f"`agentzoo benchmark --out` made."
        )
    head = _read_json(folder / PLAN, "plan")
    homes = sorted(path for path in folder.glob("*/*/seed_*") if path.is_dir())
    ended = [home for home in homes if (home / RESULT).is_file()]
    runs = sorted(map(read_run, ended), key=lambda run: (run.env, run.label, run.seed))
    unfinished = tuple(home for home in homes if home not in ended)
    return Results(folder, head["version"], head["plan"], tuple(runs), unfinished)


def write_progress(home: Path, progress: Progress) -> None:
    """Write the curve of a run that has not ended into its folder.

    Raises:
      OSError: if the file cannot be written.
    """
    fields = {**progress._asdict(), "curve": _points(progress.curve)}
    _write_json(home / PROGRESS, {"format": FORMAT, **fields})


def read_progress(home: Path) -> Progress | None:
    """Read the curve of a run that has not ended; None if there is none that can be read."""
    try:
        data = _read_json(home / PROGRESS, "progress")
    except ConfigurationError:  # the next evaluation writes the file again
        return None
    fields = {name: data[name] for name in Progress._fields}
    return Progress(**{**fields, "curve": _curve(data["curve"])})


def read_run(home: Path) -> Result:
    """Read the result of one run.

    Args:
      home: the folder of the run.

    Returns:
      The result.

    Raises:
      ConfigurationError: if there is none, or the file is damaged or has the format of another
        version.
    """
    path = home / RESULT
    data = _read_json(path, "result")
    result = _from_json(data)
    place = run_folder(Path(), result.label, result.env, result.seed)
    if not home.absolute().as_posix().endswith(place.as_posix()):
        raise ConfigurationError(
            f"{path} is the result of {result.label} on {result.env} with seed {result.seed}, "
            f"whose folder is {place}. Move the folder back."
        )
    return result


def _to_json(result: Result) -> dict[str, Any]:
    plain = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    final = None if result.final is None else result.final._asdict()
    return {"format": FORMAT, **plain, "curve": _points(result.curve), "final": final}


def _points(curve: Iterable[Evaluation]) -> list[dict[str, Any]]:
    return [
        {"step": point.step, "seconds": point.seconds, **point.episodes._asdict()}
        for point in curve
    ]


def _from_json(data: Mapping[str, Any]) -> Result:
    names = [field.name for field in dataclasses.fields(Result)]
    fields = {name: data[name] for name in names if name in data}
    final = None if data["final"] is None else _episodes(data["final"])
    return Result(**{**fields, "curve": _curve(data["curve"]), "final": final})


def _curve(points: Iterable[Mapping[str, Any]]) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(point["step"], float(point["seconds"]), _episodes(point)) for point in points
    )


def _episodes(part: Mapping[str, Any]) -> Episodes:
    return Episodes(tuple(map(float, part["returns"])), tuple(part["lengths"]))


def _as_csv(result: Result) -> str:
    """Return all evaluation episodes of a run as a table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["phase", "step", "seconds", "episode", "return", "length"])
    for phase, point in _evaluations(result):
        for episode, pair in enumerate(zip(*point.episodes, strict=True)):
            writer.writerow([phase, point.step, point.seconds, episode, *pair])
    return text.getvalue()


def _evaluations(result: Result) -> Iterator[tuple[str, Evaluation]]:
    yield from (("curve", point) for point in result.curve)
    if result.final is not None:
        yield "final", Evaluation(result.steps, result.seconds, result.final)


def _write_json(path: Path, data: Mapping[str, Any], indent: int | None = None) -> None:
    write_whole(path, json.dumps(data, indent=indent) + "\n")


def _read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a file of a results folder, and check its form."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}). Remove the file to run it again, or restore it."
        ) from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        what = "has no format" if found is None else f"has format {found!r}"
        raise ConfigurationError(
            f"{path} {what}, and agentzoo {__version__} reads format {FORMAT}. Read the folder "
            f"with the version of agentzoo that wrote it, or run the benchmark again."
        )
    problem = _problem(data, kind)
    if problem is not None:
        raise ConfigurationError(
            f"{path} is damaged: {problem}. Remove the file to run it again, or restore it."
        )
    return data


def _problem(data: Any, kind: str) -> str | None:
    """Return what is wrong with the content of a file, or None."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(data))
    if error is not None:
        place = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{error.message}{place and ' at ' + place}"
    if kind != "plan":
        parts = [*data["curve"], *([data["final"]] if data.get("final") else [])]
        # A schema takes a hundred times as long for this, and takes NaN for a number.
        if not all(_is_number(value) for part in parts for value in part["returns"]):
            return "a return is not a finite number"
        if not all(_is_number(part["seconds"]) for part in data["curve"]):
            return "the seconds of an evaluation are not a finite number"
        if not all(type(value) is int for part in parts for value in part["lengths"]):
            return "a length is not an integer"
        if any(len(part["returns"]) != len(part["lengths"]) for part in parts):
            return "an evaluation has not as many lengths as returns"
    if kind == "result" and not _is_number(data["seconds"]):
        return "the seconds are not a finite number"
    if kind == "result" and (data["status"] == "finished") != (data["final"] is not None):
        return f"a run that is {data['status']!r} has final={data['final']!r:.20}"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@functools.cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    schema = {"plan": _PLAN, "result": _RESULT, "progress": _PROGRESS}[kind]
    return Draft202012Validator(schema)


def _object(required: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(required), "required": list(required)}


def _types(kind: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: {"type": kind} for name in names}


_COUNT = {"type": "integer", "minimum": 0}
_EPISODES = {
    "returns": {"type": "array", "minItems": 1},
    "lengths": {"type": "array"},
}
_POINTS = {
    "type": "array",
    "items": _object({"step": _COUNT, "seconds": {"type": "number"}, **_EPISODES}),
}
_PROGRESS = _object(
    {
        **_types("string", ("label", "env")),
        **dict.fromkeys(("seed", "steps"), _COUNT),
        "curve": _POINTS,
    }
)
_RUNS = _object(
    {
        "runs": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": {"type": "object"}},
        },
        "seeds": {"type": "array", "items": _COUNT},
    }
)
_PLAN = _object({"version": {"type": "string"}, "plan": {"type": "object"}})
# A plan that another program has written may be of another form.
_PLAN["properties"]["plan"] |= {"if": {"required": ["runs"]}, "then": _RUNS}
_RESULT = _object(
    {
        "status": {"enum": ["finished", "failed"]},
        **_types("string", ("label", "algorithm", "env", "date")),
        **_types("object", ("hyperparameters", "changes", "machine")),
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        **dict.fromkeys(("seed", "steps", "n_envs"), _COUNT),
        "tuned": {"type": "boolean"},
        "seconds": {"type": "number", "minimum": 0},
        "curve": _POINTS,
        "final": {"anyOf": [{"type": "null"}, _object(_EPISODES)]},
        "error": {"type": ["string", "null"]},
    }
)
_RESULT["properties"]["env_kwargs"] = {"type": "object"}  # which need not be there
