"""Tuned settings: the files of the package, files of users, and agents that are made from them."""

import json
import textwrap
from pathlib import Path

import gymnasium as gym
import pytest

import agentzoo
from agentzoo import ConfigurationError, settings
from agentzoo.algos import ALGORITHMS
from agentzoo.algos.dqn import DQNConfig
from agentzoo.cli import main
from agentzoo.settings import Row

CARTPOLE = "agentzoo/CartPole-v0"
FILE = """
    # Kept.
    presets:
      small:
        hyperparameters: {net_arch: [8], gamma: 0.9}

    agentzoo/CartPole-v0:
      steps: 100  # and this
      n_envs: 2
      preset: small
      hyperparameters:
        learning_rate: {linear: [1e-3, 1e-4]}
        batch_size: 16
      source: >-
        Made
        up.

    slow:
      env: agentzoo/CartPole-v0
      steps: 1_000
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dqn.yaml"
    path.write_text(textwrap.dedent(FILE))
    return path


# the files of the package


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_rows_of_the_package(name):
    rows = settings.read(name.lower())
    assert len(rows) >= 5
    for key, row in rows.items():
        assert row.env == key and row.steps >= 20_000 and row.source.endswith("."), key
        assert key in gym.registry or key.startswith("ALE/"), key
    presets = getattr(agentzoo, name).presets
    assert set(presets) == {
        "PPO": {"pixels", "mujoco"}, "SAC": set(), "MPO": set()
    }.get(name, {"pixels"})  # fmt: skip


def test_values_become_hyperparameters():
    row = settings.read("DQN")["LunarLander-v3"]
    assert row.hyperparameters["learning_rate"] == agentzoo.Linear(6.3e-4, 0.0)
    assert row.hyperparameters["net_arch"] == (256, 256) and row.steps == 300_000
    pong = settings.read("qrdqn")["ALE/Pong-v5"].hyperparameters
    preset = agentzoo.QRDQN.presets["pixels"]
    assert pong["clip_reward"] is preset["clip_reward"] is True  # from the preset
    assert pong["n_quantiles"] == 50 != preset["n_quantiles"]  # from the row
    assert all(type(value).__module__ != "ruamel.yaml.scalarfloat" for value in pong.values())


# agents


def test_an_agent_with_tuned_settings(file):
    agent = agentzoo.DQN.tuned(CARTPOLE, settings=file, batch_size=8)
    config = agent.config
    assert (agent.n_envs, config.net_arch, config.gamma, config.batch_size) == (2, (8,), 0.9, 8)
    assert config.learning_rate == agentzoo.Linear(1e-3, 1e-4)
    assert agent.tuned_settings == {"env": CARTPOLE, "file": str(file)}
    slow = agentzoo.DQN.tuned("slow", settings=file.parent, n_envs=3)
    assert slow.env_id == CARTPOLE and slow.n_envs == 3 and slow.config == DQNConfig()


def test_environments_that_are_not_named_by_an_id():
    made = agentzoo.DQN.tuned(gym.make("CartPole-v1"), net_arch=(8,))
    assert made.config.train_freq == 256 and made.tuned_settings["env"] == "CartPole-v1"

    class Nameless(gym.Env):
        pass

    with pytest.raises(ConfigurationError, match=r"has no id .* DQN\.tuned\(env, row="):
        agentzoo.DQN.tuned(Nameless)
    named = agentzoo.DQN.tuned(lambda: gym.make("CartPole-v1"), row="CartPole-v1", net_arch=(8,))
    assert named.config.train_freq == 256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: agentzoo.DQN.tuned("CartPole-v2"), "no tuned settings for 'CartPole-v2'. Did you"),
        (lambda: agentzoo.DQN.tuned("CartPole-v1", gama=1), "Did you mean 'gamma'"),
        (lambda: agentzoo.DQN.tuned("CartPole-v1", preset="pixels"), "tuned takes no preset"),
        (lambda: settings.read("dqm"), "no algorithm 'dqm' in agentzoo. Did you mean 'dqn'"),
    ],
)
def test_bad_requests(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of tuned settings at .*dqn\.yaml"):
        agentzoo.DQN.tuned(CARTPOLE, settings=tmp_path)


def test_classes_of_users(file):
    class Mine(agentzoo.DQN):
        """A class with the settings of DQN."""

    class Own(agentzoo.DQN):
        settings_file = file

    class Old(agentzoo.DQN):
        presets = {"tiny": {"net_arch": (4,)}}  # noqa: RUF012

    assert settings.read(Mine) == settings.read("dqn") and Mine.presets == agentzoo.DQN.presets
    assert set(settings.read(Own)) == {CARTPOLE, "slow"} and set(Own.presets) == {"small"}
    assert Old(CARTPOLE, preset="tiny").config.net_arch == (4,)


# what a run remembers


def test_the_record_survives(tmp_path):
    folder = tmp_path / "run"
    agent = agentzoo.PPO.tuned("Pendulum-v1", run_dir=folder, n_envs=1, n_steps=16, batch_size=16)
    record = {"env": "Pendulum-v1", "version": agentzoo.__version__}
    agent.learn(32, progress_bar=False, checkpoint_freq=16)
    assert json.loads((folder / "config.json").read_text())["tuned"] == record
    assert agentzoo.load(folder).tuned_settings == record
    saved = agentzoo.load(folder).save(tmp_path / "again")
    assert agentzoo.load(saved, "Pendulum-v1").tuned_settings == record
    assert agentzoo.resume(folder).tuned_settings == record
    for path in [folder / "model.safetensors", *(folder / "checkpoints").iterdir()]:
        path.unlink()  # as if it had been interrupted before its first checkpoint
    assert agentzoo.resume(folder).tuned_settings == record
    assert json.loads((folder / "config.json").read_text())["tuned"] == record
    assert agentzoo.PPO("Pendulum-v1").tuned_settings is None


# errors in files


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("steps: 100 ", "stps: 100 ", 8, "has no field 'stps'. Did you mean 'steps'?"),
        ("batch_size: 16", "batch_sise: 16", 13, "no argument 'batch_sise'. Did you mean"),
        ("batch_size: 16", "batch_size: 0", 13, "batch_size=0 is out of range"),
        ("batch_size: 16", "batch_size: many", 13, "batch_size='many' has the wrong type"),
        ("steps: 100 ", "steps: -1 ", 8, "steps=-1 is out of range"),
        ("n_envs: 2", "n_envs: two", 9, "n_envs='two' has the wrong type"),
        ("preset: small", "preset: smal", 10, "no preset 'smal'. Did you mean 'small'"),
        ("gamma: 0.9", "gama: 0.9", 5, "no argument 'gama'"),
        ("{linear: [1e-3, 1e-4]}", "{line: [1e-3, 1e-4]}", 12, "is no schedule. Write {linear:"),
        ("{linear: [1e-3, 1e-4]}", "{linear: [a]}", 12, "is no schedule"),
        ("{linear: [1e-3, 1e-4]}", "linear:a,b", 12, "is no schedule"),
        ("  steps: 1_000", "  n_envs: 1", 18, "'slow' has no steps"),
        ("  steps: 1_000", "  steps: 1\n  steps: 2", 21, 'found duplicate key "steps"'),
        ("n_envs: 2", "n_envs: [", 11, "but got ':'"),
        ("n_envs: 2", "scores: {seeds: 1}", 9, "The scores have no 'mean'"),
        ("n_envs: 2", "scores: {seds: 1}", 9, "no field 'seds'. Did you mean 'seeds'"),
        ("n_envs: 2", "scores: 3", 9, "'scores' is not a mapping"),
        ("  env: agentzoo/CartPole-v0\n", "  env: 3\n", 19, "env: 3 is no text"),
    ],
)
def test_errors_name_file_and_line(file, before, after, line, message):
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, after))
    with pytest.raises(ConfigurationError) as error:
        settings.read("dqn", file)
    assert f"{file}, line {line}: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("content", ["- a", "just a text", "\x00"])
def test_files_that_hold_something_else(file, content):
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"dqn\.yaml"):
        settings.read("dqn", file)


# writing


SCORES = {
    **{"seeds": 3, "mean": 9.5, "iqm": 9.25, "worst": 1.0, "episodes": 100},
    **{"date": "2026-12-01", "version": "0.9.0"},
}


def test_scores_are_written_and_all_else_stays(file):
    before = file.read_text()
    row = settings.read("dqn", file)[CARTPOLE]
    settings.write_row(file, row)
    assert file.read_text().replace("\n\n", "\n").count("#") == before.count("#")
    settings.write_row(file, row._replace(scores=SCORES))
    rows, text = settings.read("dqn", file), file.read_text()
    assert rows[CARTPOLE] == row._replace(scores=SCORES) and rows["slow"].scores is None
    assert (
        "# Kept." in text and "# and this" in text and "1_000" in text and "preset: small" in text
    )
    assert "net_arch" not in text.split("agentzoo/CartPole-v0:")[1]  # stays in the preset
    settings.write_row(file, row)
    assert settings.read("dqn", file)[CARTPOLE] == row


def test_new_rows_and_new_files(file, tmp_path):
    best = Row(
        "Acrobot-v1",
        5_000,
        1,
        {"learning_rate": agentzoo.Linear(0.1), "net_arch": (8, 8)},
        "Found.",
    )
    for path in (file, tmp_path / "new" / "dqn.yaml"):
        settings.write_row(path, best)
        settings.write_row(path, best._replace(name="fast", steps=10))
        rows = settings.read("dqn", path)
        assert rows["Acrobot-v1"] == best
        assert (rows["fast"].env, rows["fast"].steps) == ("Acrobot-v1", 10)
    with pytest.raises(ConfigurationError, match="'learning_rate' is a function"):
        settings.write_row(file, best._replace(hyperparameters={"learning_rate": lambda x: x}))
    assert settings.read("dqn", file)["Acrobot-v1"] == best


def test_rows_that_share_values_stay_apart(tmp_path):
    path = tmp_path / "dqn.yaml"
    path.write_text("a:\n  steps: 1\n  hyperparameters: &x {gamma: 0.5}\n"
                    "b:\n  steps: 1\n  hyperparameters: *x\n")  # fmt: skip
    row = settings.read("dqn", path)["b"]
    settings.write_row(path, row._replace(hyperparameters={"gamma": 0.7}))
    rows = settings.read("dqn", path)
    assert [rows[name].hyperparameters["gamma"] for name in "ab"] == [0.5, 0.7]


def test_every_file_of_the_package_can_be_written(tmp_path):
    """Writing a row as it is changes nothing that is read."""
    for name in ALGORITHMS:
        rows = settings.read(name)
        path = tmp_path / f"{name.lower()}.yaml"
        path.write_text(Path(settings.file_of(name)).read_text())
        for row in rows.values():
            settings.write_row(path, row._replace(scores=SCORES))
        found = settings.read(name, path)
        assert found == {key: row._replace(scores=SCORES) for key, row in rows.items()}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_scores_end_the_row(name, tmp_path):
    """Scores stand right below their row, and no other line of the file changes."""
    path = tmp_path / f"{name.lower()}.yaml"
    before = Path(settings.file_of(name)).read_text()
    for key, row in settings.read(name).items():
        path.write_text(before)
        settings.write_row(path, row._replace(scores=None))
        bare = path.read_text().splitlines()
        settings.write_row(path, row._replace(scores=SCORES))
        assert settings.read(name, path) == {
            **settings.read(name),
            key: row._replace(scores=SCORES),
        }
        lines = path.read_text().splitlines()
        start = bare.index(f"{key}:")
        end = next((i for i in range(start, len(bare)) if not bare[i]), len(bare))
        assert lines == [
            *bare[:end],
            "  scores: {seeds: 3, mean: 9.5, iqm: 9.25, worst: 1.0, episodes: 100,",
            "      date: '2026-12-01', version: 0.9.0}",
            *bare[end:],
        ]
        gone = [line for line in before.splitlines() if line not in bare]
        assert len(gone) <= 2 and all("seeds:" in line or "version:" in line for line in gone)


LAYOUT = """\
# Head.

a:
  steps: 1
  source: x

# About b.

b:
  steps: 1
  hyperparameters: {gamma: 0.5}
# Foot.
"""


def test_comments_between_rows_stay_in_their_places(tmp_path):
    path = tmp_path / "dqn.yaml"
    path.write_text(LAYOUT)
    settings.write_row(path, Row("a", 2, 2, {"gamma": 0.9}, "y"))
    settings.write_row(path, Row("b", 1, 1, {"gamma": 0.5}, "z"))
    settings.write_row(path, Row("c", 1, 1))
    changed = LAYOUT.replace("steps: 1\n  source: x", "steps: 2\n  source: y\n  n_envs: 2\n"
                             "  hyperparameters:\n    gamma: 0.9")  # fmt: skip
    changed = changed.replace("0.5}\n", "0.5}\n  source: z\n")
    assert path.read_text() == changed + "\nc:\n  steps: 1\n"


@pytest.mark.parametrize(
    "text", ["{a: {steps: 1}, b: {steps: 2}}", "# Only this.\n", "\n", "a: {steps: 1}"]
)
def test_rows_in_files_of_other_layouts(text, tmp_path):
    path = tmp_path / "dqn.yaml"
    path.write_text(text)
    before = settings.read("dqn", path)
    settings.write_row(path, Row("c", 3))
    settings.write_row(path, Row("a", 3))
    assert settings.read("dqn", path) == {**before, "c": Row("c", 3), "a": Row("a", 3)}
    assert path.read_text().count("#") == text.count("#")


# the command line


def failure(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_train_with_tuned_settings(file, tmp_path, capsys):
    command = f"train dqn --env {CARTPOLE} --tuned --settings {file} --run-dir run --gamma 0.5"
    main([*command.split(), "--eval-episodes", "0"])
    config = json.loads(Path("run/config.json").read_text())
    assert config["tuned"] == {"env": CARTPOLE, "file": str(file)} and config["spec"][2] == 2
    values = config["hyperparameters"]
    assert (values["batch_size"], values["net_arch"], values["gamma"]) == (16, [8], 0.5)
    assert config["plan"]["total"] == 100
    main([*command.split(), "--eval-episodes", "0", "--resume"])
    assert "Saved in run" in capsys.readouterr().out


def test_help_shows_the_values_of_the_row(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "ppo", "--tuned", "--env=LunarLander-v3", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert stop.value.code == 0
    assert "(default: 1000000)" in text and "(default: 16)" in text and "(default: 0.999)" in text


def test_the_list_of_settings(file, capsys):
    settings.write_row(file, settings.read("dqn", file)["slow"]._replace(scores=SCORES))
    main(["tuned", "dqn", "--settings", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["algorithm", "environment", "steps"] and len(lines) == 3
    cells = "DQN slow 1,000 3 9.5 9.2 1.0 2026-12-01, version 0.9.0"
    assert " ".join(lines[2].split()) == cells
    main(["tuned", "--settings", str(file.parent), "--env", "slow"])
    out = capsys.readouterr().out
    assert "DQN on slow: 1,000 steps" in out and "of 3 seeds, 100 episodes each" in out
    main(["tuned"])
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in ALGORITHMS)
    main(["tuned", "--env", "HalfCheetah-v5"])
    assert "learning_starts = 10000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tuned dqm", "Did you mean DQN?"),
        ("tuned dqn --env Carpole-v1", "Did you mean 'CartPole-v1'?"),
        ("tuned --env Carpole-v1", "There are no tuned settings for 'Carpole-v1'. Choose from"),
        ("tuned --settings nowhere", "holds the settings of one algorithm"),
        ("tuned --settings .", "has no file of settings"),
        ("tuned dqn --settings nowhere", "no file of tuned settings at nowhere"),
        ("train dqn --env Carpole-v1 --tuned", "no tuned settings for 'Carpole-v1'. Did you"),
        ("train dqn --env CartPole-v1 --tuned --preset pixels", "Choose one of them"),
        ("train dqn --env CartPole-v1 --settings x", "no effect without --tuned"),
    ],
)
def test_bad_commands(command, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = failure(command, capsys)
    assert message in error and error.startswith("agentzoo: ")
