"""Runners move trajectories between environments and agents. None of them knows an algorithm."""

from agentzoo.envs import Envs, find_native
from agentzoo.runners.device import DeviceRunner, GroupRunner, stack, unstack
from agentzoo.runners.host import Cycle, Episode, HostRunner, Programs, RunState, compile_agent
from agentzoo.types import Agent, ConfigurationError

RUNNERS = ("auto", "host", "device")

__all__ = [
    "RUNNERS",
    "Cycle",
    "DeviceRunner",
    "Episode",
    "GroupRunner",
    "HostRunner",
    "Programs",
    "RunState",
    "compile_agent",
    "make_runner",
    "stack",
    "unstack",
]


def make_runner(name: str, agent: Agent, programs: Programs, envs: Envs) -> HostRunner | DeviceRunner:
    """The runner of that name; "auto" is "device" where the environments can be compiled, and else "host".

    Raises:
      ConfigurationError: if there is none, or it cannot step these environments.
    """
    if name not in RUNNERS:
        raise ConfigurationError(f"runner={name!r} is unknown; choose one of {', '.join(RUNNERS)}.")
    env = find_native(envs) if name != "host" else None
    if name == "device" and env is None:
        raise ConfigurationError(
            'runner="device" needs an environment that is written in JAX from end to end, such as "agentzoo/CartPole-v0" or a '
            'FunctionalEnv, without wrappers in Python; use runner="host" for this one.'
        )
    return HostRunner(agent, programs, envs) if env is None else DeviceRunner(agent, programs, envs, env)
