"""Finding an algorithm by its name, in code and in saved files."""

import difflib
import importlib
import os
from typing import Any

from agentzoo import checkpoint
from agentzoo.algos.base import Algorithm
from agentzoo.types import ConfigurationError

ALGORITHMS = {
    "dqn": "DQN",
    "impala": "IMPALA",
    "mpo": "MPO",
    "ppo": "PPO",
    "qrdqn": "QRDQN",
    "sac": "SAC",
}
"""Module in `agentzoo.algos` -> class."""


def find(name: str) -> type[Algorithm]:
    """The class of an algorithm, by its name in any case.

    Raises:
      ConfigurationError: if there is none.
    """
    module = name.lower()
    if module not in ALGORITHMS:
        close = difflib.get_close_matches(module, ALGORITHMS, n=1)
        advice = f"did you mean {ALGORITHMS[close[0]]}? Choose" if close else "choose"
        advice = f"{advice} from {', '.join(ALGORITHMS.values())}."
        raise ConfigurationError(f"There is no algorithm {name!r} in agentzoo; {advice}")
    return getattr(importlib.import_module(f"agentzoo.algos.{module}"), ALGORITHMS[module])


def load(path: str | os.PathLike, env: Any = None, **kwargs: Any) -> Algorithm:
    """Loads a saved agent of whichever algorithm; see `Algorithm.load`.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if it does not hold an agent of one of our algorithms.
    """
    return find(checkpoint.read_manifest(path)["algorithm"]).load(path, env, **kwargs)
