"""The code in README, docs and examples runs, with tiny budgets."""

import re
import runpy
from pathlib import Path

import pytest

from agentzoo import callbacks
from agentzoo.algos.base import Algorithm
from agentzoo.training import together

ROOT = Path(__file__).parents[1]
BLOCKS = [
    pytest.param(
        block,
        id=f"{path.name}-{i}",
        marks=[pytest.mark.xdist_group("ray")] if path.name == "ray.md" else [],
    )
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
]


@pytest.fixture
def tiny(monkeypatch):
    learn, several, evaluate = (
        Algorithm.learn,
        together.learn_together,
        callbacks.EvalCallback.__init__,
    )
    often = {
        "log_interval": 100
    }  # so that the budget is a multiple of it, as that of most examples is of the default
    monkeypatch.setattr(
        Algorithm,
        "learn",
        lambda self, total, *args, **kw: learn(self, min(total, 300), *args, **{**often, **kw}),
    )
    monkeypatch.setattr(
        together,
        "learn_together",
        lambda agents, total, **kwargs: several(agents, min(total, 300), 100, **kwargs),
    )
    monkeypatch.setattr(
        callbacks.EvalCallback,
        "__init__",
        lambda self, env, **kw: evaluate(self, env, **{**kw, "eval_freq": 100}),
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(block, tiny):
    for package, sign in {"gymnax": "import gymnax", "ray": 'runner="ray"'}.items():
        if sign in block:
            pytest.importorskip(package)
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_examples_run(path, tiny):
    runpy.run_path(str(path), run_name="__main__")


def test_commands_of_the_readme_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(
        r"make ([a-z]+)", (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    ):
        assert target in targets
