"""Runners move trajectories between environments and agents. None of them knows an algorithm."""

import importlib.util
from typing import Literal, get_args

from agentzoo.envs import DistantEnvs, Envs, find_native
from agentzoo.runners.base import Cycle, Episode, Runner, RunState
from agentzoo.runners.device import DeviceRunner
from agentzoo.runners.group import GroupRunner, stack, unstack
from agentzoo.runners.host import HostRunner
from agentzoo.runners.programs import Programs, compile_agent, describe_device
from agentzoo.runners.ray_actors import RayRunner
from agentzoo.runners.skipping import OnNan, skipping
from agentzoo.runners.threads import ThreadsRunner
from agentzoo.types import Agent, ConfigurationError

RunnerName = Literal["auto", "host", "device", "threads", "ray"]
RUNNERS: tuple[RunnerName, ...] = get_args(RunnerName)

__all__ = [
    "RUNNERS",
    "Cycle",
    "DeviceRunner",
    "Episode",
    "GroupRunner",
    "HostRunner",
    "OnNan",
    "Programs",
    "RayRunner",
    "RunState",
    "Runner",
    "RunnerName",
    "ThreadsRunner",
    "check_runner",
    "compile_agent",
    "describe_device",
    "make_runner",
    "skipping",
    "stack",
    "unstack",
]


def check_runner(name: RunnerName, n_actors: int) -> None:
    """Refuse a runner that cannot run here, before environments are made.

    Raises:
      ConfigurationError: if a package is missing, or the runner cannot have several actors.
    """
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "runner=\"ray\" needs a package that is not installed. Run: pip install 'agentzoo[ray]'"
        )
    if n_actors > 1 and name not in ("threads", "ray"):
        raise ConfigurationError(
            f"n_actors={n_actors}, but runner={name!r} has a single actor. "
            f'Choose runner="threads" or runner="ray", or leave n_actors out.'
        )


def make_runner(
    name: RunnerName, agent: Agent, programs: Programs, envs: Envs, max_lag: int
) -> Runner:
    """Return the runner of that name.

    "auto" is "device" if the environments can be compiled, and "host" otherwise.

    Raises:
      ConfigurationError: if the runner cannot step these environments.
    """
    env = find_native(envs) if name in ("auto", "device") else None
    if env is None and programs.mesh is not None and programs.mesh.is_multi_process:
        raise ConfigurationError(
            "The devices of several hosts learn together only in environments that are compiled; "
            'with Python environments, let one host learn and the others act: runner="ray".'
        )
    if isinstance(envs, DistantEnvs):
        return RayRunner(agent, programs, envs.shares, envs.make, max_lag, envs.guard.timeout)
    if name == "threads":
        return ThreadsRunner(agent, programs, getattr(envs, "shares", [envs]), max_lag)
    if env is not None:
        return DeviceRunner(agent, programs, envs, env)
    if name == "device":
        raise ConfigurationError(
            'runner="device" needs an environment that is written in JAX from end to end, such as '
            '"agentzoo/CartPole-v0" or a FunctionalEnv, without wrappers in Python; use '
            'runner="host" for this one.'
        )
    return HostRunner(agent, programs, envs)
