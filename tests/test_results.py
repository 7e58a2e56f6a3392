"""The results folder of a benchmark."""

import csv
import json

import pytest

from agentzoo import ConfigurationError
from agentzoo.lab import results
from tests import synthetic


def test_results_are_read_as_they_were_written(tmp_path):
    runs = [
        synthetic.result(seed=1, changes={"gamma": 0.9}),
        synthetic.result(seed=0),
        synthetic.result("ppo", "ALE/Pong-v5"),
        synthetic.failed("ppo"),
    ]
    read = results.read(synthetic.write(tmp_path / "results", runs, {"seeds": 2}))
    assert read.plan == {"seeds": 2} and read.version and not read.unfinished
    assert read.runs == (runs[2], runs[1], runs[0], runs[3])  # by environment, label and seed


def test_a_run_that_has_not_ended_is_listed(tmp_path):
    synthetic.write(tmp_path, [synthetic.result()])
    begun = results.run_folder(tmp_path, "dqn", "CartPole-v1", 1)
    (begun / "run").mkdir(parents=True)
    assert results.read(tmp_path).unfinished == (begun,)


def test_the_table_has_every_episode(tmp_path):
    run = synthetic.result("dqn", "ALE/Pong-v5", 3)
    home = results.write(tmp_path, run)
    assert home == tmp_path / "dqn" / "ALE--Pong-v5" / "seed_3"
    with open(home / "evaluations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["curve"] * 200 + ["final"] * 100
    assert {int(row["step"]) for row in rows[200:]} == {run.steps}
    returns = [value for point in run.curve for value in point.episodes.returns]
    assert [float(row["return"]) for row in rows] == [*returns, *run.final.returns]
    assert [int(row["episode"]) for row in rows[:12]] == [*range(10), 0, 1]


def spoil(change):
    """Return a function that changes the JSON of a file."""

    def spoil(path):
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return spoil


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("plan.json", lambda path: path.unlink(), "is not a results folder.*agentzoo benchmark"),
        ("plan.json", spoil(lambda data: data.update(format=2)), "format 2, and agentzoo .* 1"),
        ("plan.json", spoil(lambda data: data.pop("plan")), "'plan' is a required property"),
        ("result.json", lambda path: path.write_text("{"), "result.json cannot be read"),
        ("result.json", lambda path: path.write_text("[]"), "result.json has no format"),
        ("result.json", spoil(lambda data: data.update(seed="1")), r"'1' is not.*\['seed'\]"),
        ("result.json", spoil(lambda data: data["final"]["lengths"].pop()), "as many lengths"),
        ("result.json", spoil(lambda data: data["final"]["returns"].append("1")), "not a finite"),
        (
            "result.json",
            spoil(lambda data: data["final"]["returns"].__setitem__(0, float("nan"))),
            "a return is not a finite number",
        ),
        (
            "result.json",
            spoil(lambda data: data["curve"][0]["returns"].__setitem__(0, float("inf"))),
            "a return is not a finite number",
        ),
        (
            "result.json",
            spoil(lambda data: data["curve"][0].update(seconds=float("nan"))),
            "the seconds of an evaluation are not a finite",
        ),
        ("result.json", spoil(lambda data: data.update(seconds=float("nan"))), "the seconds are"),
        ("result.json", spoil(lambda data: data.update(env_kwargs=3)), r"\['env_kwargs'\]"),
        ("result.json", lambda path: path.write_text("[" * 100_000), "cannot be read"),
        (
            "plan.json",
            spoil(lambda data: data["plan"].update(runs=3, seeds=[])),
            r"\['plan'\]\['runs'\]",
        ),
        (
            "plan.json",
            spoil(lambda data: data["plan"].update(runs={"dqn": 3}, seeds=[])),
            r"\['dqn'\]",
        ),
        (
            "plan.json",
            spoil(lambda data: data["plan"].update(runs={}, seeds=["a"])),
            r"'a' is not of type 'integer'.*\['seeds'\]\[0\]",
        ),
        ("result.json", spoil(lambda data: data["final"]["lengths"].append(0.5)), "not an integer"),
        ("result.json", spoil(lambda data: data.update(final=None)), "'finished' has final=None"),
        ("result.json", spoil(lambda data: data.update(seed=7)), "with seed 7.*Move the folder"),
        (
            "result.json",
            spoil(lambda data: data["curve"][3].pop("step")),
            r"'step' is a required.*at \['curve'\]\[3\]",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path, name, damage, message):
    home = results.write(tmp_path, synthetic.result())
    results.write_plan(tmp_path, {})
    damage((tmp_path if name == "plan.json" else home) / name)
    with pytest.raises(ConfigurationError, match=message):
        results.read(tmp_path)
