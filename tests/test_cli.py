import json
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from agentzoo import use_compilation_cache
from agentzoo.cli import main


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    settings = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in settings}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compiled_programs_are_kept(tmp_path):
    found = []

    def listen(event, **_):
        found.append(event.endswith("cache_hits"))

    def program(x):
        return x * 7 + 3

    jax.monitoring.register_event_listener(listen)
    assert use_compilation_cache() == tmp_path / "caches" / "agentzoo"
    assert use_compilation_cache(tmp_path / "mine") == use_compilation_cache() == tmp_path / "mine"
    jax.jit(program)(1.0)
    assert not any(found) and any((tmp_path / "mine").iterdir())
    jax.clear_caches()
    jax.jit(program)(1.0)
    jax.monitoring.unregister_event_listener(listen)
    assert any(found)


def test_train_evaluate_and_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    main(
        [
            "train",
            "dqn",
            "--env",
            "CartPole-v1",
            "--steps",
            "200",
            "--learning-rate",
            "linear:1e-3,1e-4",
            "--net-arch",
            "16",
            "16",
            "--no-double-q",
            "--eval-episodes",
            "2",
        ]
    )
    out = capsys.readouterr().out
    assert any((tmp_path / "caches" / "agentzoo").iterdir())
    assert "Saved in runs/DQN_CartPole-v1_1" in out and "Mean return of 2 fresh episodes" in out
    config = json.loads((tmp_path / "runs" / "DQN_CartPole-v1_1" / "config.json").read_text())["hyperparameters"]
    assert (config["learning_rate"], config["net_arch"], config["double_q"]) == ({"linear": [1e-3, 1e-4]}, [16, 16], False)
    main(["eval", "runs/DQN_CartPole-v1_1", "--episodes", "3"])
    assert "Mean return of 3 episodes of CartPole-v1" in capsys.readouterr().out
    main(["video", "runs/DQN_CartPole-v1_1", "--episodes", "2"])
    assert len(list((tmp_path / "runs" / "DQN_CartPole-v1_1" / "videos").glob("*.mp4"))) == 2


def test_help_is_made_from_the_comments_of_the_config(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "dqn", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert stop.value.code == 0 and "--target-update-interval" in out and "Steps between two updates of the target network." in out
    for command in (["--help"], ["train", "--help"], ["eval", "--help"], ["video", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0


def test_what_may_be_none(capsys):
    for given, expected in (("None", None), ("linear:0.2,0.1", {"linear": [0.2, 0.1]})):
        options = ["--clip-range-vf", given, "--target-kl", "0.1", "--recurrent", "gru", "--eval-episodes", "0"]
        main(["train", "ppo", "--env", "CartPole-v1", "--steps", "8", "--n-steps", "8", "--batch-size", "8", *options])
        config = json.loads(sorted(Path("runs").glob("*/config.json"))[-1].read_text())["hyperparameters"]
        assert (config["clip_range_vf"], config["target_kl"], config["recurrent"]) == (expected, 0.1, "gru")


def test_a_preset_changes_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "dqn", "--preset", "pixels", "--help"])
    assert "0.0001" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train dqm --env CartPole-v1", "no algorithm 'dqm'"),
        ("train dqn --env CartPoll-v1", "did you mean 'CartPole-v1'"),
        ("train dqn --env CartPole-v1 --gamma 3", "gamma=3.0 is out of range"),
        ("train dqn --env CartPole-v1 --preset big", "no preset 'big'"),
        ("eval nowhere", "no saved agent at nowhere"),
    ],
)
def test_bad_requests_end_with_one_sentence(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.startswith("agentzoo: ") and error.count("\n") == 1
