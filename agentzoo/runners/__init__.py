"""Runners move trajectories between environments and agents. None of them knows an algorithm."""

from agentzoo.runners.host import Cycle, Episode, HostRunner, Programs, RunState, compile_agent

__all__ = ["Cycle", "Episode", "HostRunner", "Programs", "RunState", "compile_agent"]
