"""The examples run, and do what they promise."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# These have tests of their own.
PROMISES = ("benchmark_own_algorithm", "custom_callback", "policy_gradient", "pop_art", "q_lambda")
OTHERS = [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem not in PROMISES]


def printed(name, pattern, capsys):
    """Run an example, and return the number that it prints."""
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return float(re.search(pattern, capsys.readouterr().out).group(1))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_examples_run(path, tiny):
    runpy.run_path(str(path), run_name="__main__")


def test_an_algorithm_of_a_user_in_a_benchmark(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as when it is run as a script
    assert 0 <= printed("benchmark_own_algorithm", r"greedydqn, seed 1: ([\d.]+)", capsys) <= 1


def test_the_callback_logs_to_the_end(capsys):
    """The budget is not tiny, because it must be a multiple of `log_interval`."""
    assert 0 < printed("custom_callback", r"Agreement with the rule: (\d+)%", capsys) <= 100


@pytest.mark.learning
def test_q_lambda_catches_every_ball(capsys):
    assert printed("q_lambda", r"greedy policy: ([\d.]+)", capsys) == 1.0


@pytest.mark.learning
def test_the_policy_gradient_passes_its_mark(capsys):
    assert printed("policy_gradient", r"last 10 updates: ([\d.]+)", capsys) > 0.9


@pytest.mark.learning
def test_pop_art_learns_at_every_scale():
    errors = runpy.run_path(str(EXAMPLES / "pop_art.py"))["main"]()
    assert len(errors) == 10
    for (name, scale), error in errors.items():
        assert (error < 1e-3) == (name == "PopArt" or scale == 1), (name, scale, error)
