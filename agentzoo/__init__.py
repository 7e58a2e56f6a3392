"""agentzoo: reinforcement-learning agents in JAX for Gymnasium environments.

from agentzoo import DQN

agent = DQN("CartPole-v1").learn(1e5)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agentzoo.algos.dqn import DQN
    from agentzoo.algos.impala import IMPALA
    from agentzoo.algos.loading import load
    from agentzoo.algos.mpo import MPO
    from agentzoo.algos.ppo import PPO
    from agentzoo.algos.qrdqn import QRDQN
    from agentzoo.algos.sac import SAC
    from agentzoo.compilation import use_compilation_cache
    from agentzoo.config import Linear
    from agentzoo.envs import make_env
    from agentzoo.evaluation import evaluate_policy
    from agentzoo.training.together import learn_together
    from agentzoo.types import ConfigurationError

# What is public, and where it lives. Nothing is imported before it is used, so that `import
# agentzoo` costs nothing.
_HOMES = {
    "DQN": "agentzoo.algos.dqn",
    "IMPALA": "agentzoo.algos.impala",
    "MPO": "agentzoo.algos.mpo",
    "PPO": "agentzoo.algos.ppo",
    "QRDQN": "agentzoo.algos.qrdqn",
    "SAC": "agentzoo.algos.sac",
    "ConfigurationError": "agentzoo.types",
    "Linear": "agentzoo.config",
    "evaluate_policy": "agentzoo.evaluation",
    "learn_together": "agentzoo.training.together",
    "load": "agentzoo.algos.loading",
    "make_env": "agentzoo.envs",
    "use_compilation_cache": "agentzoo.compilation",
}

__all__ = [
    "DQN",
    "IMPALA",
    "MPO",
    "PPO",
    "QRDQN",
    "SAC",
    "ConfigurationError",
    "Linear",
    "evaluate_policy",
    "learn_together",
    "load",
    "make_env",
    "use_compilation_cache",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("algos", "callbacks", "core", "envs", "networks", "replay", "runners"):
        return importlib.import_module(f"agentzoo.{name}")
    raise AttributeError(f"module 'agentzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
