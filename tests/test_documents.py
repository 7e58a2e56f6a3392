"""The code in README and docs runs, with tiny budgets."""

import dataclasses
import re
from pathlib import Path

import pytest

import agentzoo
from agentzoo.cli import options

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{i}")
    for path in DOCUMENTS
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


COMMANDS = {
    "eval": options.Eval,
    "video": options.Video,
    "report": options.Report,
    "plot": options.Plot,
    "export": options.Export,
    "tune": options.Tune,
    "tuned": options.Tuned,
    "benchmark": options.Benchmark,
    "zoo": options.Zoo,
}


def words(cls):
    """Return the names of the fields of a config class, as options of the command line."""
    names = [field.name.replace("_", "-") for field in dataclasses.fields(cls)]
    return {*names, *(f"no-{name}" for name in names), "help"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_the_options_that_documents_name(path):
    text = path.read_text().replace("\\\n", " ")
    for command in re.findall(rf"agentzoo ((?:train|{'|'.join(COMMANDS)})\b[^`\n#|]*)", text):
        name, *arguments = command.rstrip(".,;:) ").split()
        given = {word.split("=")[0][2:] for word in arguments if word.startswith("--")}
        if name != "train":
            assert given <= words(COMMANDS[name]), command
            continue
        algorithm = arguments[0].upper() if arguments else ""
        classes = [getattr(agentzoo, algorithm, None)]
        if classes[0] is None:  # an algorithm of the reader's own, or the command without one
            classes = [agentzoo.DQN, agentzoo.QRDQN, agentzoo.PPO]
        assert any(given <= words(options.Train) | words(cls.Config) for cls in classes), command


def test_tags_of_the_checklist_are_logged():
    text = (ROOT / "docs" / "how-to" / "not-learning.md").read_text()
    tags = set(re.findall(r"`((?:rollout|train|env|time)/[a-z_]+)`", text))
    source = "".join(path.read_text() for path in (ROOT / "agentzoo").rglob("*.py"))
    assert len(tags) > 12
    for tag in tags:
        assert f'"{tag}"' in source, tag


def test_the_readme_is_short_and_its_links_exist():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_files_name_the_same_version():
    assert f"\nversion: {agentzoo.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] in ("Unreleased", agentzoo.__version__)
    assert agentzoo.__version__ in headings
