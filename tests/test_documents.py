"""The code in README and docs runs, with tiny budgets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{i}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(block, tiny):
    needs = {
        "gymnax": "import gymnax",
        "ray": 'runner="ray"',
        "jax2onnx": ".onnx",
        "wandb": "Wandb",
    }
    for package, sign in needs.items():
        if sign in block:
            pytest.importorskip(package)
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})


def test_commands_of_the_readme_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(
        r"make ([a-z]+)", (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    ):
        assert target in targets
