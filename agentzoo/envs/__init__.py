"""Environments of every kind behind one interface."""

from agentzoo.envs.make import EnvLike, make_env, make_envs
from agentzoo.envs.vector import Envs, GymEnvs, VectorEnvs, make_buffers

__all__ = ["EnvLike", "Envs", "GymEnvs", "VectorEnvs", "make_buffers", "make_env", "make_envs"]
