"""Algorithms of users: registered, trained, saved, loaded and evaluated like ours."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError
from agentzoo.algos import loading
from agentzoo.cli import main
from agentzoo.types import Agent

DOCS = Path(__file__).parents[1] / "docs" / "how-to" / "own-algorithm.md"
FAST = ["--n-steps", "8", "--steps", "64", "--eval-episodes", "2"]


@pytest.fixture(autouse=True)
def _no_registrations(monkeypatch):
    monkeypatch.setattr(loading, "_registered", {})
    monkeypatch.setattr(sys, "path", sys.path[:])  # the command line adds the current folder


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with the algorithm of the documentation, up to its registration."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (text,) = [block for block in blocks if "class Reinforce(" in block]
    (tmp_path / "my_module.py").write_text(text[: text.index("agentzoo.register")])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_module"
    sys.modules.pop("my_module", None)


def reinforce(module):
    __import__(module)
    return sys.modules[module].Reinforce


def leaves(agent):
    return list(map(np.asarray, jax.tree.leaves(agent.params)))


# trained, saved and loaded


@pytest.mark.parametrize(
    ("runner", "env"), [("host", "CartPole-v1"), ("device", "agentzoo/CartPole-v0")]
)
def test_trained_saved_and_loaded_like_ours(module, runner, env, tmp_path):
    cls = agentzoo.register(reinforce(module))
    agent = cls(env, n_envs=2, runner=runner, n_steps=16, gamma=1)
    first = leaves(agent)
    agent.learn(96, progress_bar=False)
    assert agent.num_timesteps == 96 and agent.config.gamma == 1.0
    assert any((before != after).any() for before, after in zip(first, leaves(agent), strict=True))
    path = agent.save(tmp_path / "agent")
    for loaded in (agentzoo.load(path, env=env), cls.load(path, env=env)):
        assert type(loaded) is cls and loaded.config == agent.config
        for one, other in zip(leaves(agent), leaves(loaded), strict=True):
            np.testing.assert_array_equal(one, other)
        loaded.learn(32, progress_bar=False, reset_num_timesteps=False)
    mean, _ = agentzoo.evaluate_policy(agent, env, 2)
    assert mean > 0 and "Reinforce after 96 steps" in str(agent)


def test_learns_with_help_and_checks(module):
    cls = reinforce(module)
    assert "gamma: Discount factor per environment step. A number from 0 to 1" in cls.__doc__
    with pytest.raises(ConfigurationError, match=r"gamma=2\.0 is out of range"):
        cls("CartPole-v1", gamma=2)
    with pytest.raises(ConfigurationError, match="Did you mean 'n_steps'"):
        cls("CartPole-v1", n_step=2)
    with pytest.raises(ConfigurationError, match="needs a Discrete action space"):
        cls("Pendulum-v1")


def test_names_in_any_case(module):
    cls = agentzoo.register(reinforce(module))
    assert loading.find("reinforce") is loading.find("REINFORCE") is cls
    assert loading.find("dqn") is agentzoo.DQN and "Reinforce" in loading.names()


# files


def test_a_file_finds_its_class_if_the_module_is_imported(module, tmp_path):
    path = reinforce(module)("CartPole-v1").save(tmp_path / "agent")
    assert type(agentzoo.load(path)) is reinforce(module)


def test_a_file_does_not_import_modules(module, tmp_path, capsys):
    path = reinforce(module)("CartPole-v1").save(tmp_path / "agent")
    del sys.modules[module]
    with pytest.raises(ConfigurationError) as error:
        agentzoo.load(path)
    assert str(error.value) == (
        f"{path} holds an agent of your class Reinforce from the module my_module, which is not "
        f"registered. Call agentzoo.register(Reinforce) before you load it. For the command line, "
        f"add --algorithm my_module:Reinforce"
    )
    with pytest.raises(SystemExit):
        main(["eval", str(path), "--episodes", "1"])
    assert module not in sys.modules and "add --algorithm my_mod" in capsys.readouterr().err
    main(["eval", str(path), "--episodes", "1", "--algorithm", "my_module:Reinforce"])
    assert module in sys.modules and "Mean return of 1 episodes" in capsys.readouterr().out


def test_files_of_earlier_versions_name_no_module(monkeypatch, tmp_path):
    path = agentzoo.DQN("CartPole-v1").save(tmp_path / "agent")
    read = loading.checkpoint.read_manifest
    monkeypatch.setattr(
        loading.checkpoint,
        "read_manifest",
        lambda *args: {key: one for key, one in read(*args).items() if key != "module"},
    )
    assert loading.find_saved(path) is agentzoo.DQN


# the command line


def test_the_command_line_trains_an_algorithm_of_a_module(module, capsys):
    options = [*FAST, "--gamma", "0.9"]
    main(["train", "my_module:Reinforce", "--env", "CartPole-v1", *options])
    assert "Mean return of 2 evaluation episodes" in capsys.readouterr().out
    folder = Path("runs/Reinforce_CartPole-v1_1")
    config = json.loads((folder / "config.json").read_text())
    assert (config["algorithm"], config["module"]) == ("Reinforce", "my_module")
    assert config["hyperparameters"]["gamma"] == 0.9
    with pytest.raises(SystemExit):
        main(["train", "my_module:Reinforce", "--help"])
    assert "Discount factor per environment step." in capsys.readouterr().out


def test_the_command_line_finds_it_in_another_process(module, tmp_path):
    path = reinforce(module)("CartPole-v1").save(tmp_path / "agent")
    root = str(Path(agentzoo.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); from agentzoo.cli import main; main()"
    options = ["--episodes", "1", "--algorithm", "my_module:Reinforce"]
    command = [sys.executable, "-c", code, "eval", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "Mean return of 1 episodes" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Mine", "There is no module 'nowhere' for nowhere:Mine."),
        ("my_module:Mine", "The module my_module has no class 'Mine'."),
        ("my_module:Agent", "is not an algorithm. Register a subclass of agentzoo.Algorithm."),
        ("reinforc", "There is no algorithm 'reinforc' in agentzoo. Choose from DQN,"),
    ],
)
def test_what_is_not_found(name, message, module, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", name, "--env", "CartPole-v1"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


# what is refused


@dataclass(frozen=True)
class Config:
    size: int = 3


@dataclass(frozen=True)
class WithoutDefault:
    size: int


@dataclass(frozen=True)
class Taken:
    seed: int = 3


@dataclass
class NotFrozen:
    size: int = 3


class State(NamedTuple):
    params: Any


def make_agent(config, spec, network=None):
    return Agent(*[lambda *args: State(())] * 4, 1)


PARTS = dict(Config=Config, make_agent=staticmethod(make_agent), action_spaces=("Box",))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (dict(Config=None), "Mine lacks Config. Set Config, make_agent and action_spaces in"),
        (dict(make_agent=None, action_spaces=None), "Mine lacks make_agent, action_spaces"),
        (dict(Config=NotFrozen), r"Config=.* is not a frozen dataclass. Write @dataclass\(frozen"),
        (dict(Config=3), "Config=3 is not a frozen dataclass"),
        (dict(Config=WithoutDefault), "WithoutDefault.size has no default. Give each"),
        (dict(Config=Taken), "Taken.seed has the name of an argument of every agent."),
        (dict(make_agent=3), "Mine.make_agent=3 is not a function."),
        (dict(action_spaces="Box"), "Mine.action_spaces='Box' is not a tuple of action spaces."),
        (dict(action_spaces=("Boxes",)), "is not a tuple of action spaces. Choose from 'Box', "),
    ],
)  # fmt: skip
def test_a_class_that_lacks_a_part_is_refused(parts, message):
    parts = {name: part for name, part in (PARTS | parts).items() if part is not None}
    with pytest.raises(ConfigurationError, match=message):
        agentzoo.register(type("Mine", (agentzoo.Algorithm,), parts))


@pytest.mark.parametrize("what", [3, int, agentzoo.Linear])
def test_what_is_no_algorithm_is_refused(what):
    with pytest.raises(ConfigurationError, match="is not an algorithm"):
        agentzoo.register(what)


def test_names_are_registered_once():
    mine = type("Mine", (agentzoo.Algorithm,), PARTS)
    assert agentzoo.register(mine) is agentzoo.register(mine) is mine
    again = type("Mine", (agentzoo.Algorithm,), PARTS)  # a cell of a notebook runs again
    assert agentzoo.register(again) is loading.find("mine") is again
    other = type("MINE", (agentzoo.Algorithm,), {**PARTS, "__module__": "elsewhere"})
    with pytest.raises(ConfigurationError, match=r"The name MINE is taken by .*Mine\. Give"):
        agentzoo.register(other)
    with pytest.raises(ConfigurationError, match=r"The name DQN is taken by agentzoo\.algos"):
        agentzoo.register(type("DQN", (agentzoo.DQN,), {}))
    assert agentzoo.register(agentzoo.DQN) is agentzoo.DQN
