"""Damaged and malicious files end in an agent or in an error of our own, and run no code."""

import json
import os
import pickle
import sys
import warnings

import numpy as np
import pytest
import safetensors.numpy

import agentzoo
from agentzoo import DQN, ConfigurationError
from agentzoo.cli import main
from agentzoo.training.session import REVISION
from benchmarks import fuzz_files
from tests.agents import SETTINGS, make

CASES = 100


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved agent, and the parts of its file."""
    agent = DQN("agentzoo/Catch-v0", **{**SETTINGS["DQN"], "buffer_size": 64})
    path = agent.save(tmp_path_factory.mktemp("saved") / "agent", exclude="replay")
    return fuzz_files.Parts(path.read_bytes())


def write(path, parts, **entries):
    """Write a file whose manifest has other entries, with the right checksum."""
    content = json.loads(parts.text)
    hyperparameters = entries.pop("hyperparameters", {})
    content["manifest"]["hyperparameters"] |= hyperparameters
    content["manifest"] |= entries
    path.write_bytes(fuzz_files.build(parts.header, parts.data, json.dumps(content)))
    return path


def box(shape, **entries):
    return {"type": "Box", "dtype": "float32", "shape": shape, "low": 0.0, "high": 1.0, **entries}


DISCRETE = {"type": "Discrete", "dtype": "int64", "n": 3, "start": 0}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_with_random_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("FUZZ_TRACE", str(tmp_path / "trace"))
    originals = tmp_path / "originals"
    originals.mkdir()
    agent = DQN("agentzoo/Catch-v0", **{**SETTINGS["DQN"], "buffer_size": 64})
    agent.save(originals / "dqn")
    make("PPO", "agentzoo/Catch-v0").save(originals / "ppo")
    fuzz_files.make_checkpoints(originals / "checkpoints", agent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with warnings.catch_warnings():
        parts = fuzz_files.prepare(tmp_path)
        ended = [
            fuzz_files.run_case(number, parts, originals / "checkpoints", tmp_path)
            for number in range(CASES)
        ]
    wrong = [case for case in ended if case[1] not in ("loaded", "refused", "memory", "slow")]
    assert not wrong, wrong[0]
    assert sum(case[1] == "refused" for case in ended) > CASES / 2
    assert any(case[1] == "loaded" for case in ended)


HUGE = {
    "layers": (dict(hyperparameters={"net_arch": [10**9, 10**9]}), "holds .*linear"),
    "more layers": (dict(hyperparameters={"net_arch": [8] * 2_000}), r"\['net_arch'\] is wrong"),
    "observations": (dict(spec=[box([10**9]), DISCRETE, 1]), "of 1000000000 numbers"),
    "few observations": (dict(spec=[box([10**6]), DISCRETE, 1]), "holds .*linear"),
    "actions": (dict(spec=[box([10, 5]), DISCRETE | {"n": 10**12}, 1]), "holds .*linear"),
    "environments": (dict(spec=[box([10, 5]), DISCRETE, 10**6]), "declares 1000000 environments"),
    "replay": (dict(hyperparameters={"buffer_size": 10**12}), "buffer_size=1000000000000 needs"),
    "integer": (dict(seed=10**30), "does not fit into 64 bits"),
    "depth": (dict(log=json.loads("[" * 50 + "]" * 50)), "nested more than 32 levels"),
    "revision": (dict(revision=REVISION + 1), "Please update agentzoo"),
}


@pytest.mark.parametrize("case", HUGE)
def test_what_a_file_declares_is_compared_with_what_it_holds(case, saved, tmp_path):
    entries, message = HUGE[case]
    path = write(tmp_path / "agent.safetensors", saved, **entries)
    assert path.stat().st_size < 100_000
    with pytest.raises(ConfigurationError, match=message) as error:
        agentzoo.load(path)
    assert str(path) in str(error.value)


WRONG = {
    "algorithm": [1, None, [], "x" * 5_000],
    "module": [1, {}],
    "env_id": [1, []],
    "env_kwargs": [1, "x", []],
    "seed": [-1, 1.0, "1", None, True, float("nan")],
    "hyperparameters": [None, [], 1],
    "network": [1, {}],
    "spec": [None, {}, [], [box([1])], [box([10, 5]), DISCRETE, 0], [box([10, 5]), DISCRETE, 1.0]],
    "revision": [0, "3", None],
    "excluded": [None, "x", [1], ["params"]],
    "predictions": [-1, 0.5, None],
    "episodes": [None, [], {"rewards": [], "lengths": []}],
    "env_name": [1, []],
    "versions": [None, [], {"jax": 1}],
    "step": [-1, 0.5, "x"],
    "log": [1, []],
    "callbacks": [1, "x", []],
    "plan": [1, [], {}, {"finished": 1}],
    "unfinished": [1, [], {}],
}


@pytest.mark.parametrize("entry", WRONG)
def test_every_entry_of_a_manifest_is_checked(entry, saved, tmp_path):
    for value in WRONG[entry]:
        path, content = tmp_path / "agent.safetensors", json.loads(saved.text)
        content["manifest"][entry] = value
        path.write_bytes(fuzz_files.build(saved.header, saved.data, json.dumps(content)))
        with pytest.raises(ConfigurationError) as error:
            agentzoo.load(path)
        assert str(path) in str(error.value) and repr(entry) in str(error.value), value


SPACES = [
    {"type": "Graph"},
    box([10, 5], dtype="object"),
    box([10, 5], dtype="float128"),
    box([10, 5], low=[0.0, 1.0]),
    box([10, 5], low={"a": 1}),
    box([-1]),
    DISCRETE | {"n": 0},
    DISCRETE | {"dtype": "float32"},
    {"type": "MultiDiscrete", "dtype": "int64", "nvec": [[2], [3, 4]], "start": [0]},
    {"type": "MultiBinary", "dtype": "int8", "n": -1},
    {"type": "Dict", "spaces": [["a"]]},
    {"type": "Tuple", "spaces": [0]},
]


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_spaces_that_do_not_exist_are_refused(space, saved, tmp_path):
    for spec in ([space, DISCRETE, 1], [box([10, 5]), space, 1]):
        path = write(tmp_path / "agent.safetensors", saved, spec=spec)
        with pytest.raises(ConfigurationError) as error:
            agentzoo.load(path)
        assert str(path) in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="makes a FIFO")
def test_what_is_no_saved_agent_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    path = tmp_path / "agent.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    contents = [
        *(pickle.dumps(Trap()), b"", b"junk", (10**15).to_bytes(8, "little") + b"{}"),
        *((tmp_path / "foreign.safetensors").read_bytes(), b"[" * 100_000),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"agent\.safetensors is"):
            agentzoo.load(path)
    for make_it in (os.mkfifo, os.mkdir):
        path.unlink()
        make_it(path)
        with pytest.raises(FileNotFoundError, match="no saved agent"):
            agentzoo.load(path)
    assert not (tmp_path / "trace").exists()


def test_a_file_cannot_make_the_command_line_import_a_module(saved, tmp_path, capsys, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('the module was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "agent.safetensors"
    for env_id in ("trap:Trap-v0", "GymV26Environment-v0"):
        write(path, saved, env_id=env_id, env_kwargs={"env_id": "trap:Trap-v0"})
        for command in ("eval", "video"):
            with pytest.raises(SystemExit) as stop:
                main([command, str(path)])
            assert stop.value.code == 2
            assert (
                f"add --env {env_id} --env-kwargs env_id:trap:Trap-v0." in capsys.readouterr().err
            )
    write(path, saved, algorithm="Mine", module="trap")
    with pytest.raises(SystemExit):
        main(["eval", str(path)])
    assert "add --algorithm trap:Mine" in capsys.readouterr().err and "trap" not in sys.modules
