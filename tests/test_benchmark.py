"""Benchmarks: plans, runs in processes, interruptions, and what results folders accept."""

import contextlib
import csv
import dataclasses
import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import agentzoo
from agentzoo import ConfigurationError, lab, settings
from agentzoo.cli import main
from agentzoo.cli.pairs import parse_changes
from agentzoo.lab import benchmarking, results, runs
from agentzoo.lab.agreement import agree
from agentzoo.lab.curve import Curve
from agentzoo.lab.jobs import jobs_of
from agentzoo.lab.plan import Plan, Protocol, Variant, make_plan, read_plan
from agentzoo.lab.scoring import files_for_scores, save_scores, summarize
from agentzoo.settings import Row

ROOT = Path(agentzoo.__file__).parents[1]
LINE, BROKEN, DEADLY, SLOW = (
    f"tests.lab_module:Lab{name}-v0" for name in ("Line", "Broken", "Deadly", "Slow")
)
QUICK = {"evaluations": 4, "eval_episodes": 2, "final_episodes": 6}
SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 20, "train_freq": 4}
OPTIONS = {**QUICK, "hyperparameters": SMALL, "verbose": False}


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def outcome(run):
    """Everything of a result that must not depend on time."""
    data = results._to_json(run)
    for name in ("seconds", "date", "machine"):
        del data[name]
    return {**data, "curve": [{**point, "seconds": 0} for point in data["curve"]]}


# plans


def test_a_plan_from_arguments():
    plan = make_plan(["dqn", "tests.lab_module:MyDQN", agentzoo.PPO], "CartPole-v1", steps=1e3)
    assert plan.variants == (
        Variant("dqn", "dqn"),
        Variant("mydqn", "tests.lab_module:MyDQN"),
        Variant("ppo", "ppo"),
    )
    assert (plan.envs, plan.seeds, plan.steps) == (("CartPole-v1",), 5, 1_000)
    labels = make_plan({"fast": {"algorithm": "dqn", "set": {"gamma": 0.9}}, "ppo": None}, ["x"])
    assert labels.variants == (Variant("fast", "dqn", {"gamma": 0.9}), Variant("ppo", "ppo"))


PLAN = """
    algos:
      dqn:
      fast: {algorithm: dqn, set: {learning_rate: {linear: [1e-2, 0]}}}
    envs: [agentzoo/CartPole-v0]
    seeds: 2
    steps: 1e3
    tuned: true
    set: {batch_size: 16}
    eval_episodes: 3
"""


def test_a_plan_from_a_file(tmp_path):
    (tmp_path / "plan.yaml").write_text(textwrap.dedent(PLAN))
    plan = read_plan(tmp_path / "plan.yaml")
    assert plan._replace(places={}) == Plan(
        variants=(
            Variant("dqn", "dqn"),
            Variant("fast", "dqn", {"learning_rate": agentzoo.Linear(1e-2, 0)}),
        ),
        envs=("agentzoo/CartPole-v0",),
        seeds=2,
        steps=1_000,
        tuned=True,
        changes={"batch_size": 16},
        protocol=Protocol(20, 3, 100),
    )
    jobs = jobs_of(plan)
    assert [(job.label, job.seed) for job in jobs] == [
        (x, n) for n in (0, 1) for x in ("dqn", "fast")
    ]
    slow, fast = jobs[0], jobs[1]
    assert slow.hyperparameters["train_freq"] == fast.hyperparameters["train_freq"] == 256  # tuned
    assert slow.hyperparameters["batch_size"] == fast.hyperparameters["batch_size"] == 16
    assert slow.hyperparameters["learning_rate"] == 2.3e-3
    assert fast.hyperparameters["learning_rate"] == {"linear": [1e-2, 0]}
    assert slow.changes == {"batch_size": 16} and slow.compiled and slow.tuned is not None


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("seeds: 2", "seds: 2", 6, "no entry 'seds'. Did you mean 'seeds'?"),
        ("seeds: 2", "seeds: 0", 6, "seeds=0 is out of range"),
        ("seeds: 2", "seeds: two", 6, "seeds='two' has the wrong type"),
        ("tuned: true", "tuned: maybe", 8, "tuned='maybe' is neither true nor false"),
        ("{batch_size: 16}", "[1]", 9, "is no mapping"),
        ("{batch_size: 16}", "{gamma: {lin: 3}}", 9, "is no schedule"),
        ("set: {learning_rate", "sett: {learning_rate", 2, "'fast' has no entry 'sett'"),
        ("  fast:", "  ../fast:", 2, "'../fast' cannot be the name of a folder"),
        ("[agentzoo/CartPole-v0]", "[]", 5, "envs is empty"),
        ("[agentzoo/CartPole-v0]", "[a, a]", 5, "envs names 'a' twice"),
        ("[agentzoo/CartPole-v0]", "[3]", 5, "The environment 3 is not an id"),
        ("eval_episodes: 3", "eval_episodes: -3", 10, "eval_episodes=-3 is out of range"),
        ("{algorithm: dqn,", "{algorithm: dqm,", 4, "no algorithm 'dqm' in agentzoo"),
        ("{learning_rate: {", "{learning_rat: {", 4, "Did you mean 'learning_rate'?"),
        ("agentzoo/CartPole-v0", "CartPoll-v1", 5, "Did you mean 'CartPole-v1'"),
        ("{batch_size: 16}", "{batch_sise: 16}", 9, "Did you mean 'batch_size'"),
        ("[agentzoo/CartPole-v0]", "3", 5, "3 is no list of names"),
        ("eval_episodes: 3", "settings: [a]", 10, "settings=['a'] is no path"),
        ("eval_episodes: 3", "env_kwargs: [a]", 10, "['a'] is no mapping"),
    ],
)
def test_errors_in_a_plan_name_the_line(tmp_path, before, after, line, message):
    path = tmp_path / "plan.yaml"
    assert PLAN.count(before) == 1
    path.write_text(textwrap.dedent(PLAN.replace(before, after)))
    with pytest.raises(ConfigurationError) as error:
        jobs_of(read_plan(path))
    assert f"{path}, line {line}: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algos:\nenvs: [CartPole-v1]", "has no algos. Add `algos"),
        ("algos: 3\nenvs: [CartPole-v1]", "line 1: 3 is no list of names"),
        ("algos: {dqn: {envs: 3}}\nenvs: [CartPole-v1]", "line 1: 3 is no list of names"),
        ("algos: [dqn]\nenvs:", "has no envs. Add `envs"),
        ("", "has no algos"),
    ],
)
def test_plans_of_another_form_are_refused(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_plan(path)


def test_entries_without_a_value_are_those_that_are_left_out(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("algos: [dqn]\nenvs: [CartPole-v1]\nset:\nseeds:\n")
    assert read_plan(path)._replace(places={}) == make_plan("dqn", "CartPole-v1")


def test_values_on_the_command_line():
    changes = parse_changes(
        ["gamma=0.9", "net_arch=[8, 8]", "double_q=false", "learning_rate=linear:1e-3,0",
         "target_kl=None", "activation=tanh"]
    )  # fmt: skip
    assert changes == {
        **{"gamma": 0.9, "net_arch": [8, 8], "double_q": False, "target_kl": None},
        **{"learning_rate": "linear:1e-3,0", "activation": "tanh"},
    }
    made = make_plan("dqn", "CartPole-v1", set={"learning_rate": "linear:1e-3,0"})
    assert made.changes == {"learning_rate": agentzoo.Linear(1e-3, 0.0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algos": "dqm"}, "no algorithm 'dqm' in agentzoo. Did you mean DQN?"),
        ({"algos": "nowhere:Mine"}, "no module 'nowhere'"),
        ({"algos": ["dqn", "dqn"]}, "names 'dqn' twice. Give each variant"),
        ({"algos": [3]}, "3 names no algorithm"),
        ({"algos": 3}, "3 is no list of names"),
        ({"envs": 3}, "3 is no list of names"),
        ({"algos": None}, "Nothing says which algos to compare"),
        ({"envs": "CartPoll-v1"}, "Did you mean 'CartPole-v1'"),
        ({"envs": "Pendulum-v1"}, "DQN has no policy for the actions of Pendulum-v1"),
        ({"seeds": 0}, "seeds=0 is out of range"),
        ({"steps": 0.5}, "steps=0.5 has the wrong type"),
        ({"jobs": 0}, "jobs=0 is out of range"),
        ({"hyperparameters": {"gama": 1}}, "Did you mean 'gamma'"),
        ({"env_kwargs": {"gravity": {1}}}, "cannot be recorded"),
        ({"env_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"env_kwargs": 3}, "is no mapping from the names of arguments"),
        ({"tuned": True, "envs": "FrozenLake-v1"}, "no tuned settings for 'FrozenLake-v1'"),
        ({"plan": "plan.yaml"}, "takes the place of algos, envs"),
        ({"scores": "."}, "--save-scores writes scores of tuned settings. Add --tuned."),
        ({"scores": ".", "tuned": True}, r"no file of settings at dqn.yaml"),
    ],
)
def test_bad_requests_start_nothing(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        lab.benchmark(**{"algos": "dqn", "envs": "CartPole-v1", **arguments})
    assert not Path("results").exists()


MIXED = ["CartPole-v1", "Pendulum-v1"]


def test_unsuitable_pairs_of_a_product_are_left_out():
    said = []
    found = jobs_of(make_plan(["dqn", "sac", "qrdqn"], MIXED, seeds=2), said.append)
    pairs = [("dqn", MIXED[0]), ("sac", MIXED[0]), ("sac", MIXED[1]), ("qrdqn", MIXED[0])]
    assert [(job.label, job.env) for job in found] == pairs * 2
    assert said == [
        "Left out, because the algorithm has no policy for the actions: dqn on Pendulum-v1, qrdqn "
        "on Pendulum-v1."
    ]
    jobs_of(make_plan(["sac", "ppo"], MIXED), said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("algos", "envs", "advice"),
    [
        (["dqn", "sac"], ["Pendulum-v1"], "Name other environments for dqn, or leave it out"),
        (["dqn", "qrdqn"], MIXED, "Leave out Pendulum-v1, or add an algorithm that suits it"),
        ({"dqn": {"envs": MIXED}, "sac": None}, MIXED, "Name other environments for dqn"),
    ],
)
def test_pairs_of_which_nothing_is_left_are_refused(algos, envs, advice):
    with pytest.raises(ConfigurationError, match="DQN has no policy for the actions of Pendulum"):
        jobs_of(make_plan(algos, envs))
    with pytest.raises(ConfigurationError, match=advice):
        jobs_of(make_plan(algos, envs))


def test_environments_of_a_variant(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "algos:\n  dqn: {envs: Acrobot-v1}\n  ppo:\nenvs: [Pendulum-v1]\nsteps: 100\nseeds: 1\n"
    )
    found = jobs_of(read_plan(path))
    assert [(job.label, job.env) for job in found] == [
        ("dqn", "Acrobot-v1"),
        ("ppo", "Pendulum-v1"),
    ]
    for wrong, message in (
        ("Pendulum-v1", "line 2: DQN has no policy"),
        ("Akrobot-v1", "line 2: .*Did you mean 'Acrobot-v1'"),
        ("[]", "line 1: envs is empty"),
    ):
        path.write_text(path.read_text().replace("Acrobot-v1", wrong))
        with pytest.raises(ConfigurationError, match=message):
            jobs_of(read_plan(path))
        path.write_text(path.read_text().replace(wrong, "Acrobot-v1", 1))


# results folders


def jobs(algos="dqn", envs="CartPole-v1", **others):
    return jobs_of(make_plan(algos, envs, **{"seeds": 2, "steps": 100, **others}))


def test_more_may_be_added(tmp_path):
    agree(tmp_path, jobs())
    agree(tmp_path, jobs(["qrdqn", "dqn"], ["Acrobot-v1", "CartPole-v1"], seeds=3))
    agree(tmp_path, jobs(seeds=1))
    plan = results.read(tmp_path).plan
    assert plan["seeds"] == [0, 1, 2] and set(plan["runs"]) == {"dqn", "qrdqn"}
    assert set(plan["runs"]["dqn"]) == {"CartPole-v1", "Acrobot-v1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 200}, "dqn on CartPole-v1: steps=100, not 200"),
        ({"set": {"gamma": 0.5}}, "gamma=0.99, not 0.5"),
        ({"n_envs": 2}, "n_envs=1, not 2"),
        ({"algos": {"dqn": "qrdqn"}}, "algorithm='DQN', not 'QRDQN'"),
        ({"env_kwargs": {"sutton_barto_reward": True}}, "sutton_barto_reward=None, not True"),
        ({"final_episodes": 7}, "the evaluation: final_episodes=100, not 7"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    agree(tmp_path, jobs())
    before = (tmp_path / "plan.json").read_text()
    with pytest.raises(ConfigurationError, match=message):
        agree(tmp_path, jobs(**changes))
    assert (tmp_path / "plan.json").read_text() == before


def test_the_version_that_began_is_kept(tmp_path):
    agree(tmp_path, jobs())
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "0.0.9"}))
    agree(tmp_path, jobs(["dqn", "qrdqn"]))
    found = results.read(tmp_path)
    assert found.version == "0.0.9" and set(found.plan["runs"]) == {"dqn", "qrdqn"}


def test_other_versions_and_files_are_refused(tmp_path):
    agree(tmp_path / "a", jobs())
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())
    (tmp_path / "a" / "plan.json").write_text(json.dumps({**plan, "format": 99}))
    with pytest.raises(ConfigurationError, match="has format 99"):
        agree(tmp_path / "a", jobs())
    (tmp_path / "a" / "plan.json").write_text(json.dumps({**plan, "plan": {}}))
    with pytest.raises(ConfigurationError, match="does not say which runs"):
        agree(tmp_path / "a", jobs())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a file"):
        agree(tmp_path / "file", jobs())


# scores


def test_scores_are_those_of_the_seeds():
    run = results.Result(
        "dqn", "DQN", "CartPole-v1", 0, 100, {}, {}, True, 1, {}, {}, 1.0, "2026-12-01", (), None
    )
    returns = [(10.0, 30.0), (0.0, 0.0), (40.0, 40.0), (100.0, 100.0)]
    runs = [
        dataclasses.replace(run, seed=i, final=results.Episodes(pair, (1, 1)))
        for i, pair in enumerate(returns)
    ]
    scores = summarize(runs)
    assert scores == {
        **{"seeds": 4, "mean": 40.0, "iqm": 30.0, "worst": 0.0, "episodes": 2},
        **{"date": "2026-12-01", "version": agentzoo.__version__},
    }


def test_scores_of_other_settings_are_refused(tmp_path):
    settings.write_row(tmp_path / "dqn.yaml", Row("CartPole-v1", 100))
    tuned = {"tuned": True, "settings": str(tmp_path)}
    assert files_for_scores(tmp_path, jobs(steps=None, **tuned)) == {"dqn": tmp_path / "dqn.yaml"}
    kwargs = {"env_kwargs": {"sutton_barto_reward": True}}
    for change in ({"steps": 50}, {"n_envs": 2}, {"set": {"gamma": 0.5}}, kwargs):
        with pytest.raises(ConfigurationError, match="differ from the tuned settings"):
            files_for_scores(tmp_path, jobs(**{"steps": None, **tuned, **change}))


# runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A benchmark of an algorithm of a user in an environment of a user, with saved scores."""
    home = tmp_path_factory.mktemp("benchmark")
    row = Row("LabLine-v0", 200, 2, {name: _tuple(value) for name, value in SMALL.items()})
    settings.write_row(home / "mydqn.yaml", row)
    here, path = os.getcwd(), sys.path[:]
    sys.path.insert(0, str(ROOT))
    try:
        found = lab.benchmark(
            ["tests.lab_module:MyDQN"], [LINE], 2, home / "results", tuned=True, settings=home,
            scores=home, jobs=2, verbose=False, **QUICK
        )  # fmt: skip
    finally:
        os.chdir(here)
        sys.path[:] = path
    return home, found


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def test_the_record_of_a_run(finished):
    home, found = finished
    assert [(run.label, run.env, run.seed, run.status) for run in found.runs] == [
        ("mydqn", LINE, seed, "finished") for seed in (0, 1)
    ]
    for run in found.runs:
        assert (run.algorithm, run.steps, run.n_envs, run.tuned) == ("MyDQN", 200, 2, True)
        assert [point.step for point in run.curve] == [56, 104, 152, 200]  # cycles are 8 steps long
        assert all(point.episodes.lengths == (5, 5) for point in run.curve)
        assert len(run.final.returns) == 6 and run.machine["cores"] >= 1
        seconds = [point.seconds for point in run.curve]
        assert 0 < seconds[0] < seconds[-1] <= run.seconds
        folder = results.run_folder(home / "results", run.label, run.env, run.seed)
        rows = list(csv.DictReader((folder / "evaluations.csv").read_text().splitlines()))
        assert len(rows) == 4 * 2 + 6 and rows[-1]["phase"] == "final"
        config = json.loads((folder / "run" / "config.json").read_text())
        assert config["tuned"]["env"] == "LabLine-v0" and config["hyperparameters"] == dict(
            run.hyperparameters
        )
        assert not (folder / "run" / "checkpoints").exists()
    assert found.runs[0].final != found.runs[1].final or found.runs[0].curve != found.runs[1].curve


def test_the_trained_agent_is_kept(finished):
    home, found = finished
    from tests.lab_module import MyDQN

    run = found.runs[0]
    folder = results.run_folder(home / "results", run.label, run.env, run.seed) / "run"
    curve = Curve(LINE, run.seed, run.steps, Protocol(**QUICK), lambda points: None)
    assert curve.finish(MyDQN.load(folder)) == run.final


def test_scores_are_in_the_file(finished):
    home, found = finished
    from tests.lab_module import MyDQN

    row = settings.read(MyDQN, home)["LabLine-v0"]
    assert row.scores == summarize(found.runs) and row.scores["episodes"] == 6
    assert row.steps == 200


def test_scores_that_cannot_be_written_are_said(finished, monkeypatch):
    home, _ = finished
    planned = jobs_of(make_plan("tests.lab_module:MyDQN", LINE, seeds=2, tuned=True,
                                settings=home, **QUICK))  # fmt: skip
    monkeypatch.setattr(settings, "write_row", _no_space)
    (line,) = save_scores(home, home / "results", planned)
    assert line.endswith("mydqn.yaml cannot be written (No space left on device).")


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_finished_benchmark_is_only_read(finished, monkeypatch):
    home, found = finished
    monkeypatch.setattr("agentzoo.lab.processes._start", None)  # it would fail
    again = lab.benchmark(
        ["tests.lab_module:MyDQN"], [LINE], 2, home / "results", tuned=True, settings=home,
        verbose=False, **QUICK
    )  # fmt: skip
    assert again.runs == found.runs


def test_failures_are_recorded_and_tried_again(tmp_path, capsys):
    command = ["benchmark", "--algos", "dqn", "--envs", f"{BROKEN},{DEADLY}", "--seeds", "1"]
    command += ["--steps", "60", "--set", "net_arch=[8]", "--evaluations", "2", "--jobs", "2"]
    command += ["--eval-episodes", "1", "--final-episodes", "2"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    output = capsys.readouterr()
    assert stop.value.code == 1 and "2 of 2 runs in results failed" in output.err
    assert "out of order" in output.out and "SIGABRT" in output.out
    broken, deadly = results.read("results").runs
    assert (broken.status, broken.final, deadly.status) == ("failed", None, "failed")
    assert broken.error.startswith("EnvError: ") and broken.error.count("\n") == 0
    Path("repaired").touch()
    with pytest.raises(SystemExit):
        main(command)
    broken, deadly = results.read("results").runs
    assert (broken.status, deadly.status) == ("finished", "failed")
    assert "runs in results, 0" not in capsys.readouterr().out


def test_a_full_disk_ends_the_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "write", _no_space)
    command = ["benchmark", "--algos", "dqn", "--envs", DEADLY, "--seeds", "1", "--steps", "60"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 1 and "cannot be written (No space left on device)" in error
    assert "Traceback" not in error and results.read(tmp_path / "out").unfinished


def test_algorithms_that_cannot_be_made_fail_alone(tmp_path):
    kinds = [f"tests.lab_module:{name}" for name in ("Failing", "Leaving", "MyDQN")]
    (failing, leaving, whole) = lab.benchmark(
        kinds, LINE, 1, tmp_path, steps=40, jobs=3, **OPTIONS
    ).runs  # fmt: skip
    assert failing.error == "RuntimeError: It needs more than this."
    assert "exit code 7" in leaving.error and whole.status == "finished"


# The command line, also where Ctrl-C is ignored, as in jobs in the background of a shell.
COMMAND_LINE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from agentzoo.cli import main
main()
"""


@pytest.fixture
def start():
    """Starts a benchmark of a slow environment as a command, in a process group of its own."""
    started = []

    def start(out, **options):
        command = [sys.executable, "-c", COMMAND_LINE, "benchmark", "--algos", "dqn"]
        command += ["--envs", SLOW, "--seeds", "1", "--steps", "600", "--out", out]
        command += ["--evaluations", "12", "--eval-episodes", "1", "--final-episodes", "2"]
        command += ["--set", *(f"{name}={value}" for name, value in SMALL.items())]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        options = {"stdout": subprocess.DEVNULL, "text": True, **options}
        started.append(
            subprocess.Popen(command, env=environment, start_new_session=True, **options)
        )
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition, process):
    """Wait until a condition holds. The process has to be at work until then."""
    limit = time.monotonic() + 600
    while not condition():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)


def test_a_killed_benchmark_ends_as_if_it_had_not_been(start):
    assert start("whole").wait() == 0
    first, checkpoints = start("killed"), "*/*/*/run/checkpoints/step_*.safetensors"
    wait_until(lambda: [*Path("killed").glob(checkpoints)], first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (output,) = Path("killed").glob("*/*/*/output.txt")
    for times, (number, code) in enumerate({signal.SIGINT: 130, signal.SIGTERM: 143}.items(), 1):
        again = start("killed", stderr=subprocess.PIPE)
        wait_until(lambda n=times: output.read_text().count("Resuming the run") >= n, again)
        # Ctrl-C reaches all processes of a terminal, but SIGTERM only one.
        (os.killpg if number == signal.SIGINT else os.kill)(again.pid, number)
        _, error = again.communicate()
        assert again.returncode == code
        assert "interrupted after 0 of 1 runs. The same command goes on." in error
    assert not results.read("killed").runs
    assert start("killed").wait() == 0
    whole, killed = (results.read(out).runs for out in ("whole", "killed"))
    assert [*map(outcome, whole)] == [*map(outcome, killed)] and len(whole[0].curve) == 12
    seconds = [point.seconds for point in killed[0].curve]
    assert seconds == sorted(seconds)
    assert output.read_text().count("Resuming the run") == 3


def test_no_moment_of_an_interruption_matters(tmp_path, monkeypatch):
    """Neither during training nor before the result is written."""
    (job,) = jobs("dqn", "agentzoo/Catch-v0", seeds=1, steps=96, set=SMALL, **QUICK)
    runs.perform(tmp_path / "whole", [job])
    visit, finish, count = Curve.visit, Curve.finish, itertools.count()

    def interrupted(function, *calls):
        def call(*arguments):
            if next(count) in calls:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    monkeypatch.setattr(Curve, "visit", interrupted(visit, 2))
    with pytest.raises(KeyboardInterrupt):
        runs.perform(tmp_path / "cut", [job])
    monkeypatch.setattr(Curve, "visit", visit)
    monkeypatch.setattr(Curve, "finish", interrupted(finish, *range(100)))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runs.perform(tmp_path / "cut", [job])
    monkeypatch.setattr(Curve, "finish", finish)
    runs.perform(tmp_path / "cut", [job])
    whole, cut = (
        results.read_run(results.run_folder(tmp_path / name, job.label, job.env, 0))
        for name in ("whole", "cut")
    )
    assert outcome(whole) == outcome(cut) and len(cut.curve) == 4
    assert not list((tmp_path / "cut").rglob(".progress.json"))


def test_arguments_of_the_environment(tmp_path, monkeypatch):
    """They hold in training, in evaluations, after an interruption, and in the record."""
    kwargs = {"length": 3}
    (job,) = jobs("dqn", LINE, seeds=1, steps=96, set=SMALL, env_kwargs=kwargs, **QUICK)
    visit, count = Curve.visit, itertools.count()

    def interrupted(curve, agent):
        if next(count) == 8:
            raise KeyboardInterrupt
        return visit(curve, agent)

    monkeypatch.setattr(Curve, "visit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.perform(tmp_path, [job])
    left = results.read_progress(runs.home_of(tmp_path, job))
    monkeypatch.setattr(Curve, "visit", visit)
    runs.perform(tmp_path, [job])
    home = runs.home_of(tmp_path, job)
    run = results.read_run(home)
    assert run.env_kwargs == kwargs and run.final.lengths == (3,) * 6
    assert all(point.episodes.lengths == (3, 3) for point in run.curve) and len(run.curve) == 4
    assert (left.label, left.env, left.seed, left.steps) == ("dqn", LINE, 0, 96)
    assert left.curve[0].episodes == run.curve[0].episodes and 0 < len(left.curve) < 4
    assert results.read_progress(home) is None
    assert json.loads((home / "run" / "config.json").read_text())["env_kwargs"] == kwargs


def test_the_curve_of_a_process_that_dies_is_kept(tmp_path):
    env = "tests.lab_module:LabMortal-v0"
    found = lab.benchmark(
        "dqn", env, 1, tmp_path, steps=96, evaluations=8, eval_episodes=1, final_episodes=2,
        hyperparameters=SMALL, verbose=False,
    )  # fmt: skip
    (run,) = found.runs
    assert run.status == "failed" and "SIGABRT" in run.error
    assert [point.step for point in run.curve] == [12, 24] and run.seconds > 0


def test_seeds_that_learn_together(tmp_path):
    """They learn what they learn alone."""
    env = "agentzoo/Catch-v0"
    options = {**OPTIONS, "steps": 160, "seeds": 2}
    together = lab.benchmark("dqn", env, out="together", together=True, **options)
    alone = lab.benchmark("dqn", env, out="alone", **{**options, "seeds": 1})
    assert [run.status for run in together.runs] == ["finished", "finished"]
    assert outcome(together.runs[0]) == outcome(alone.runs[0])
    # A run that the group has left without a checkpoint begins anew.
    home = results.run_folder(Path("together"), "dqn", env, 1)
    (home / "result.json").unlink()
    again = lab.benchmark("dqn", env, out="together", **options)
    assert outcome(again.runs[1]) == outcome(together.runs[1])


def test_a_benchmark_on_ray(cluster, tmp_path):
    found = lab.benchmark("dqn", LINE, 2, tmp_path / "out", steps=60, ray=True, **OPTIONS)
    assert [run.status for run in found.runs] == ["finished", "finished"]


def test_only_one_benchmark_uses_a_folder(tmp_path):
    from agentzoo.training.folder import Lock

    agree(tmp_path, jobs())
    plan = (tmp_path / "plan.json").read_bytes()
    lock = Lock(tmp_path)
    with pytest.raises(ConfigurationError, match="Another benchmark is running in"):
        lab.benchmark(["dqn", "qrdqn"], "CartPole-v1", 2, tmp_path, steps=100)
    assert (tmp_path / "plan.json").read_bytes() == plan
    lock.release()


def test_a_change_of_version_during_a_run_is_recorded():
    def curve():
        return Curve(LINE, 0, 100, Protocol(**QUICK), lambda points: None)

    same = curve()
    same.set_state(curve().state())
    assert same.versions == curve().versions
    old = curve().state()
    old["versions"] = {**old["versions"], "agentzoo": "0.0.9"}
    changed = curve()
    changed.set_state(old)
    both = f"0.0.9, then {agentzoo.__version__}"
    assert changed.versions == {**same.versions, "agentzoo": both}
    again = curve()
    again.set_state(changed.state())
    assert again.versions == changed.versions


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "--help"])
    assert stop.value.code == 0 and "--final-episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "Nothing says which algos"),
        ("--algos dqn --envs CartPole-v1 --set gamma", "--set gamma is not a pair"),
        ("--algos dqn --envs CartPole-v1 --set gamma=[", "the value is not YAML"),
        ("--algos dqn --envs CartPole-v1 --set gamma=1 gamma=0.5", "--set names gamma twice"),
        ("--algos dqn --envs CartPole-v1 --env-kwargs a=3", "--env-kwargs a=3 is not a pair"),
        ("--plan nowhere.yaml", "no plan at nowhere.yaml"),
        (
            "--algos dqn --envs CartPole-v1 --env-kwargs a:3 --publish zoo",
            "--publish takes no agents of environments with arguments",
        ),
    ],
)
def test_bad_commands(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *command.split()])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("texts", [["dqn,ppo"], ["dqn", "ppo"], ["dqn,", "ppo"], ["dqn, ppo"]])
def test_names_are_separated_by_commas_or_spaces(texts, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(benchmarking, "benchmark", lambda *names, **_: calls.append(names[:2]))
    with pytest.raises(AttributeError):  # no results
        main(["benchmark", "--algos", *texts, "--envs", "CartPole-v1"])
    assert calls == [(["dqn", "ppo"], ["CartPole-v1"])]


def test_the_live_table(tmp_path, finished):
    from rich.console import Console

    from agentzoo.lab.board import Board

    home, _ = finished
    planned = jobs_of(make_plan("tests.lab_module:MyDQN", LINE, seeds=4, tuned=True,
                                settings=home, **QUICK))  # fmt: skip
    board = Board(home / "results", planned)
    board.begin(planned[2:3])
    folder = results.run_folder(home / "results", "mydqn", LINE, 2)
    folder.mkdir(exist_ok=True)
    point = results.Evaluation(100, 1.0, results.Episodes((3.0, 4.0), (5, 5)))
    results.write_progress(folder, results.Progress("mydqn", LINE, 2, 200, (point,)))
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(board._table())
    text = console.export_text()
    assert "2 of 4 runs" in text and "2/4" in text and "62%" in text and "3.5" in text
    folder.joinpath(".progress.json").unlink()
    folder.rmdir()
