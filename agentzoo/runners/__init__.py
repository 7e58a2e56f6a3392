"""Runners move trajectories between environments and agents. None of them knows an algorithm."""

from agentzoo.runners.host import Cycle, Episode, HostRunner, Programs, RunState, compile_agent
from agentzoo.runners.threads import ThreadsRunner

__all__ = ["Cycle", "Episode", "HostRunner", "Programs", "RunState", "ThreadsRunner", "compile_agent"]
