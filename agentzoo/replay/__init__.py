"""Replay buffers as pure functions on pytrees, so that a replay can live in the state of an agent.

Each environment has its own ring of rows, in which consecutive rows are consecutive steps. So a
buffer stores steps, and forms n-step transitions when it draws them. The rings of L rows for N
environments are stored as one axis of L * N slots; slot `row * N + env` holds one step.

Small observations are stored with their steps. Large observations have rings of their own, in which
each frame is stored once (`frames.py`).
"""

from agentzoo.replay.buffer import ReplayBuffer, make_replay
from agentzoo.replay.contents import Prioritisation, Replay
from agentzoo.replay.drawing import Batch

__all__ = ["Batch", "Prioritisation", "Replay", "ReplayBuffer", "make_replay"]
