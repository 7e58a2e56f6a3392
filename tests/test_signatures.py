"""What `help`, notebooks, type checkers and editors know about the arguments of an agent."""

import dataclasses
import importlib
import inspect
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import agentzoo
from agentzoo.algos import ALGORITHMS
from agentzoo.config import hyperparameters

ROOT = Path(agentzoo.__file__).parents[1]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_signature_and_docstring_have_every_hyperparameter(name):
    cls = getattr(agentzoo, name)
    parameters = inspect.signature(cls).parameters
    text = " ".join(cls.__doc__.split())
    for one in hyperparameters(cls.Config).values():
        assert parameters[one.name].default == one.default
        assert parameters[one.name].annotation == one.type
        assert f" {one.name}: {one.text} " in text and f"efault {one.default!r}." in text
    shared = inspect.signature(agentzoo.Algorithm.__init__).parameters
    for one in ("env", "n_envs", "preset"):
        assert parameters[one].default == shared[one].default and f" {one}: " in text
    assert "hyperparameters" not in parameters and "self" not in parameters
    assert all(len(line) <= 100 for line in cls.__doc__.split("\n"))
    assert cls.__doc__.count("\nArgs:\n") == cls.__doc__.count("\nRaises:\n") == 1


def test_subclasses_of_users():
    class Preset(agentzoo.DQN):
        """DQN with a preset."""

    class Own(agentzoo.DQN):
        def __init__(self, env, size=3, **kwargs):
            super().__init__(env, net_arch=(size,), **kwargs)

    assert inspect.signature(Preset) == inspect.signature(agentzoo.DQN)
    assert Preset.__doc__.startswith("DQN with a preset.\n\nArgs:\n  env: ")
    assert list(inspect.signature(Own).parameters)[:3] == ["env", "size", "learning_rate"]
    assert Own("CartPole-v1", 7, gamma=0.5).config.net_arch == (7,)


def test_abstract_subclasses_stay_as_they_are():
    class Abstract(agentzoo.Algorithm):
        """No config yet."""

    assert Abstract.__doc__ == "No config yet."


def test_jupyter_completes_hyperparameters():
    """Completion of IPython and Jedi reads the signature."""
    names = [name for name in inspect.signature(agentzoo.SAC).parameters if name.startswith("pol")]
    assert names == ["policy_delay"]


# type checkers and editors


def test_the_stub_is_up_to_date():
    script = runpy.run_path(str(ROOT / "scripts" / "stubs.py"))
    assert script["content"]() == script["PATH"].read_text(), "run: make stubs"


def check(tmp_path, text):
    """The lines of a file about which pyright complains, with what it says."""
    pyright = shutil.which("pyright", path=Path(sys.executable).parent) or shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    (tmp_path / "example.py").write_text(text)
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    output = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert output["summary"]["filesAnalyzed"] == 1, output
    return {
        one["range"]["start"]["line"] + 1: one["message"] for one in output["generalDiagnostics"]
    }


def test_pyright_knows_the_hyperparameters(tmp_path):
    lines, wrong = ["from typing import assert_type", "import agentzoo"], {}
    for name in ALGORITHMS:
        config = importlib.import_module(ALGORITHMS[name])
        config = getattr(config, name).Config
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        defaults.pop("learning_rate")
        given = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
        given = given.replace("Linear(", "agentzoo.Linear(")
        lines += [
            f'agent = agentzoo.{name}("CartPole-v1", learning_rate=agentzoo.Linear(1.0), {given})',
            f"assert_type(agent.learn(1e5), agentzoo.{name})",
            f'agentzoo.{name}("CartPole-v1", net_arch=[8], learning_rate=lambda x: x, n_envs=2)',
            f'assert_type(agentzoo.{name}.load("path", gamma=0.9), agentzoo.{name})',
        ]
        for call, message in (
            (f'agentzoo.{name}("CartPole-v1", learnng_rate=1)', "learnng_rate"),
            (f'agentzoo.{name}("CartPole-v1", gamma="x")', "gamma"),
            (f'agentzoo.{name}("CartPole-v1", activation="rela")', "activation"),
            (f'agentzoo.{name}.load("path", gama=0.9)', "gama"),
        ):
            lines.append(call)
            wrong[len(lines)] = message
    lines += [
        "from agentzoo.algos.dqn import DQNConfig",
        "class Mine(agentzoo.Algorithm[DQNConfig]): ...",
        'Mine("CartPole-v1", gamma=0.9).config.gamma',
    ]
    found = check(tmp_path, "\n".join(lines))
    assert found.keys() == wrong.keys(), found
    assert all(message in found[line] for line, message in wrong.items())
