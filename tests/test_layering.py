"""Who may import whom. A part that is not named in its row is out of its reach."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "agentzoo"
OWN = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {
    "__init__",
    "__pycache__",
    "py",
}
OUTER = {
    "jax",
    "haiku",
    "optax",
    "distrax",
    "gymnasium",
    "chex",
    "tensorboardX",
    "tqdm",
    "tyro",
    "safetensors",
    "ml_dtypes",
    "ale_py",
    "ray",
    "numpy",
}

# Of ours and of others'; `gymnasium.spaces` is no more than a type, and open to those that read
# spaces.
MAY_IMPORT = {
    "types": {"jax", "gymnasium.spaces"},
    "keywords": {"types"},
    "config": {"jax", "numpy", "keywords", "types"},
    "sharding": {"jax", "numpy", "types"},
    "core": {"jax", "chex", "distrax", "core"},
    "networks": {
        "jax",
        "haiku",
        "distrax",
        "numpy",
        "gymnasium.spaces",
        "core",
        "types",
        "networks",
    },
    "replay": {"jax", "core", "sharding", "types", "replay"},
    "envs": {"gymnasium", "gymnasium.spaces", "jax", "numpy", "types", "envs", "ale_py"},
    "runners": {"jax", "numpy", "ray", "envs", "process", "sharding", "types", "runners"},
    "process": {"jax"},
    "training": {
        *("jax", "numpy", "callbacks", "checkpoint", "config", "envs", "logging", "progress"),
        *("runners", "sharding", "types", "training"),
    },
    "evaluation": {"gymnasium", "jax", "numpy", "envs", "types"},
    "progress": {"tqdm"},
    "callbacks": {"numpy", "tqdm", "envs", "evaluation", "progress", "types"},
    "checkpoint": {"jax", "numpy", "ml_dtypes", "safetensors", "types"},
    "logging": {"numpy", "tensorboardX", "types"},
    "compilation": {"jax"},
    "description": {"jax", "types"},
    "algos.base": {
        *("numpy", "callbacks", "config", "description", "envs", "keywords", "logging"),
        *("process", "training", "types"),
    },
    "algos.loading": {"checkpoint", "types", "algos.base"},
    "algos.*": {
        "jax",
        "haiku",
        "optax",
        "distrax",
        "core",
        "networks",
        "replay",
        "config",
        "sharding",
        "types",
        "algos.base",
    },
    "__main__": {"cli"},
    "cli": {
        "tyro",
        "gymnasium",
        "algos.loading",
        "checkpoint",
        "compilation",
        "config",
        "envs",
        "evaluation",
        "types",
    },
}


def imports(path):
    """Modules that a file imports, ours without the leading `agentzoo.`, as (module, name) pairs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def part_of(module, name):
    """The part of the house, or the package, that an import refers to."""
    parts = module.split(".")
    if parts[0] != "agentzoo":
        return (
            "gymnasium.spaces"
            if (module, name) == ("gymnasium", "spaces")
            else parts[0]
            if parts[0] in OUTER
            else "another"
        )
    parts = parts[1:] or [name]
    if parts[0] == "algos":
        return ".".join((*parts, name)[:2])
    return parts[0]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_follow_the_table(path):
    place = path.relative_to(PACKAGE).with_suffix("").parts
    if place in (("__init__",), ("algos", "__init__")):
        return  # the public face refers to everything, and imports it when it is used
    here = f"algos.{place[1]}" if place[0] == "algos" else place[0]
    allowed = MAY_IMPORT.get(here) or MAY_IMPORT["algos.*" if here.startswith("algos.") else here]
    for module, name in imports(path):
        part = part_of(module, name)
        if part in OWN | OUTER | {"gymnasium.spaces"} or part.startswith("algos."):
            assert part in allowed, f"{here} must not import {part} ({module})"


def test_the_table_names_every_part():
    assert OWN - {"algos"} == {part for part in MAY_IMPORT if "." not in part}


def test_no_runner_names_an_algorithm():
    from agentzoo.algos.loading import ALGORITHMS

    for path in (PACKAGE / "runners").glob("*.py"):
        for name in ALGORITHMS.values():
            assert name not in path.read_text()
