"""Which part of the package may import which. A part may import nothing that its row lacks."""

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
    "jax2onnx",
    "onnx_ir",
    "onnxruntime",
    "haiku",
    "optax",
    "distrax",
    "gymnasium",
    "chex",
    "mlflow",
    "tensorboardX",
    "wandb",
    "tqdm",
    "tyro",
    "ruamel",
    "rich",
    "jsonschema",
    "safetensors",
    "huggingface_hub",
    "optuna",
    "sqlalchemy",
    "ml_dtypes",
    "ale_py",
    "ray",
    "numpy",
}

# For each part of the package, the parts and the other packages that it may import.
# `gymnasium.spaces` is listed apart from `gymnasium` because it holds types alone, which parts that
# make no environments may read.
MAY_IMPORT = {
    "types": {"jax", "gymnasium.spaces"},
    "elements": {"jax", "gymnasium.spaces", "types"},
    "keywords": {"types"},
    "hyperparameters": {"types"},
    "signatures": {"hyperparameters"},
    "config": {"jax", "numpy", "hyperparameters", "keywords", "types"},
    "sharding": {"jax", "numpy", "types"},
    "core": {"jax", "distrax", "core"},
    "networks": {
        "jax",
        "haiku",
        "distrax",
        "numpy",
        "gymnasium.spaces",
        "core",
        "elements",
        "types",
        "networks",
    },
    "replay": {"jax", "elements", "process", "sharding", "types", "replay"},
    "envs": {
        "gymnasium",
        "gymnasium.spaces",
        "jax",
        "numpy",
        "ale_py",
        "background",
        "elements",
        "types",
        "envs",
    },
    "runners": {
        *("jax", "numpy", "ray"),
        *("background", "envs", "process", "sharding", "types", "runners"),
    },
    "background": {"jax"},
    "process": {"jax"},
    "training": {
        *("jax", "numpy", "background", "callbacks", "checkpoint", "config", "envs", "logging"),
        *("policy", "process", "progress", "runners", "sharding", "types", "training"),
    },
    "policy": {"jax", "envs", "runners", "types"},
    "export": {
        *("gymnasium.spaces", "jax", "jax2onnx", "numpy", "onnx_ir", "onnxruntime"),
        *("checkpoint", "envs", "policy", "types", "export"),
    },
    "settings": {"ruamel", "algos.ALGORITHMS", "config", "types", "settings"},
    "check": {"algos.loading", "config", "envs", "types"},
    "evaluation": {"gymnasium", "numpy", "envs", "types"},
    "progress": {"tqdm"},
    "callbacks": {
        *("numpy", "tqdm", "envs", "evaluation", "keywords", "progress", "types", "callbacks"),
    },
    "checkpoint": {
        *("jax", "jsonschema", "numpy", "ml_dtypes", "safetensors"),
        *("background", "elements", "types", "checkpoint"),
    },
    "logging": {"mlflow", "numpy", "tensorboardX", "wandb", "types", "logging"},
    "compilation": {"jax"},
    "description": {"jax", "hyperparameters", "types"},
    "algos.base": {
        *("numpy", "callbacks", "config", "description", "envs", "export", "keywords", "logging"),
        *("policy", "process", "settings", "signatures", "training", "types", "algos.restoring"),
    },
    "algos.restoring": {"config", "envs", "training", "types"},
    "algos.loading": {"checkpoint", "types", "algos.ALGORITHMS", "algos.base"},
    "algos.resuming": {
        *("callbacks", "checkpoint", "config", "envs", "logging", "progress", "training"),
        *("types", "algos.base", "algos.loading"),
    },
    "algos.off_policy": {"jax", "replay", "types"},
    "algos.optimizers": {"jax", "optax", "types"},
    "algos.*": {
        "jax",
        "haiku",
        "optax",
        "core",
        "networks",
        "replay",
        "config",
        "sharding",
        "types",
        *("algos.base", "algos.off_policy", "algos.optimizers"),
    },
    "lab": {
        *("gymnasium", "jsonschema", "numpy", "optuna", "ray", "rich", "ruamel", "sqlalchemy"),
        *("algos.loading", "algos.resuming", "callbacks", "checkpoint", "compilation", "config"),
        *("envs", "evaluation", "lab", "logging", "process", "progress", "runners", "settings"),
        "training",
        "types",
    },
    "zoo": {
        *("numpy", "huggingface_hub"),
        *("algos.base", "algos.loading", "checkpoint", "config", "envs", "lab", "logging"),
        *("types", "zoo"),
    },
    "__main__": {"cli"},
    "cli": {
        "tyro",
        "background",
        "gymnasium",
        "algos.ALGORITHMS",
        "algos.loading",
        "algos.resuming",
        "checkpoint",
        "cli",
        "lab",
        "compilation",
        "config",
        "hyperparameters",
        "envs",
        "runners",
        "evaluation",
        "settings",
        "training",
        "types",
        "zoo",
    },
}


def imports(path):
    """Yield what a file imports, as pairs of a module and a name (None for `import module`)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def part_of(module, name):
    """Return the part of agentzoo, or the other package, that an import refers to."""
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


def row_of(path):
    """Return the row of the table that a file of the package belongs to."""
    place = path.relative_to(PACKAGE).with_suffix("").parts
    here = f"algos.{place[1]}" if place[0] == "algos" else place[0]
    return here if here in MAY_IMPORT or place[0] != "algos" else "algos.*"


# The public face, and that of the algorithms, refer to everything and import it when it is used.
FACES = {PACKAGE / "__init__.py", PACKAGE / "algos" / "__init__.py"}
FILES = sorted(set(PACKAGE.rglob("*.py")) - FACES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    row = row_of(path)
    for module, name in imports(path):
        part = part_of(module, name)
        if part in OWN | OUTER | {"gymnasium.spaces"} or part.startswith("algos."):
            assert part in MAY_IMPORT[row], f"{row} must not import {part} ({module})"


def test_the_table_names_every_part():
    assert OWN - {"algos"} == {part for part in MAY_IMPORT if "." not in part}


def test_the_table_has_no_permission_that_nobody_uses():
    used = {row: set() for row in MAY_IMPORT}
    for path in FILES:
        used[row_of(path)].update(part_of(*imported) for imported in imports(path))
    assert {row: MAY_IMPORT[row] - used[row] for row in MAY_IMPORT} == {
        row: set() for row in MAY_IMPORT
    }


def test_no_runner_names_an_algorithm():
    from agentzoo.algos import ALGORITHMS

    for path in (PACKAGE / "runners").glob("*.py"):
        for name in ALGORITHMS:
            assert name not in path.read_text()
