"""Environments of every kind behind one interface.

Importing this package registers our own environments with Gymnasium under ids such as
`agentzoo/Catch-v0`; see `agentzoo.envs.registration`.
"""

from agentzoo.envs import registration
from agentzoo.envs.base import Envs, EnvStep, make_trajectory, stack_rows, trajectory_shapes
from agentzoo.envs.functional import (
    Acrobot,
    Asterix,
    BraxAdapter,
    Breakout,
    CartPole,
    Catch,
    DeepSea,
    FuncEnvAdapter,
    FunctionalEnv,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    GymnaxAdapter,
    MemoryChain,
    MountainCar,
    MountainCarContinuous,
    MultiArmedBandit,
    Pendulum,
    Step,
    TimeLimit,
)
from agentzoo.envs.guard import Guard, OnError
from agentzoo.envs.gym_envs import GymEnvs
from agentzoo.envs.infos import number
from agentzoo.envs.joint import as_vector_env
from agentzoo.envs.make import (
    EnvLike,
    env_maker,
    find_native,
    make_env,
    make_envs,
    needs_import,
)
from agentzoo.envs.records import class_name, identify, is_custom, name_of
from agentzoo.envs.shares import DistantEnvs, SharedEnvs, has_dummy_steps, make_shared_envs
from agentzoo.envs.use import TrainingEnv, parts_of
from agentzoo.envs.vector_envs import VectorEnvs

__all__ = [
    "Acrobot",
    "Asterix",
    "BraxAdapter",
    "Breakout",
    "CartPole",
    "Catch",
    "DeepSea",
    "DistantEnvs",
    "EnvLike",
    "EnvStep",
    "Envs",
    "FuncEnvAdapter",
    "FunctionalEnv",
    "FunctionalGymEnv",
    "FunctionalVectorEnv",
    "Guard",
    "GymEnvs",
    "GymnaxAdapter",
    "MemoryChain",
    "MountainCar",
    "MountainCarContinuous",
    "MultiArmedBandit",
    "OnError",
    "Pendulum",
    "SharedEnvs",
    "Step",
    "TimeLimit",
    "TrainingEnv",
    "VectorEnvs",
    "as_vector_env",
    "class_name",
    "env_maker",
    "find_native",
    "has_dummy_steps",
    "identify",
    "is_custom",
    "make_env",
    "make_envs",
    "make_shared_envs",
    "make_trajectory",
    "name_of",
    "needs_import",
    "number",
    "parts_of",
    "stack_rows",
    "trajectory_shapes",
]

registration.register()
