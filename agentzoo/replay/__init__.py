"""Memory of past experience: pure functions on pytrees."""

from agentzoo.replay.ring import (
    Batch,
    Prioritisation,
    Replay,
    ReplayBuffer,
    make_replay,
)

__all__ = ["Batch", "Prioritisation", "Replay", "ReplayBuffer", "make_replay"]
