"""The documentation explains every tag of the log, and every hyperparameter."""

import csv
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from agentzoo.algos.loading import find
from agentzoo.hyperparameters import hyperparameters
from tests import agents

PAGES = Path(__file__).parents[1] / "docs" / "algorithms"
PENDULUM = "agentzoo/Pendulum-v0"
OFF_POLICY = {"n_steps": 1}
BOX = {  # the algorithms that log other tags for Box actions
    "PPO": dict(recurrent=None),
    "SAC": OFF_POLICY,
    "MPO": OFF_POLICY,
}


def documented(section):
    """Return the tags that a section explains."""
    sections = YAML(typ="safe").load(PAGES / "log.yaml")
    return {tag for tags in sections[section] for tag in tags.split(", ")}


def logged(algorithm, env, **options):
    """Return the tags in the log of a short run."""
    agent = agents.make(algorithm, env, run_dir="run", runner="host", **options)
    agent.learn(256, log_interval=64, progress_bar=False)
    with Path("run", "progress.csv").open() as file:
        return set(next(csv.reader(file)))


@pytest.mark.parametrize("algorithm", list(agents.SETTINGS))
def test_tags_of_each_algorithm(algorithm, tmp_path, monkeypatch):
    found = logged(algorithm, agents.CATCH)
    if algorithm in BOX:
        (tmp_path / "box").mkdir()
        monkeypatch.chdir(tmp_path / "box")
        found |= logged(algorithm, PENDULUM, **BOX[algorithm])
    assert found == documented("all") | documented(algorithm)


def test_advice_is_about_hyperparameters_that_exist():
    advice = YAML(typ="safe").load(PAGES / "advice.yaml")
    names = {name: set(hyperparameters(find(name).Config)) for name in agents.SETTINGS}
    own = {tuple(key.split(".")) for key in advice if "." in key}
    common = {key for key in advice if "." not in key}
    for algorithm, name in own:
        assert name in names[algorithm]
    for name in common:  # a key that every algorithm overrides would never be read
        assert any(name in names[each] and (each, name) not in own for each in names), name
    for algorithm, found in names.items():
        assert found <= common | {name for each, name in own if each == algorithm}
