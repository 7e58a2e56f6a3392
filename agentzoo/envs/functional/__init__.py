"""Environments that are written in JAX, and adapters between them and other libraries.

`api` defines the interface, `stepping` steps N environments, and `as_gymnasium` turns functional
environments into `gymnasium.Env` and `VectorEnv`. `adapters` makes functional environments of
Gymnasium, gymnax and Brax usable. All other modules are environments.
"""

from agentzoo.envs.functional.adapters import BraxAdapter, FuncEnvAdapter, GymnaxAdapter, adapt
from agentzoo.envs.functional.api import FunctionalEnv, Step, TimeLimit
from agentzoo.envs.functional.as_gymnasium import (
    FunctionalGymEnv,
    FunctionalVectorEnv,
    draw_keys,
    find_functional,
)
from agentzoo.envs.functional.bandit import MultiArmedBandit
from agentzoo.envs.functional.bsuite import DeepSea, MemoryChain
from agentzoo.envs.functional.catch import Catch
from agentzoo.envs.functional.classic_control import (
    Acrobot,
    CartPole,
    MountainCar,
    MountainCarContinuous,
    Pendulum,
)
from agentzoo.envs.functional.minatar import Asterix, Breakout
from agentzoo.envs.functional.stepping import EnvState, advance, advance_all, begin, begin_all

__all__ = [
    "Acrobot",
    "Asterix",
    "BraxAdapter",
    "Breakout",
    "CartPole",
    "Catch",
    "DeepSea",
    "EnvState",
    "FuncEnvAdapter",
    "FunctionalEnv",
    "FunctionalGymEnv",
    "FunctionalVectorEnv",
    "GymnaxAdapter",
    "MemoryChain",
    "MountainCar",
    "MountainCarContinuous",
    "MultiArmedBandit",
    "Pendulum",
    "Step",
    "TimeLimit",
    "adapt",
    "advance",
    "advance_all",
    "begin",
    "begin_all",
    "draw_keys",
    "find_functional",
]
