"""Trackers: what Weights & Biases, MLflow and a user's own class get of a log."""

import csv
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import agentzoo
from agentzoo import DQN, ConfigurationError, learn_together
from agentzoo.cli import main
from agentzoo.logging import Logger, MlflowTracker, Tracker, Tracking, WandbTracker, tracking
from tests.agents import CATCH, FAST

SETTINGS = {**FAST, "seed": 3}
# MLflow and SQLAlchemy warn about parts of each other.
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Own:
    """A tracker that keeps everything, and fails when it is told to."""

    def __init__(self, name="own", fails=()):
        self.name, self.fails = name, set(fails)
        self.runs, self.entries, self.ends = [], [], []

    def start(self, run):
        self._maybe_fail("start")
        self.runs.append(run)
        return run.id or f"id-{len(self.runs)}"

    def log(self, values, step):
        self._maybe_fail("log")
        self.entries.append((step, dict(values)))

    def finish(self, succeeded):
        self._maybe_fail("finish")
        self.ends.append(succeeded)

    def _maybe_fail(self, method):
        if method in self.fails:
            raise OSError("no network")

    def points(self, tag):
        return [(step, values[tag]) for step, values in self.entries if tag in values]


def train(env=CATCH, steps=400, **options):
    agent = DQN(env, **{**SETTINGS, **options})
    return agent.learn(steps, log_interval=100, progress_bar=False)


def table(folder):
    with open(folder / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{tag: value for tag, value in row.items() if value} for row in rows]


def points_of(folder, tag):
    return [
        (int(row["time/total_timesteps"]), float(row[tag])) for row in table(folder) if tag in row
    ]


# the protocol


def test_a_tracker_gets_the_log(tmp_path):
    own = Own()
    agent = train(log_dir=tmp_path, trackers=own)
    assert isinstance(own, Tracker) and own.ends == [True]
    assert own.points("train/loss") == points_of(agent.run_dir, "train/loss") != []
    (run,) = own.runs
    assert (run.name, run.folder, run.id) == ("DQN_agentzoo-Catch-v0_1", agent.run_dir, None)
    about = {"algorithm": "DQN", "env": CATCH, "seed": 3, "total_timesteps": 400, "batch_size": 8}
    assert about.items() <= run.config.items() and "versions/jax" in run.config
    json.dumps(run.config)


def test_without_a_folder_and_in_several_runs():
    own = Own()
    agent = train(trackers=[own])
    agent.learn(200, log_interval=100, progress_bar=False, reset_num_timesteps=False)
    assert [run.id for run in own.runs] == [None, "id-1"]
    assert [step for step, _ in own.points("train/loss")] == [100, 200, 300, 400, 500, 600]
    agent.learn(100, log_interval=100, progress_bar=False)
    assert own.runs[-1].id is None and own.points("train/loss")[-1][0] == 100


def test_values_can_be_left_out_of_a_tracker():
    own, other = Own(), Own("other")

    def record(agent):
        agent.logger.record("mine/step", agent.num_timesteps, exclude="own")
        agent.logger.record("mine/text", "a text")

    agent = DQN(CATCH, trackers=[own, other], **SETTINGS)
    agent.learn(200, record, log_interval=100, progress_bar=False)
    assert own.points("mine/step") == [] and other.points("mine/step") == [(100, 100), (200, 200)]
    assert own.points("mine/text") == [(100, "a text"), (200, "a text")]


def test_agents_that_learn_together(tmp_path):
    trackers = [Own(), Own()]
    agents = [
        DQN(CATCH, trackers=own, log_dir=tmp_path, **{**SETTINGS, "seed": seed})
        for seed, own in enumerate(trackers)
    ]
    learn_together(agents, 200, 100, progress_bar=False)
    for agent, own in zip(agents, trackers, strict=True):
        assert own.points("train/loss") == points_of(agent.run_dir, "train/loss") != []
        assert own.ends == [True] and own.runs[0].config["seed"] == agent.seed


def test_what_is_no_tracker():
    for wrong, message in {
        "tensorboard": "no tracker 'tensorboard'. Choose from 'wandb', 'mlflow'",
        Own: "the class Own, which is not a tracker",
        3: "int, which is not a tracker",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            DQN(CATCH, trackers=wrong, **SETTINGS)


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_package_that_is_missing(name, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'agentzoo\[{package}\]'"):
        DQN(CATCH, trackers=name, **SETTINGS)


# resuming


class Stop(Exception):
    """Interrupts a run after a step, without a checkpoint of the last steps."""


def test_a_resumed_run_goes_on_without_repeating_steps(tmp_path):
    first, second = Own(), Own()
    agent = DQN(CATCH, run_dir=tmp_path / "run", trackers=first, **SETTINGS)
    agent.learn(200, log_interval=100, progress_bar=False)
    # A run that is killed has sent more to trackers than its last checkpoint knows.
    kept = {"own": {"id": "id-1", "step": 300, "tags": ["train/loss"]}}
    (tmp_path / "run" / tracking.FILE).write_text(json.dumps(kept))
    agent = agentzoo.load(tmp_path / "run", CATCH, run_dir=None, trackers=second)
    agent.attach(tmp_path / "run")
    agent.learn(200, log_interval=100, progress_bar=False, reset_num_timesteps=False)
    assert second.runs[0].id == "id-1"
    assert [step for step, _ in second.points("train/loss")] == [400]
    assert [step for step, _ in second.points("time/fps")] == [300, 400]  # not sent before
    losses = [*first.points("train/loss"), *second.points("train/loss")]
    table_ = points_of(tmp_path / "run", "train/loss")
    assert losses == [table_[0], table_[1], table_[3]]
    assert json.loads((tmp_path / "run" / tracking.FILE).read_text())["own"]["step"] == 400


KILLED = """
import os, sys
import agentzoo
from agentzoo import DQN
from tests.agents import CATCH
from tests.test_tracking import SETTINGS, Own

class Written(Own):
    def start(self, run):
        print("start", run.id, flush=True)
        return run.id or "first"

    def log(self, values, step):
        print("log", step, values.get("train/loss"), flush=True)
        if step == int(sys.argv[2]):
            os._exit(9)

folder = sys.argv[1]
options = {"log_interval": 100, "progress_bar": False, "checkpoint_freq": 200}
if os.path.exists(folder):
    agentzoo.resume(folder, trackers=Written())
else:
    DQN(CATCH, run_dir=folder, trackers=Written(), **SETTINGS).learn(800, **options)
"""


def test_a_run_that_was_killed(tmp_path):
    own = Own()
    train(steps=800, trackers=own)

    def run(last):
        arguments = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(last)]
        found = subprocess.run(
            arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
        )
        assert found.returncode == (9 if last else 0), found.stderr
        return [line.split()[1:] for line in found.stdout.splitlines() if line.startswith("log")], (
            found.stdout.split()[1]
        )

    before, first = run(500)
    after, again = run(0)
    assert (first, again) == ("None", "first")
    # What was being sent when the process died is sent again, and nothing else is.
    losses = {int(step): float(loss) for step, loss in [*before[:-1], *after]}
    assert [int(step) for step, _ in before[:-1]] == [100, 200, 300, 400]
    assert [int(step) for step, _ in after] == [500, 600, 700, 800]
    assert losses == dict(own.points("train/loss"))


def test_trackers_given_by_name_are_resumed(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(Own("wandb"))
        return made[-1]

    monkeypatch.setattr(tracking, "MAKERS", {"wandb": make})

    def stop(agent):
        if agent.num_timesteps >= 200:
            raise Stop

    agent = DQN(CATCH, run_dir=tmp_path / "run", trackers="wandb", **SETTINGS)
    with pytest.raises(Stop):
        agent.learn(400, stop, log_interval=100, progress_bar=False)
    assert made[0].ends == [False]
    agentzoo.resume(tmp_path / "run", callback=lambda agent: None)
    assert made[1].runs[0].id == "id-1" and made[1].ends == [True]
    steps = [step for own in made for step, _ in own.points("train/loss")]
    assert steps == [100, 200, 300, 400]


def test_a_tracker_that_is_not_passed_again(tmp_path):
    train(run_dir=tmp_path / "run", trackers=Own())
    agent = agentzoo.resume(tmp_path / "run")
    agent.trainer.log.tracking = Tracking([Own("other")])
    with pytest.warns(RuntimeWarning, match=r"was tracked by own. Pass trackers=\[...\]"):
        agent.learn(100, log_interval=100, progress_bar=False, reset_num_timesteps=False)
    kept = json.loads((tmp_path / "run" / tracking.FILE).read_text())
    assert kept.keys() == {"own", "other"}  # the first can still go on


# failures


def test_a_tracker_that_cannot_begin():
    own = Own(fails=["start"])
    with pytest.warns(RuntimeWarning, match=r"own has failed \(OSError: no network\)") as caught:
        train(trackers=own)
    assert len(caught) == 1 and own.entries == own.ends == []


def test_entries_are_sent_later(monkeypatch):
    own = Own(fails=["log"])

    def recover(agent):
        if agent.num_timesteps == 300:
            own.fails.clear()

    agent = DQN(CATCH, trackers=own, **SETTINGS)
    with pytest.warns(RuntimeWarning, match="sends the entries later") as caught:
        agent.learn(400, recover, log_interval=100, progress_bar=False)
    assert len(caught) == 1  # a second attempt comes after a minute, or at the end
    assert [step for step, _ in own.points("train/loss")] == [100, 200, 300, 400]


def test_a_tracker_that_cannot_end():
    with pytest.warns(RuntimeWarning, match="may be missing"):
        train(trackers=Own(fails=["finish"]))


def test_a_run_that_fails():
    own = Own()

    def fail(agent):
        raise Stop

    with pytest.raises(Stop):
        DQN(CATCH, trackers=own, **SETTINGS).learn(200, fail, progress_bar=False)
    assert own.ends == [False]


def test_a_damaged_record_begins_anew(tmp_path):
    (tmp_path / tracking.FILE).write_text('{"own": [1]}')
    own, log = Own(), Tracking([Own()])
    log = Tracking([own])
    logger = Logger(tmp_path, log)
    log.start(tmp_path, "name", {}, goes_on=True)
    logger.record("a", 1.0)
    logger.dump(1)
    logger.close()
    assert own.runs[0].id is None and own.entries == [(1, {"a": 1.0})]


# Weights & Biases


def records(data):
    """Yield the records of a file of W&B, which is a log of LevelDB after a header of 7 bytes."""
    start, parts = 7, []
    while start + 7 <= len(data):
        left = 32_768 - start % 32_768  # bytes of this block
        if left < 7:
            start += left
            continue
        size, kind = struct.unpack_from("<HB", data, start + 4)  # after the checksum
        parts.append(data[start + 7 : start + 7 + size])
        start += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def wandb_history(folder):
    """Return the entries `(step, values)` in the offline files of W&B, and the ids of runs."""
    from wandb.proto import wandb_internal_pb2

    found, ids = [], set()
    for path in sorted(folder.rglob("*.wandb")):
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = record.history.item
                values = {each.nested_key[0]: json.loads(each.value_json) for each in items}
                found.append((record.history.step.num, values))
    return found, ids


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.setup()  # reads the environment variables, as any earlier run in this process does
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    agent = train(run_dir=tmp_path / "run", steps=200, trackers=WandbTracker(project="p"))
    agent.learn(200, log_interval=100, progress_bar=False, reset_num_timesteps=False)
    history, ids = wandb_history(tmp_path / "run")
    losses = [(step, values["train/loss"]) for step, values in history if "train/loss" in values]
    assert losses == points_of(agent.run_dir, "train/loss")
    assert [step for step, _ in losses] == [100, 200, 300, 400] and len(ids) == 1


def test_wandb_without_a_login(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("NETRC", str(Path.cwd() / "netrc"))
    with pytest.warns(RuntimeWarning, match=r"wandb has failed \(.*the run is not tracked") as all_:
        agent = train(steps=100, trackers=WandbTracker(mode="online"))
    assert len(all_) == 1 and agent.num_timesteps == 100


# MLflow


@quiet
def test_mlflow_in_a_local_database(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = MlflowTracker("experiment", uri, tags={"team": "ours"})
    agent = train(run_dir=tmp_path / "run", steps=200, trackers=tracker)
    first = tracker.run_id

    def record(agent):
        agent.logger.record("mine/text", "a text")
        agent.logger.record("mine/nan", float("nan"))

    agent.learn(200, record, log_interval=100, progress_bar=False, reset_num_timesteps=False)
    assert tracker.run_id == first
    client = mlflow.MlflowClient(uri)
    run = client.get_run(first)
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert {"algorithm": "DQN", "batch_size": "8", "seed": "3"}.items() <= run.data.params.items()
    assert {"team": "ours", "mine/text": "a text"}.items() <= run.data.tags.items()
    history = client.get_metric_history(first, "train/loss")
    assert len(history) == 4
    found = {metric.step: metric.value for metric in history}
    assert found == pytest.approx(dict(points_of(agent.run_dir, "train/loss")))


def test_the_command(monkeypatch, capsys):
    own = Own("mlflow")
    monkeypatch.setattr(tracking, "MAKERS", {"mlflow": lambda: own})
    options = ["--env", CATCH, "--learning-starts", "20", "--net-arch", "8", "--eval-episodes", "0"]
    command = ["train", "dqn", *options, "--steps", "1000", "--run-dir", "run"]
    main([*command, "--track", "mlflow"])
    assert [step for step, _ in own.points("train/loss")] == [1008] and own.ends == [True]
    main([*command, "--track", "mlflow", "--resume"])  # it has finished
    assert len(own.runs) == 1
    with pytest.raises(SystemExit):
        main([*command, "--track", "tensorboard"])
    assert "tensorboard" in capsys.readouterr().err
