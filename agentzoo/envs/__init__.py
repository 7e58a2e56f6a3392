"""Environments of every kind behind one interface.

Importing this module registers our own with Gymnasium: `agentzoo/Bandit-v0` and `agentzoo/Catch-v0`.
"""

import gymnasium as gym

from agentzoo.envs.bandit import MultiArmedBandit
from agentzoo.envs.catch import Catch
from agentzoo.envs.functional import FunctionalEnv, FunctionalGymEnv, Step
from agentzoo.envs.gym_envs import Envs, GymEnvs, make_buffers
from agentzoo.envs.make import EnvLike, make_env, make_envs
from agentzoo.envs.shares import SharedEnvs, make_shared_envs
from agentzoo.envs.vector_envs import VectorEnvs

__all__ = [
    "Catch",
    "EnvLike",
    "Envs",
    "FunctionalEnv",
    "FunctionalGymEnv",
    "GymEnvs",
    "MultiArmedBandit",
    "SharedEnvs",
    "Step",
    "VectorEnvs",
    "make_buffers",
    "make_env",
    "make_envs",
    "make_shared_envs",
]

gym.register("agentzoo/Bandit-v0", entry_point="agentzoo.envs.bandit:make")
gym.register("agentzoo/Catch-v0", entry_point="agentzoo.envs.catch:make")
