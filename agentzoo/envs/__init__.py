"""Environments of every kind behind one interface."""

from agentzoo.envs.make import EnvLike, make_env, make_envs
from agentzoo.envs.vector import Envs, GymEnvs, Step, VectorEnvs

__all__ = ["EnvLike", "Envs", "GymEnvs", "Step", "VectorEnvs", "make_env", "make_envs"]
