"""The search for hyperparameters."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import pytest

import agentzoo
from agentzoo import ConfigurationError, Linear, settings
from agentzoo import config as configs
from agentzoo.algos import ALGORITHMS
from agentzoo.cli import main
from agentzoo.lab import tune
from agentzoo.lab.searching import space as spaces
from agentzoo.lab.searching import study as studies
from agentzoo.types import TrainingError

optuna = pytest.importorskip("optuna")
CLASSES = [getattr(agentzoo, name) for name in ALGORITHMS]
PPO = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "net_arch": (16,)}
QUICK = {"steps": 64, "start": PPO, "evaluations": 2, "episodes": 2, "progress": None}


def written(text):
    """Return a file with a search space."""
    path = Path("space.yaml")
    path.write_text(textwrap.dedent(text))
    return path


# Search spaces


@pytest.mark.parametrize("cls", CLASSES)
def test_declared_spaces_hold_allowed_values(cls):
    space = spaces.declared(cls, structure=True)
    for name, dimension in space.dimensions.items():
        search = dimension.search
        values = search.choices or (search.low, search.high)
        for value in values:
            made = getattr(configs.make_config(cls.Config, {name: value}), name)
            assert made == value, name
        assert search.choices or (search.low < search.high and (search.low > 0 or not search.log))
        assert len(dimension.labels) == len(search.choices)
    assert {"learning_rate", "gamma", "batch_size", "net_arch"} - {*space.dimensions} <= (
        {"batch_size"} if cls.__name__ == "IMPALA" else set()
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_values_of_the_usual_space_share_programs(cls):
    space = spaces.declared(cls)
    drawn = {
        name: next(iter(each.labels)) if each.search.choices else each.search.low
        for name, each in space.dimensions.items()
    }
    values = space.values(drawn)
    assert len(values) >= 3
    configs_of = [configs.make_config(cls.Config, given) for given in ({}, values)]
    structures = [configs.structure_of(config) for config in configs_of]
    assert structures[0] == structures[1] and configs_of[0] != configs_of[1]


def test_a_file_narrows_and_fixes():
    path = written("""
        learning_rate: {high: 1e-3}
        gamma:
        batch_size: {choices: [32, 64]}
        n_steps: {low: 16, high: 64, log: true}
        net_arch: [32, 32]
        clip_range: {linear: [0.2, 0]}
        ent_coef: 0.01
    """)
    space = spaces.read(path, agentzoo.PPO)
    searches = {name: each.search for name, each in space.dimensions.items()}
    declared = configs.hyperparameters(agentzoo.PPO.Config)
    assert searches == {
        "learning_rate": configs.Search(1e-5, 1e-3, True),
        "gamma": declared["gamma"].search,
        "batch_size": configs.Search(choices=(32, 64)),
        "n_steps": configs.Search(16, 64, True),
    }
    assert space.fixed == {
        "net_arch": (32, 32),
        "clip_range": Linear(0.2, 0.0),
        "ent_coef": 0.01,
    }
    values = space.suggest(
        optuna.trial.FixedTrial(
            {"learning_rate": 1e-4, "gamma": 0.9, "batch_size": 64, "n_steps": 32}
        )
    )
    assert values["learning_rate"] == Linear(1e-4, 0.0)  # the default falls to 0
    assert (values["n_steps"], values["batch_size"], values["ent_coef"]) == (32, 64, 0.01)


def test_choices_that_no_database_can_hold_are_drawn_by_their_texts():
    path = written("""
        net_arch: {choices: [[16], [32, 32]]}
        learning_rate: {choices: [{linear: [0.1, 0.01]}, 0.1]}
    """)
    space = spaces.read(path, agentzoo.PPO)
    drawn = {"net_arch": "[32, 32]", "learning_rate": '{"linear": [0.1, 0.01]}'}
    expected = {"net_arch": (32, 32), "learning_rate": Linear(0.1, 0.01)}
    assert space.suggest(optuna.trial.FixedTrial(drawn)) == expected
    assert space.values(drawn) == expected and space.start(expected) == drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gamma:\nlearning_rte: 1e-3",
            r"line 2: PPO has no hyperparameter 'learning_rte'. Did you",
        ),
        ("gamma: {low: 0.99, high: 0.9}", r"line 1: gamma: the range from 0.99 to 0.9 is empty"),
        ("learning_rate: {hihg: 1}", r"line 1: .* no field 'hihg'. Did you mean 'high'"),
        ("gamma: 0.9\nvf_coef: {low: -1}", r"line 2: vf_coef=-1.0 is out of range"),
        ("gamma: {choices: []}", r"line 1: gamma: the choices are no list"),
        ("gamma: {choices: [0.9, 2]}", r"line 1: gamma=2.0 is out of range"),
        ("gamma: {choices: [0.9], low: 0}", r"line 1: gamma: the choices are no list"),
        ("adam_eps: {high: 1}", r"line 1: adam_eps has no declared range, so low must be given"),
        ("adam_eps:", r"line 1: adam_eps has no declared range, so low and high"),
        ("n_steps: {low: 1.5, high: 8}", r"line 1: n_steps is an integer"),
        ("vf_coef: {low: 0, log: true}", r"line 1: vf_coef: log=True needs"),
        ("vf_coef: {low: a}", r"line 1: vf_coef: low='a' is no number"),
        ("gamma: 0.9", r"varies no hyperparameter"),
        ("gamma: [", r"line 1"),
    ],
)
def test_mistakes_in_a_file_are_named_with_their_lines(text, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        spaces.read(written(text), agentzoo.PPO)
    assert "space.yaml" in str(error.value)


def test_an_algorithm_without_ranges_needs_a_file():
    class Plain(agentzoo.Algorithm):
        Config = type("PlainConfig", (), {"__dataclass_fields__": {}})

    with pytest.raises(ConfigurationError, match=r"Plain declares no search space.*YAML file"):
        spaces.declared(Plain)


# Trials


def test_a_search_finds_compiles_once_and_goes_on(tmp_path):
    programs = []

    def count(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(event)

    lines = []
    options = {**QUICK, "progress": lines.append}
    first = tune("ppo", "CartPole-v1", 2, storage=tmp_path / "a.db", **options)
    jax.monitoring.register_event_duration_secs_listener(count)
    both = tune("ppo", "CartPole-v1", 4, storage=tmp_path / "a.db", **options)
    assert not programs, "trials that differ in numbers compile nothing"
    numbers = [trial.number for trial in both.study.trials]
    assert numbers == [0, 1, 2, 3] and len(first.study.trials) == 4
    assert [line.split(":")[0] for line in lines] == [
        f"Trial {i} of {2 if i < 2 else 4}" for i in range(4)
    ]
    drawn = [trial.params for trial in both.study.trials]
    assert drawn[0]["learning_rate"] == 3e-4 and drawn[0]["gamma"] == 0.99  # the defaults
    assert len({tuple(each.values()) for each in drawn}) == 4
    best = both.best_trial
    assert both.score == max(trial.value for trial in both.study.trials if trial.value is not None)
    assert both.best["learning_rate"] == Linear(best.params["learning_rate"], 0.0)
    assert both.best["n_steps"] == 16  # of `start`, in which the trials agree
    # The search goes on as if it had never been interrupted, and learns what it would have.
    whole = tune("ppo", "CartPole-v1", 4, **QUICK)
    assert [trial.params for trial in whole.study.trials] == drawn
    values = [[trial.value for trial in each.study.trials] for each in (both, whole)]
    assert values[0] == values[1]
    tune("ppo", "CartPole-v1", 3, storage=tmp_path / "a.db", **options)  # there are enough
    assert len(both.study.trials) == 4


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    path = written("""
        learning_rate: {choices: [1e-3, 1e38]}
        batch_size: {choices: [16, 24]}
        n_steps: 32
    """)
    tuning = tune("ppo", "CartPole-v1", 8, space=path, structure=True, **QUICK)
    failed = [one for one in tuning.study.trials if one.state.name == "FAIL"]
    assert len(tuning.study.trials) == 8 and tuning.best["batch_size"] == 16
    for one in failed:
        expected = "batch_size=24" if one.params["batch_size"] == 24 else "train/loss is nan"
        assert expected in one.user_attrs["error"]
    assert {one.params["batch_size"] for one in failed} == {16, 24}


def test_a_search_without_a_trial_that_ends_says_why():
    path = written("batch_size: {choices: [24]}\nnet_arch: [16]\nn_steps: 32")
    # The defaults are checked at once, so the batch size has to be one that fails later.
    with pytest.raises(TrainingError, match=r"None of the 2 trials.*batch_size=24 does not divide"):
        tune("ppo", "CartPole-v1", 2, space=path, **{**QUICK, "start": {"batch_size": 16}})


def fake(levels):
    """Return a stand-in of `trial.train`, whose curves rise to a level for each trial."""

    def train(task, values, number, report):
        level = levels[number % len(levels)]
        for index in range(1, task.evaluations):
            if not report(index, level * index):
                return None
        return level * task.evaluations

    return train


def test_bad_trials_end_early(monkeypatch):
    monkeypatch.setattr(studies.trials_of, "train", fake([5, 6, 7, 8, 9, 1, 10]))
    lines = []
    tuning = tune("ppo", "CartPole-v1", 7, **{**QUICK, "evaluations": 8, "progress": lines.append})
    states = [trial.state.name for trial in tuning.study.trials]
    assert states == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert len(tuning.study.trials[5].intermediate_values) == 2
    assert (tuning.best_trial.number, tuning.score) == (6, 80)
    assert "ended early after 2 evaluations" in lines[5] and "best 80.0 in trial 6" in lines[6]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A database with a search of two trials, and the options of the search."""
    monkeypatch.setattr(studies.trials_of, "train", fake([1, 2]))
    options = {**QUICK, "storage": tmp_path / "tune.db"}
    tune("ppo", "CartPole-v1", 2, **options)
    return options


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("ppo", {"steps": 128}, r"holds another search: steps 64, not 128"),
        ("ppo", {"start": {**PPO, "n_epochs": 4}}, r"another search space \(n_epochs\)"),
        ("ppo", {"structure": True}, r"another search space \(.*net_arch"),
        ("dqn", {"start": {}}, r"algorithm PPO, not DQN"),
        ("ppo", {"trials": 0}, r"trials=0 is out of range"),
        ("ppo", {"episodes": 0}, r"episodes=0 is out of range"),
        ("ppo", {"steps": 2**31}, r"steps=2147483648 is out of range"),
        ("ppo", {"start": {"gama": 1}}, r"gama"),
    ],
)
def test_other_searches_and_bad_arguments_are_refused(algorithm, changes, message, stored):
    with pytest.raises(ConfigurationError, match=message):
        tune(algorithm, "CartPole-v1", **{"trials": 3, **stored, **changes})


def test_files_that_are_no_databases_are_refused(tmp_path, stored):
    path = tmp_path / "notes.db"
    path.write_text("These are notes, and no database. " * 100)
    for storage in (path, tmp_path / "missing" / "tune.db"):
        with pytest.raises(ConfigurationError, match=r"The storage .* cannot be used"):
            tune("ppo", "CartPole-v1", 3, **{**stored, "storage": storage})
    assert path.read_text().startswith("These are notes")


def test_an_environment_that_all_trials_would_share_is_refused():
    with pytest.raises(ConfigurationError, match="Pass its id"):
        tune("ppo", agentzoo.make_env("CartPole-v1"), 2, **QUICK)


WORKER = """
import sys, time
from agentzoo.lab import tune
from agentzoo.lab.searching import study

seconds = float(sys.argv[1])
study._HEARTBEAT, study._GRACE = 1, 2

def train(task, values, number, report):
    print("trial", number, flush=True)
    time.sleep(seconds)
    return float(number)

study.trials_of.train = train
start = {"n_steps": 16, "batch_size": 16, "net_arch": (16,)}
tune("ppo", "CartPole-v1", 30, steps=64, start=start, storage="tune.db", progress=None)
"""


def test_processes_share_a_search_and_one_of_them_may_be_killed(monkeypatch):
    environment = {**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])}

    def begin(seconds):
        command = [sys.executable, "-c", WORKER, str(seconds)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    mine = []

    def train(task, values, number, report):
        mine.append(number)
        time.sleep(0.2)
        return float(number)

    doomed, worker = begin(600), begin(0.2)
    for process in (doomed, worker):
        assert process.stdout is not None and process.stdout.readline().startswith("trial")
    doomed.send_signal(signal.SIGKILL)
    monkeypatch.setattr(studies, "_HEARTBEAT", 1)
    monkeypatch.setattr(studies, "_GRACE", 2)
    monkeypatch.setattr(studies.trials_of, "train", train)
    start = {"n_steps": 16, "batch_size": 16, "net_arch": (16,)}
    tuning = tune("ppo", "CartPole-v1", 30, steps=64, start=start, storage="tune.db", progress=None)
    worker.communicate(timeout=120)
    doomed.communicate()
    assert worker.returncode == 0
    trials = tuning.study.trials
    states = [trial.state.name for trial in trials]
    assert states.count("FAIL") == 1  # the trial of the process that was killed is replaced
    assert states.count("COMPLETE") in (30, 31) and len(states) == states.count("COMPLETE") + 1
    assert 0 < len(mine) < 30, "both processes ran trials"
    drawn = [tuple(trial.params.values()) for trial in trials if trial.params]
    assert len({*drawn}) == len(drawn), "processes draw different values"


# The command


def test_the_command_saves_a_row_and_writes_a_page(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(agentzoo.cli, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(studies.trials_of, "train", fake([3, 9, 5]))
    path = written("gamma:\nlearning_rate:\nn_steps: 16\nbatch_size: 16\nnet_arch: [16]")
    Path("ppo.yaml").write_text("# Mine.\nAcrobot-v1:\n  steps: 10\n")
    command = ["tune", "ppo", "--env", "CartPole-v1", "--trials", "6", "--steps", "64"]
    files = ["--storage", "tune.db", "--space", str(path), "--save", "ppo.yaml"]
    main([*command, *files, "--page", "pages/tune.html"])
    shown = capsys.readouterr().out
    assert "Best mean return: 90.0 in trial 1, with" in shown and "net_arch: [16]" in shown
    rows = settings.read_file("ppo.yaml", agentzoo.PPO.Config).rows
    assert Path("ppo.yaml").read_text().startswith("# Mine.\n") and rows["Acrobot-v1"].steps == 10
    row = rows["CartPole-v1"]
    assert row.steps == 64 and row.hyperparameters["net_arch"] == (16,)
    assert "6 trials" in row.source and "90.0" in row.source and row.scores is None
    assert isinstance(row.hyperparameters["learning_rate"], Linear)
    page = Path("pages/tune.html").read_text()
    for text in ("PPO in CartPole-v1", "History", "Importance", "Curves", "Plotly.newPlot"):
        assert text in page
    assert "needs at least two trials" not in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page), "it needs no network"


def test_an_interrupted_search_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(agentzoo.cli, "use_compilation_cache", lambda: None)
    score = fake([3, 9, 5])

    def interrupted(task, values, number, report):
        if number == 1:
            raise KeyboardInterrupt
        return score(task, values, number, report)

    monkeypatch.setattr(studies.trials_of, "train", interrupted)
    command = ["tune", "ppo", "--env", "CartPole-v1", "--trials", "3", "--steps", "64"]
    command += ["--storage", "tune.db", "--save", "best.yaml"]
    with pytest.raises(SystemExit) as raised:
        main(command)
    assert raised.value.code == 130
    assert "interrupted; the same command continues the search" in capsys.readouterr().err
    main(command)
    study = optuna.load_study(study_name="agentzoo", storage="sqlite:///tune.db")
    # The trial that was interrupted does not count.
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert Path("best.yaml").read_text().startswith("CartPole-v1:\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "seed=-1"),
        (["--trials", "0"], "--trials 0 is too small"),
        (["--space", "missing.yaml"], "no search space at missing.yaml"),
        (["--save", "bad.yaml"], "bad.yaml, line 2"),
        (["--tuned", "--env", "Catch-v9"], "no tuned settings for 'Catch-v9'"),
        (["--env", "NoSuchEnv-v0"], "NoSuchEnv"),
    ],
)
def test_commands_that_cannot_work_are_refused(options, message, monkeypatch, capsys):
    monkeypatch.setattr(agentzoo.cli, "use_compilation_cache", lambda: None)
    Path("bad.yaml").write_text("CartPole-v1:\n  stpes: 3\n")
    env = [] if "--env" in options else ["--env", "CartPole-v1"]
    with pytest.raises(SystemExit) as raised:
        main(["tune", "ppo", *env, *options])
    assert raised.value.code == 2 and message in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentzoo\[tune\]'"):
        tune("ppo", "CartPole-v1", 2, **QUICK)
