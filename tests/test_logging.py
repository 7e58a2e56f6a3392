"""The folder of a run, and what its logs say."""

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import agentzoo
from agentzoo import DQN, ConfigurationError, callbacks, learn_together
from agentzoo.envs import Catch, TimeLimit
from agentzoo.logging import Logger, files, make_folder
from tests import probes
from tests.agents import CATCH, FAST, SETTINGS, cart_pole, make


def rows(folder):
    """The rows of a CSV log, without empty cells."""
    with open(folder / "progress.csv", newline="") as file:
        return [
            {tag: float(value) for tag, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def steps(folder):
    return [int(row["time/total_timesteps"]) for row in rows(folder)]


def points(folder):
    """What TensorBoard reads in a folder: for each tag, steps and values in order."""
    found = defaultdict(list)
    for path in sorted(folder.glob("*tfevents*")):
        data, start = path.read_bytes(), 0
        while start < len(data):  # a record is its length, a checksum, an event, and a checksum
            (length,) = struct.unpack_from("<Q", data, start)
            event = Event.FromString(data[start + 12 : start + 12 + length])
            start += length + 16
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag].append((event.step, value.simple_value))
    return found


def assert_one_entry_per_step(folder):
    """Also that both logs say the same."""
    table = rows(folder)
    assert steps(folder) == sorted(set(steps(folder)))
    expected = {tag for row in table for tag in row} - {"time/total_timesteps"}
    assert points(folder).keys() == expected
    for tag, found in points(folder).items():
        wanted = [(row["time/total_timesteps"], row[tag]) for row in table if tag in row]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=tag)


# entries


def test_tags_csv_and_config_of_a_run(tmp_path):
    a = cart_pole(log_dir=tmp_path)
    evaluation = callbacks.EvalCallback("CartPole-v1", eval_freq=200, n_eval_episodes=2, verbose=0)
    a.learn(400, progress_bar=False, log_interval=100, callback=evaluation)
    folder = tmp_path / "DQN_CartPole-v1_1"
    table = rows(folder)
    tags = {
        *("rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/exploration_rate", "time/fps"),
        *("eval/mean_reward", "eval/mean_ep_length"),
        *("train/loss", "train/learning_rate", "train/n_updates"),
    }
    assert tags <= set(table[1])
    assert steps(folder) == [100, 200, 300, 400]
    assert table[1]["rollout/ep_rew_mean"] and table[-1]["train/n_updates"] == 95
    config = json.loads((folder / "config.json").read_text())
    assert (
        config["hyperparameters"]["batch_size"] == 8
        and config["seed"] == 0
        and config["versions"]["jax"] == jax.__version__
    )
    assert tags <= points(folder).keys()
    a.learn(40, progress_bar=False, reset_num_timesteps=False)
    a.learn(40, progress_bar=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "DQN_CartPole-v1_1",
        "DQN_CartPole-v1_2",
    ]


def test_without_log_dir_nothing_is_written(tmp_path):
    cart_pole().learn(40, progress_bar=False)
    assert list(tmp_path.iterdir()) == []


class Records(callbacks.BaseCallback):
    def _on_step(self):
        self.logger.record("mine/step", self.num_timesteps)


# Algorithm, runner, and the order of the callbacks.
WRITERS = [
    *((algorithm, runner, 1) for algorithm in SETTINGS for runner in ("host", "device")),
    *(("DQN", runner, -1) for runner in ("host", "device")),
]


@pytest.mark.parametrize(("algorithm", "runner", "order"), WRITERS)
def test_a_step_has_one_entry_whoever_writes_it(algorithm, runner, order, tmp_path):
    """The budget is a multiple of `log_interval`, so the last entry is due twice."""
    a = make(algorithm, CATCH, runner=runner, log_dir=tmp_path)
    evaluation = callbacks.EvalCallback(CATCH, eval_freq=64, n_eval_episodes=1, verbose=0)
    several = [
        evaluation,
        callbacks.LogEveryNTimesteps(32),
        Records(),
        callbacks.EveryNTimesteps(1, Records()),
    ]
    a.learn(128, several[::order], log_interval=64, progress_bar=False)
    assert steps(a.run_dir) == [32, 64, 96, 128]
    assert_one_entry_per_step(a.run_dir)
    last = rows(a.run_dir)[-1]
    assert {"eval/mean_reward", "mine/step", "time/fps", "rollout/ep_rew_mean"} <= last.keys()
    assert (
        last == {"time/total_timesteps": 128, **a.logger.values}
        and a.logger.values["mine/step"] == 128
    )


@pytest.mark.parametrize("total", [96, 120])
def test_an_incomplete_interval_has_an_entry_at_the_end(total, tmp_path):
    a = cart_pole(log_dir=tmp_path).learn(total, Records(), log_interval=48, progress_bar=False)
    assert steps(a.run_dir) == sorted({48, 96, total})
    assert_one_entry_per_step(a.run_dir)
    assert a.logger.values["mine/step"] == total


def test_a_step_has_one_entry_where_agents_learn_together(tmp_path):
    agents = [make("DQN", CATCH, seed=seed, log_dir=tmp_path) for seed in range(2)]
    agents.append(DQN(probes.CueReward, log_dir=tmp_path, **SETTINGS["DQN"]))
    for _ in range(2):
        learn_together(agents, 96, log_interval=48, progress_bar=False, reset_num_timesteps=False)
    for a in agents:
        assert steps(a.run_dir) == [48, 96, 144, 192]
        assert_one_entry_per_step(a.run_dir)


def test_runs_of_the_same_second_keep_their_points(tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "time", lambda: 1_700_000_000.0)
    a = cart_pole(log_dir=tmp_path)
    for _ in range(4):
        a.learn(40, log_interval=20, progress_bar=False, reset_num_timesteps=False)
    assert steps(a.run_dir) == list(range(20, 180, 20))
    assert_one_entry_per_step(a.run_dir)


class Fails(callbacks.BaseCallback):
    """Ends a run before its first training cycle."""

    def _on_rollout_start(self):
        raise ZeroDivisionError


def test_a_run_that_fails_before_its_first_cycle_adds_nothing(tmp_path):
    a = cart_pole(log_dir=tmp_path).learn(40, progress_bar=False)
    with pytest.raises(ZeroDivisionError):
        a.learn(40, Fails(), progress_bar=False, reset_num_timesteps=False)
    assert steps(a.run_dir) == [40]
    a.learn(40, progress_bar=False, reset_num_timesteps=False)
    assert steps(a.run_dir) == [40, 80]
    assert_one_entry_per_step(a.run_dir)


def test_entries_may_be_written_before_and_after_a_run(tmp_path):
    a = cart_pole(log_dir=tmp_path)
    a.dump_logs()
    a.learn(40, progress_bar=False)
    for name in ("a", "b"):
        a.logger.record(f"test/{name}", 3)
        a.dump_logs()
    (row,) = rows(a.run_dir)
    assert row["test/a"] == row["test/b"] == 3 and row["time/fps"] > 0
    assert_one_entry_per_step(a.run_dir)
    loaded = DQN.load(a.run_dir / "model", "CartPole-v1", log_dir=tmp_path)
    loaded.dump_logs()
    loaded.learn(40, progress_bar=False, reset_num_timesteps=False)
    assert steps(loaded.run_dir) == [80] and loaded.run_dir != a.run_dir


def test_an_entry_grows_until_the_next_one(tmp_path):
    logger = Logger(tmp_path)
    for step, tags in [
        (10, "ab"),
        (10, "b"),
        (20, "a"),
        (20, "c"),
        (20, "cd"),
        (20, ""),
        (30, "a"),
        (30, ""),
        (40, ""),
    ]:
        for tag in tags:
            logger.record(tag, step + len(tags))
        logger.dump(step)
    logger.close()
    expected = [{"a": 12, "b": 11}, {"a": 21, "c": 22, "d": 22}, {"a": 31}]
    assert rows(tmp_path) == [
        {"time/total_timesteps": step, **row}
        for step, row in zip((10, 20, 30), expected, strict=True)
    ]
    assert logger.values == expected[-1]
    assert points(tmp_path)["a"] == [(10, 12), (20, 21), (30, 31)] and points(tmp_path)["d"] == [
        (20, 22)
    ]
    assert (tmp_path / "progress.csv").read_text().splitlines()[0] == "time/total_timesteps,a,b,c,d"


def recorded(tmp_path, tags):
    """A log of two entries, of which the second has a mean that goes on, and its state."""
    logger = Logger(tmp_path)
    logger.write_config({})
    for step in (10, 20):
        for tag in tags:
            logger.record(f"mine/{tag}", step)
        logger.dump(step)
    logger.flush()
    logger.record_mean("mine/mean", 1)
    return logger, json.loads(json.dumps(logger.state()))


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("later", ["a", "ab", "abc"])
def test_a_log_goes_on_where_its_state_ends(later, crash, tmp_path):
    """Entries that came after the state vanish, also if they had brought a new column."""
    logger, state = recorded(tmp_path, "ab")
    before = (tmp_path / "progress.csv").read_bytes()
    for tag in later:
        logger.record(f"mine/{tag}", 7)
    logger.dump(20)
    logger.record_mean("mine/mean", 5)
    logger.dump(30)
    if crash:
        logger.flush()
        with open(tmp_path / "progress.csv", "a") as file:
            file.write("40,torn")
    else:
        logger.close()
    again = Logger(tmp_path)
    again.restore(state)
    assert (tmp_path / "progress.csv").read_bytes() == before
    again.record("mine/a", 8)  # to the latest entry
    again.dump(20)
    again.record_mean("mine/mean", 3)
    again.record_mean("mine/mean", 5)
    again.dump(30)
    again.close()
    assert [list(row.values()) for row in rows(tmp_path)] == [[10, 10, 10], [20, 8, 20, 1], [30, 4]]
    assert points(tmp_path)["mine/a"] == [(10, 10), (20, 20), (20, 8)]
    assert points(tmp_path)["mine/mean"] == [(20, 1), (30, 4)]
    assert again.values == {"mine/mean": 4}


def test_entries_that_cannot_be_written_wait(tmp_path):
    """As on a full disk, or where the folder has vanished."""
    logger, _ = recorded(tmp_path / "run", "a")
    logger.dump(20)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").touch()  # not even the superuser can write here
    with pytest.warns(RuntimeWarning, match=r"progress\.csv could not be written: .*goes on"):
        for step in (30, 40):
            logger.record("mine/a", step)
            logger.dump(step)
        logger.flush()
    assert {"progress.csv", "the TensorBoard files"} == logger.unwritten.keys()
    state = logger.state()
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    logger.record("mine/a", 50)
    logger.dump(50)
    logger.close()
    assert steps(tmp_path / "run") == [20, 30, 40, 50] and not logger.unwritten
    assert points(tmp_path / "run")["mine/a"][-3:] == [(30, 30), (40, 40), (50, 50)]
    again = Logger(tmp_path / "run")
    again.restore(json.loads(json.dumps(state)))
    again.close()
    assert steps(tmp_path / "run")[-2:] == [30, 40]


def test_a_log_is_not_written_through_links(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "run" / "progress.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match=r"progress\.csv is a symbolic link"):
        Logger(tmp_path / "run")
    (tmp_path / "run" / "progress.csv").unlink()
    logger = Logger(tmp_path / "run")
    for name in ("progress.csv", ".progress.csv", "config.json", ".config.json"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "secret")
    logger.write_config({})
    logger.record("mine/a", 1)
    logger.dump(1)
    logger.close()
    assert (tmp_path / "secret").read_text() == "secret"


# folders


BEGIN = """
import sys
from agentzoo import DQN
agent = DQN("CartPole-v1", log_dir="runs", net_arch=(4,), buffer_size=100)
print("ready", flush=True)
sys.stdin.readline()
print(agent.learn(16, progress_bar=False).run_dir)
"""


def test_processes_that_begin_together_have_folders_of_their_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes = [
        subprocess.Popen([sys.executable, "-c", BEGIN], cwd=tmp_path, env=environment, **pipes)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    folders = [Path(process.communicate()[0].strip()) for process in processes]
    assert sorted(folders) == [Path("runs", f"DQN_CartPole-v1_{i}") for i in (1, 2, 3)]
    for folder in folders:
        assert (
            steps(tmp_path / folder) == [16]
            and DQN.load(tmp_path / folder / "model").num_timesteps == 16
        )


def test_threads_that_begin_together_have_folders_of_their_own(tmp_path):
    agents = [DQN(probes.CueReward, log_dir=tmp_path, seed=seed, **FAST) for seed in range(4)]
    together = threading.Barrier(len(agents))

    def learn(a):
        together.wait()
        a.learn(40, log_interval=20, progress_bar=False)

    threads = [threading.Thread(target=learn, args=(a,)) for a in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"DQN_CueReward_{i}" for i in (1, 2, 3, 4)
    ]
    for a in agents:
        assert DQN.load(a.run_dir / "model").seed == a.seed and steps(a.run_dir) == [20, 40]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("DQN", "CartPole-v1"), "DQN_CartPole-v1_1"),
        (("PPO", "ALE/Pong-v5"), "PPO_ALE-Pong-v5_1"),
        (("PPO", "my_module:Goal-v0"), "PPO_my_module-Goal-v0_1"),
        (("SAC", "dm_control/cheetah-run-v0"), "SAC_dm_control-cheetah-run-v0_1"),
        (("DQN", None), "DQN_1"),
        (("DQN", "../../up"), "DQN_..-..-up_1"),
        (("DQN", " a [b]*?\\c\n"), "DQN_a-b-c_1"),
    ],
)
def test_names_of_folders(names, expected, tmp_path):
    assert make_folder(tmp_path / "runs", *names) == tmp_path / "runs" / expected
    assert make_folder(tmp_path / "runs", *names).name == expected.removesuffix("1") + "2"


def test_numbers_of_folders_go_up(tmp_path):
    for name in (
        "DQN_CartPole-v1_7",
        "DQN_CartPole-v1_best",
        "DQN_CartPole-v1_²",
        "DQN_99",
        "PPO_CartPole-v1_50",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "DQN_CartPole-v1_8").touch()  # a file takes its name too
    assert make_folder(tmp_path, "DQN", "CartPole-v1").name == "DQN_CartPole-v1_9"
    assert make_folder(tmp_path, "DQN").name == "DQN_100"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("CartPole-v1", "CartPole-v1"),
        (lambda: gym.make("CartPole-v1"), "CartPole-v1"),
        (lambda: gym.make_vec("CartPole-v1", 2), "CartPole-v1"),
        (lambda: gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2), "CartPole-v1"),
        (CATCH, "agentzoo-Catch-v0"),
        (Catch(), "Catch"),
        (TimeLimit(Catch(), 5), "Catch"),
        (probes.CueReward, "CueReward"),
        (lambda: gym.wrappers.TimeLimit(probes.CueReward(), 5), "CueReward"),
        (lambda: gym.vector.SyncVectorEnv([probes.CueReward] * 2), "CueReward"),
    ],
)
def test_folders_carry_algorithm_and_environment(env, expected, tmp_path):
    a = DQN(env, log_dir=tmp_path, **FAST)
    with pytest.raises(ZeroDivisionError):
        a.learn(8, Fails(), progress_bar=False)
    assert a.run_dir.name == f"DQN_{expected}_1"


def test_a_log_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for log_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(ConfigurationError, match="is a file"):
            cart_pole(log_dir=log_dir).learn(8, progress_bar=False)
