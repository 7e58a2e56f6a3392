"""Runs that are interrupted and resumed end as if they had never been interrupted."""

import contextlib
import csv
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError, callbacks, checkpoint
from agentzoo.cli import main
from agentzoo.envs import is_custom, make_env
from agentzoo.training import Lock
from agentzoo.training import folder as folders
from tests.agents import CATCH, SETTINGS, arrays, make
from tests.test_logging import points

TIMES = {"time/fps", "time/time_elapsed"}
SHORT = dict(log_interval=48, progress_bar=False)


def log(folder):
    """The rows of a CSV log as text, without what depends on the clock."""
    with open(folder / "progress.csv", newline="") as file:
        return [
            {tag: value for tag, value in row.items() if tag not in TIMES}
            for row in csv.DictReader(file)
        ]


def curves(folder):
    return {tag: found for tag, found in points(folder).items() if tag not in TIMES}


def assert_same_run(a, b):
    """Check that two agents and their run folders are equal to the bit, apart from times."""
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)
    assert a.session.episodes.to_json() == b.session.episodes.to_json()
    assert a.session.predictions == b.session.predictions
    assert log(a.run_dir) == log(b.run_dir)
    assert curves(a.run_dir) == curves(b.run_dir)
    texts = [checkpoint.read_manifest(folder / "model") for folder in (a.run_dir, b.run_dir)]
    assert texts[0]["callbacks"] == texts[1]["callbacks"]


class Failure(Exception):
    """What the callbacks of these tests raise."""


class Fails(callbacks.BaseCallback):
    """Writes to the log, and raises in the first training cycle that ends at a step or later."""

    def __init__(self, step=None):
        super().__init__()
        self.step = step

    def next_step(self, step):
        return step + 1  # in every training cycle, so that the number of calls is always the same

    def _on_step(self):
        self.logger.record_mean("mine/calls", self.num_timesteps)
        if self.step is not None and self.num_timesteps >= self.step:
            raise Failure


def watching(step=None, env=CATCH):
    """Callbacks that count, remember, and write to the log, and one that may fail."""
    evaluation = callbacks.EvalCallback(
        env,
        eval_freq=64,
        n_eval_episodes=1,
        verbose=0,
        callback_after_eval=callbacks.StopTrainingOnNoModelImprovement(100),
    )
    stop = callbacks.StopTrainingOnMaxEpisodes(1_000)
    return [evaluation, callbacks.LogEveryNTimesteps(32), Fails(step), stop]


def interrupted(agent, total, step):
    with pytest.raises(Failure):
        agent.learn(total, watching(step), **SHORT)
    return agent


# every agent


SLOW = {"QRDQN", "SAC", "MPO", "IMPALA"}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SETTINGS]


@pytest.mark.parametrize("runner", ["host", "device"])
@pytest.mark.parametrize("algorithm", EACH)
def test_an_interrupted_run_ends_as_if_it_had_not_been(algorithm, runner, tmp_path):
    options = dict(runner=runner, n_envs=2)
    whole = make(algorithm, CATCH, run_dir=tmp_path / "whole", **options)
    whole.learn(320, watching(), **SHORT)
    interrupted(make(algorithm, CATCH, run_dir=tmp_path / "cut", **options), 320, 100)
    with pytest.raises(Failure):  # a second time, and in the cycle that was not finished
        agentzoo.resume(tmp_path / "cut", callback=watching(90))
    with pytest.raises(Failure):
        agentzoo.resume(tmp_path / "cut", callback=watching(250))
    resumed = agentzoo.resume(tmp_path / "cut", callback=watching())
    assert resumed.num_timesteps == whole.num_timesteps and type(resumed) is type(whole)
    assert_same_run(whole, resumed)


# where a run goes on


@pytest.fixture
def cut(tmp_path):
    """The folder of a run of 320 steps that was interrupted after about 100."""
    interrupted(make("DQN", CATCH, run_dir=tmp_path / "cut"), 320, 100)
    return tmp_path / "cut"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return make("DQN", CATCH, run_dir=folder).learn(320, watching(), **SHORT)


def test_rows_that_the_checkpoint_does_not_know_are_cut(cut, whole):
    """As after a crash: the log has gone on, and a column was added."""
    with open(cut / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(cut / "progress.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "new"])
        writer.writeheader()
        writer.writerows([*rows, *({**rows[-1], "time/total_timesteps": 10**6, "new": 1},) * 3])
        file.write("17,torn")
    (events,) = cut.glob("events*")
    with open(events, "ab") as file:
        file.write(events.read_bytes() + b"torn")
    (cut / f"{events.stem}.later{events.suffix}").write_bytes(events.read_bytes())
    assert_same_run(whole, agentzoo.resume(cut, callback=watching()))


def test_a_crash_after_the_checkpoint_changes_nothing(cut, whole):
    """The model of an interrupted run may be lost, or be older or newer than the checkpoint."""
    (cut / "model.safetensors").unlink()
    (cut / "checkpoints" / ".step.0123abcd").touch()
    assert_same_run(whole, agentzoo.resume(cut, callback=watching()))


DIES = """
import os, sys
from agentzoo.training import trainer
from tests.test_resume import SHORT, make, watching

method, algorithm, runner = sys.argv[1:]
write = getattr(trainer.Trainer, method)


def die(self, *arguments, **options):
    if method == "_write_checkpoint":
        write(self, *arguments, **options)
        self.checkpoints.close()
    if self.has_finished:
        os._exit(7)


setattr(trainer.Trainer, method, die)
make(algorithm, {env!r}, runner=runner, run_dir="cut").learn(320, watching(), **SHORT)
"""


@pytest.mark.parametrize(
    ("method", "algorithm", "runner"),
    [("_write_checkpoint", "DQN", "host"), ("save", "PPO", "device"), ("save", "DQN", "host")],
)
def test_a_process_may_die_when_the_last_checkpoint_is_written(method, algorithm, runner, tmp_path):
    """The last checkpoint says that the run has ended, but the log or the model is missing."""
    script = [sys.executable, "-c", DIES.format(env=CATCH), method, algorithm, runner]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert not Path("cut/model.safetensors").exists()
    whole = make(algorithm, CATCH, runner=runner, run_dir="whole")
    whole.learn(320, watching(), **SHORT)
    assert_same_run(whole, agentzoo.resume("cut", callback=watching()))


def test_the_model_stands_in_for_lost_checkpoints(cut, whole):
    for path in (cut / "checkpoints").iterdir():
        path.unlink()
    assert_same_run(whole, agentzoo.resume(cut, callback=watching()))


def test_a_run_without_a_state_starts_anew(cut, whole):
    for path in [*(cut / "checkpoints").iterdir(), cut / "model.safetensors"]:
        path.unlink()
    assert_same_run(whole, agentzoo.resume(cut, callback=watching()))


def test_a_model_without_a_plan_says_so(cut, whole):
    for path in (cut / "checkpoints").iterdir():
        path.unlink()
    make("DQN", CATCH).save(cut / "model")
    with pytest.raises(ConfigurationError, match=r"does not say how its run continues.*load\("):
        agentzoo.resume(cut)


def test_checkpoints_change_nothing(whole, tmp_path):
    a = make("DQN", CATCH, run_dir=tmp_path / "run")
    a.learn(320, watching(), checkpoint_freq=10, keep=3, **SHORT)
    assert_same_run(whole, a)
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    # A checkpoint is left out while the one before is being written.
    assert len(kept) <= 4 and kept[-1].name == "step_000000320.safetensors"


def test_a_finished_run_is_loaded(whole, capsys):
    loaded = agentzoo.resume(whole.run_dir)
    assert "already finished" in capsys.readouterr().err
    for x, y in zip(arrays(whole), arrays(loaded), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_that_a_callback_ended_has_finished(tmp_path, capsys):
    stop = callbacks.StopTrainingOnMaxEpisodes(3)
    a = make("DQN", CATCH, run_dir=tmp_path / "run").learn(10_000, stop, **SHORT)
    assert agentzoo.resume(tmp_path / "run").num_timesteps == a.num_timesteps < 100
    assert "already finished" in capsys.readouterr().err


def test_limits_of_callbacks_apply_to_the_whole_run(tmp_path):
    def limited(step=None):
        return [callbacks.StopTrainingOnMaxEpisodes(20), Fails(step)]

    whole = make("DQN", CATCH, run_dir=tmp_path / "whole").learn(10_000, limited(), **SHORT)
    with pytest.raises(Failure):
        make("DQN", CATCH, run_dir=tmp_path / "cut").learn(10_000, limited(100), **SHORT)
    assert_same_run(whole, agentzoo.resume(tmp_path / "cut", callback=limited()))


def test_other_callbacks_begin_anew_with_a_warning(cut):
    with pytest.warns(RuntimeWarning, match="but .Fails. were passed. Pass the same") as caught:
        agentzoo.resume(cut, callback=Fails())
    assert caught[0].filename == __file__


def test_a_state_that_is_no_json_is_refused_at_once(tmp_path):
    class Odd(callbacks.BaseCallback):
        def state(self):
            return {"odd": object()}

    with pytest.raises(ConfigurationError, match="not plain JSON"):
        make("DQN", CATCH, run_dir=tmp_path / "run").learn(64, Odd(), **SHORT)


# folders


def test_a_folder_that_holds_a_run_is_refused(whole):
    with pytest.raises(ConfigurationError, match=r"holds a run already.*agentzoo\.resume"):
        make("DQN", CATCH, run_dir=whole.run_dir).learn(64, **SHORT)
    with pytest.raises(ConfigurationError, match="are both given"):
        make("DQN", CATCH, run_dir="a", log_dir="b")
    with pytest.raises(FileNotFoundError, match="There is no run in the folder nowhere"):
        agentzoo.resume("nowhere")


def test_only_one_agent_trains_in_a_folder(cut):
    code = "import sys; from pathlib import Path; from agentzoo.training import Lock\n"
    code += "lock = Lock(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with subprocess.Popen([sys.executable, "-c", code, str(cut)], **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ConfigurationError, match="Another agent is training in"):
            agentzoo.resume(cut)
        process.kill()
    lock = Lock(cut)
    with pytest.raises(ConfigurationError, match="Another agent is training in"):
        agentzoo.resume(cut)
    lock.release()
    agentzoo.resume(cut, callback=watching())


def test_links_out_of_the_folder_are_not_followed(cut, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name in ("progress.csv", "config.json", "model.safetensors"):
        kept = (cut / name).read_bytes()
        (cut / name).unlink()
        (cut / name).symlink_to(secret)
        with pytest.raises(ConfigurationError, match="is a symbolic link"):
            agentzoo.resume(cut)
        (cut / name).unlink()
        (cut / name).write_bytes(kept)
    assert secret.read_text() == "secret"


def test_nothing_is_imported_because_a_file_says_so(cut):
    path = cut / "config.json"
    for file in [*(cut / "checkpoints").iterdir(), cut / "model.safetensors"]:
        file.unlink()
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "env_id": "antigravity:Catch-v0"}))
    with pytest.raises(ConfigurationError, match="needs a module"):
        agentzoo.resume(cut)
    assert "antigravity" not in sys.modules
    path.write_text(json.dumps({**record, "algorithm": "antigravity:Catch", "module": None}))
    with pytest.raises(ConfigurationError, match="no class, but of 'antigravity:Catch'"):
        agentzoo.resume(cut)
    assert "antigravity" not in sys.modules
    path.write_text(json.dumps({**record, "env_id": None}))
    with pytest.raises(ConfigurationError, match=r"without an id\. Pass the environment"):
        agentzoo.resume(cut)
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="no run that can be continued"):
        agentzoo.resume(cut)


def test_an_interrupted_run_is_loaded_from_its_newest_checkpoint(cut):
    (cut / "model.safetensors").unlink()
    assert (
        agentzoo.load(cut).num_timesteps == agentzoo.load(cut / "checkpoints").num_timesteps >= 100
    )


# arguments of `resume`


def test_an_environment_that_the_user_made_is_passed_again(tmp_path):
    class Scaled(gym.RewardWrapper):
        def reward(self, reward):
            return 2.0 * reward

    def custom():
        return Scaled(gym.make(CATCH))

    for number, (env, is_users) in enumerate(
        [(custom, True), (custom(), True), (gym.make(CATCH), False), (CATCH, False)]
    ):
        folder = tmp_path / str(number)
        with pytest.raises(Failure):
            make("DQN", env, run_dir=folder).learn(160, Fails(60), **SHORT)
        if is_users:
            with pytest.raises(ConfigurationError, match="you made yourself"):
                agentzoo.resume(folder)
        again = custom() if is_users else None
        agent = agentzoo.resume(folder, again, Fails())
        assert agent.num_timesteps == 160 and max(agent.session.episodes.rewards) == 1 + is_users


def test_the_environments_that_can_be_made_from_a_record():
    def wrapped():
        return gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 10)

    vector = gym.make_vec("CartPole-v1", 2)
    for env in (wrapped, wrapped(), vector, lambda: gym.make(CATCH), gym.make):
        assert is_custom(env)
    cart_pole = gym.make("CartPole-v1", max_episode_steps=10, disable_env_checker=True)
    for env in ("CartPole-v1", cart_pole, functools.partial(make_env, "CartPole-v1")):
        assert not is_custom(env)


def test_hyperparameters_of_a_run_cannot_be_changed(cut):
    for changes, message in [
        (dict(batch_size=16), "batch_size=16 differs from the run's batch_size=8. Leave it out"),
        (dict(net_arch=(32,)), r"differs from the run's net_arch=\(16,\)\. Leave it out"),
        (dict(total_timesteps=9), "resume has no argument 'total_timesteps'. Its arguments are"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            agentzoo.resume(cut, **changes)
    agentzoo.resume(cut, callback=watching(), batch_size=8, net_arch=(16,))


def test_functions_of_a_run_are_passed_again(tmp_path):
    def schedule(remaining):
        return 1e-3 * remaining

    with pytest.raises(Failure):
        agent = make("DQN", CATCH, run_dir=tmp_path / "run", learning_rate=schedule)
        agent.learn(160, Fails(60), **SHORT)
    with pytest.raises(ConfigurationError, match=r"Pass it: agentzoo\.resume\(.*, learning_rate="):
        agentzoo.resume(tmp_path / "run")
    agentzoo.resume(tmp_path / "run", callback=Fails(), learning_rate=schedule)


@pytest.mark.parametrize("is_list", [False, True])
def test_a_callback_is_a_list_of_one(is_list, tmp_path):
    whole, first, second = Fails(), Fails(60), Fails()
    make("DQN", CATCH).learn(160, whole, **SHORT)
    with pytest.raises(Failure):
        callback = [first] if is_list else first
        make("DQN", CATCH, run_dir=tmp_path / "run").learn(160, callback, **SHORT)
    agentzoo.resume(tmp_path / "run", callback=second if is_list else [second])
    assert second.n_calls == whole.n_calls


def test_what_makes_no_difference_to_learning_can_change(cut, whole):
    changes = dict(env_timeout=5, on_env_error="restart", checkpoint_freq=10, keep=5)
    resumed = agentzoo.resume(cut, callback=watching(), **changes)
    for x, y in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(x, y)
    plan = checkpoint.read_manifest(cut)["plan"]
    placement = plan.pop("placement")
    assert {**plan, **placement}.items() >= changes.items()


def test_a_finished_run_is_trained_longer_in_its_folder(tmp_path):
    def begin(name):
        return make("DQN", CATCH, run_dir=tmp_path / name).learn(160, Fails(), **SHORT)

    longer = dict(reset_num_timesteps=False, **SHORT)
    a = begin("a").learn(160, Fails(), **longer)
    begin("b")
    b = agentzoo.resume(tmp_path / "b")
    rows = log(tmp_path / "b")
    assert b.run_dir == tmp_path / "b" and rows == log(b.run_dir)
    b.learn(160, Fails(), **longer)
    assert_same_run(a, b)
    assert b.num_timesteps == 320 and len(log(b.run_dir)) > len(rows)
    assert agentzoo.resume(tmp_path / "b").learn(48, **SHORT).run_dir is None  # a new run


def test_what_is_said_about_a_resumed_run(cut, capsys):
    with pytest.raises(Failure):
        agentzoo.resume(cut, callback=watching(200))
    assert re.search(r"Resuming the run in .*cut at step \d+ of 320\.", capsys.readouterr().err)
    for path in [*(cut / "checkpoints").iterdir(), cut / "model.safetensors"]:
        path.unlink()
    for load in (agentzoo.load, lambda path: main(["eval", str(path)])):
        with pytest.raises((FileNotFoundError, SystemExit)) as error:
            load(cut)
        text = str(error.value) if load is agentzoo.load else capsys.readouterr().err
        assert "has no checkpoint yet. Resume it with agentzoo.resume(" in text
    agentzoo.resume(cut, callback=watching())
    assert "has no checkpoint yet, so it starts again from step 0." in capsys.readouterr().err


# the command line

COMMAND = "train dqn --env agentzoo/Catch-v0 --eval-episodes 0 --net-arch 16 --batch-size 8"
COMMAND += " --buffer-size 1000 --learning-starts 24 --run-dir run --resume --checkpoint-freq 500"


def start(*more, **options):
    """A process that runs the command."""
    root = str(Path(agentzoo.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "agentzoo", *COMMAND.split(), *more],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def steps_of(folder):
    return [int(path.stem[5:]) for path in (folder / "checkpoints").glob("step_*.safetensors")]


@pytest.mark.slow
def test_the_same_command_again_and_again(tmp_path, capsys):
    """The process is killed, then terminated, and the third one comes to the end."""
    folder = tmp_path / "run"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        before = max(steps_of(folder), default=0)
        with start("--steps", "20000") as process:
            deadline = time.monotonic() + 120
            while max(steps_of(folder), default=0) <= before and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(number)
            sent = time.monotonic()
            _, error = process.communicate(timeout=60)
        assert process.returncode == code and time.monotonic() - sent < 5, error
    assert "the agent is saved in run; resume it with --run-dir run --resume." in error
    main([*COMMAND.split(), "--steps", "20000"])
    resumed = agentzoo.load(folder)
    main([*COMMAND.replace("run-dir run", "run-dir whole").split(), "--steps", "20000"])
    whole = agentzoo.load("whole")
    for x, y in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(x, y)
    assert log(Path("whole")) == log(folder) and curves(Path("whole")) == curves(folder)


def test_what_the_command_line_refuses(capsys):
    short = [*COMMAND.split(), "--steps", "64"]
    Path("run").mkdir()  # an empty folder holds no run
    main(short)
    main([*short, "--on-env-error", "restart", "--env-timeout", "5", "--keep", "1"])
    out = capsys.readouterr()
    assert "already finished" in out.err and out.out.count("Saved in run") == 2
    for arguments, message in [
        ([*short, "--gamma", "0.9"], "was started with --gamma 0.99, not --gamma 0.9. Give"),
        ([*short, "--n-envs", "2"], "--n-envs 1, not --n-envs 2."),
        ([*short[:-1], "128"], "--steps 64, not --steps 128."),
        ([*short, "--learning-rate", "linear:1.0,0.0"], "not --learning-rate linear:1.0,0.0."),
        ([short[0], "qrdqn", *short[2:]], "is one of DQN, not of QRDQN. Give the same"),
        ([part for part in short if part != "--resume"], "Add --resume to resume the run, or"),
        ([part for part in short if part not in ("--run-dir", "run")], "Name it with --run-dir."),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count("\n") == 1


# disks


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
def test_a_run_goes_on_where_nothing_can_be_written(algorithm, tmp_path):
    """As on a full disk: everything under the run folder fails, and works again later."""

    class Unplug(callbacks.BaseCallback):
        def next_step(self, step):
            return step + 1

        def _on_step(self):
            if self.num_timesteps >= 100 and not (tmp_path / "away").exists():
                (tmp_path / "run").rename(tmp_path / "away")
                (tmp_path / "run").touch()

    whole = make(algorithm, CATCH, runner="device").learn(320, **SHORT)
    a = make(algorithm, CATCH, runner="device", run_dir=tmp_path / "run")
    evaluation = callbacks.EvalCallback(
        CATCH, eval_freq=64, n_eval_episodes=1, verbose=0, best_model_save_path=tmp_path / "run",
        log_path=tmp_path / "run",
    )  # fmt: skip
    save = callbacks.CheckpointCallback(64, tmp_path / "run")
    with pytest.warns(RuntimeWarning) as warned:
        a.learn(320, [Unplug(), evaluation, save], checkpoint_freq=48, **SHORT)
    messages = [str(one.message) for one in warned]
    assert len(messages) == 2 and "Training goes on" in messages[0]
    for name in ("progress.csv", "checkpoints", "model.safetensors", "evaluations.npz"):
        assert name in messages[1]
    for x, y in zip(arrays(whole), arrays(a), strict=True):
        np.testing.assert_array_equal(x, y)
    (tmp_path / "run").unlink()
    (tmp_path / "away").rename(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*start without their state")
        resumed = agentzoo.resume(tmp_path / "run")
    for x, y in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_whose_states_are_all_damaged_is_not_begun_anew(tmp_path):
    folder = tmp_path / "run"
    agent = make("DQN", CATCH, runner="device", run_dir=folder)
    with pytest.raises(Failure):
        agent.learn(480, Fails(240), checkpoint_freq=96, **SHORT)
    saved = [folder / "model.safetensors", *(folder / "checkpoints").glob("*.safetensors")]
    assert len(saved) > 1
    for path in saved:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    rows = (folder / "progress.csv").read_text()
    with (
        pytest.warns(RuntimeWarning, match="is damaged"),
        pytest.raises(ConfigurationError, match="No saved state of the run"),
    ):
        agentzoo.resume(folder)
    assert (folder / "progress.csv").read_text() == rows


def broken_off(folder, step, **options):
    """Train a DQN in a folder until a callback raises at a step, and return the agent."""
    agent = make("DQN", CATCH, runner="device", run_dir=folder)
    with pytest.raises(Failure):
        agent.learn(480, Fails(step), checkpoint_freq=96, **{**SHORT, **options})
    return agent


def test_links_in_the_folder_of_checkpoints_are_replaced(tmp_path):
    broken_off(tmp_path / "run", 240)
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    for step in range(241, 500):
        for name in (f"step_{step:09d}.safetensors", f"step_{step:09d}.blocks"):
            path = tmp_path / "run" / "checkpoints" / name
            if not path.exists():
                path.symlink_to(victim)
    (tmp_path / "run" / "model.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agentzoo.resume(tmp_path / "run", callback=Fails())
    assert victim.read_text() == "precious"


def test_a_checkpoint_that_is_newer_than_the_model_is_loaded(tmp_path):
    folder = tmp_path / "run"
    broken_off(folder, 240)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(Failure):
        agentzoo.resume(folder, callback=Fails(400))
    (folder / "model.safetensors").write_bytes(before)  # as if the process had been killed
    assert agentzoo.load(folder).num_timesteps >= 384


def test_a_state_that_is_no_json_later_is_left_out_with_a_warning(tmp_path):
    class Changes(Fails):
        def state(self):
            late = self.num_timesteps >= 192
            return {**super().state(), "best": np.float32(1), "other": object() if late else 1}

    folder = tmp_path / "run"
    agent = make("DQN", CATCH, runner="device", run_dir=folder)
    with pytest.raises(Failure), pytest.warns(UserWarning, match="without it"):
        agent.learn(480, Changes(400), checkpoint_freq=96, **SHORT)
    rows = log(folder)
    agentzoo.resume(folder)
    assert log(folder)[: len(rows) - 1] == rows[:-1]


def test_a_continuation_that_fails_at_once_keeps_the_log(tmp_path):
    class Refuses(callbacks.BaseCallback):
        def _on_training_start(self):
            raise Failure

    folder = tmp_path / "run"
    agent = make("DQN", CATCH, runner="device", run_dir=folder).learn(240, **SHORT)
    rows = log(folder)
    with pytest.raises(Failure):
        agent.learn(240, Refuses(), reset_num_timesteps=False, **SHORT)
    assert agentzoo.resume(folder).num_timesteps == 480
    assert log(folder)[: len(rows)] == rows and len(log(folder)) == 2 * len(rows)


def test_event_files_of_others_stay(tmp_path):
    folder = tmp_path / "run"
    broken_off(folder, 240)
    other = folder / "events.out.tfevents.1700000000.host.1.0"
    other.write_bytes(b"not ours")
    agentzoo.resume(folder, callback=Fails())
    assert other.read_bytes() == b"not ours"


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_envs", 200_000), ("log_dir", "/anywhere"), ("learning_rate", 0.7), ("info_keywords", 5)],
)
def test_a_placement_in_a_file_holds_nothing_else(key, value, cut):
    path = cut / "config.json"
    record = json.loads(path.read_text())
    record["plan"]["placement"][key] = value
    path.write_text(json.dumps(record))
    (cut / "model.safetensors").unlink(missing_ok=True)
    shutil.rmtree(cut / "checkpoints")
    with pytest.raises(ConfigurationError, match=key):
        agentzoo.resume(cut)


def test_a_table_that_cannot_be_read_is_refused(cut):
    (cut / "progress.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        agentzoo.resume(cut)


def exit_like_ray(number, frame):
    sys.exit(number)


exit_like_ray.__module__ = "ray._private.worker"


@pytest.mark.parametrize("handler", [signal.SIG_DFL, exit_like_ray])
def test_sigterm_waits_while_the_agent_is_saved(handler, tmp_path, monkeypatch):
    save = agentzoo.training.Trainer._save
    before = signal.signal(signal.SIGTERM, handler)

    def terminated(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return save(self, *arguments)

    monkeypatch.setattr(agentzoo.training.Trainer, "_save", terminated)
    folder = tmp_path / "run"
    agent = make("DQN", CATCH, runner="device", run_dir=folder)
    try:
        with pytest.raises(SystemExit) as stop:
            agent.learn(240, **SHORT)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143
    assert agentzoo.load(folder).num_timesteps == 240


class Breaks(gym.Wrapper):
    """Raises in the ninth step of episodes that begin far to the right."""

    def reset(self, **arguments):
        obs, info = super().reset(**arguments)
        self.steps, self.is_bad = 0, obs[0] > 0.008
        return obs, info

    def step(self, action):
        self.steps += 1
        if self.is_bad and self.steps == 9:
            raise OSError("no connection")
        return super().step(action)


def test_restarts_of_environments_are_counted_across_interruptions(tmp_path):
    def env():
        return Breaks(gym.make("CartPole-v1"))

    whole, cut = (
        make("DQN", env, on_env_error="restart", run_dir=tmp_path / name) for name in "ab"
    )
    whole.learn(480, [Fails()], **SHORT)
    with pytest.raises(Failure):
        cut.learn(480, [Fails(300)], **SHORT)
    agentzoo.resume(tmp_path / "b", env, [Fails()])
    assert float(log(tmp_path / "a")[-1]["env/restarts"]) > 1
    counts = [[row["env/restarts"] for row in log(tmp_path / name)] for name in "ab"]
    assert counts[0] == counts[1]


def test_two_threads_cannot_take_a_folder_at_once(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    both = threading.Barrier(2)

    def slow(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return open(*arguments)

    monkeypatch.setattr(folders, "open", slow, raising=False)
    taken, errors = [], []

    def take():
        try:
            taken.append(folders.Lock(tmp_path))
        except ConfigurationError as error:
            errors.append(error)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(errors) == 1
    taken[0].release()
