"""agentzoo: reinforcement-learning agents in JAX for Gymnasium environments.

from agentzoo import DQN

agent = DQN("CartPole-v1").learn(1e5)

Type checkers and editors read `__init__.pyi`, which has the hyperparameters of each agent.
"""

import importlib
from typing import Any

from agentzoo.algos import ALGORITHMS

__version__ = "0.1.0"

# What is public, and where it lives. Nothing is imported before it is used, so that `import
# agentzoo` costs nothing.
_HOMES = {
    **ALGORITHMS,
    "Algorithm": "agentzoo.algos.base",
    "ConfigurationError": "agentzoo.types",
    "check_env": "agentzoo.check",
    "EnvError": "agentzoo.types",
    "Linear": "agentzoo.config",
    "evaluate_policy": "agentzoo.evaluation",
    "learn_together": "agentzoo.training.together",
    "load": "agentzoo.algos.loading",
    "make_env": "agentzoo.envs",
    "load_from_hub": "agentzoo.zoo.hub",
    "pretrained": "agentzoo.zoo",
    "push_to_hub": "agentzoo.zoo.hub",
    "register": "agentzoo.algos.loading",
    "resume": "agentzoo.algos.resuming",
    "use_compilation_cache": "agentzoo.compilation",
}
_MODULES = (
    *("algos", "callbacks", "core", "envs", "networks", "replay", "runners"),
    *("lab", "settings", "zoo"),
)

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"agentzoo.{name}")
    raise AttributeError(f"module 'agentzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
