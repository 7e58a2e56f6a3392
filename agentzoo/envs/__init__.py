"""Environments of every kind behind one interface."""

from agentzoo.envs.gym_envs import Envs, GymEnvs, make_buffers
from agentzoo.envs.make import EnvLike, make_env, make_envs
from agentzoo.envs.vector_envs import VectorEnvs

__all__ = ["EnvLike", "Envs", "GymEnvs", "VectorEnvs", "make_buffers", "make_env", "make_envs"]
