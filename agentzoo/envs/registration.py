"""Registration of our environments with Gymnasium.

`gymnasium.make("agentzoo/Catch-v0")` makes one environment. `gymnasium.make_vec` makes several
environments, which one compiled program steps.
"""

from typing import Any

import gymnasium as gym

from agentzoo.envs.functional import (
    Acrobot,
    Asterix,
    Breakout,
    CartPole,
    Catch,
    DeepSea,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    MemoryChain,
    MountainCar,
    MountainCarContinuous,
    MultiArmedBandit,
    Pendulum,
)

ENVIRONMENTS = {
    "Acrobot": Acrobot,
    "Asterix": Asterix,
    "Bandit": MultiArmedBandit,
    "Breakout": Breakout,
    "CartPole": CartPole,
    "Catch": Catch,
    "DeepSea": DeepSea,
    "MemoryChain": MemoryChain,
    "MountainCar": MountainCar,
    "MountainCarContinuous": MountainCarContinuous,
    "Pendulum": Pendulum,
}
"""Functional environments by name. Their fields are arguments of `gymnasium.make`."""


def make(name: str, render_mode: str | None = None, **fields: Any) -> FunctionalGymEnv:
    """Make one environment, for `gymnasium.make`."""
    return FunctionalGymEnv(ENVIRONMENTS[name](**fields), render_mode)


def make_vec(
    name: str, num_envs: int, render_mode: str | None = None, **fields: Any
) -> FunctionalVectorEnv:
    """Make `num_envs` environments, for `gymnasium.make_vec`."""
    return FunctionalVectorEnv(ENVIRONMENTS[name](**fields), num_envs, render_mode)


def register() -> None:
    """Register all environments as `agentzoo/<name>-v0`."""
    here = "agentzoo.envs.registration"
    for name in ENVIRONMENTS:
        gym.register(
            f"agentzoo/{name}-v0",
            f"{here}:make",
            kwargs={"name": name},
            vector_entry_point=f"{here}:make_vec",
        )
