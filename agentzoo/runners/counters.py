"""Where a run stands, as compiled programs are told it: in one int32 vector per call.

Each argument of a compiled function costs time, so the counters of a call travel packed. Only the
classes below know the order in which they are packed.
"""

from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np

from agentzoo.types import Array, Clock

LIMIT = 2**31
"""Counters of calls start again from 0 here, since int32 holds no more."""


class ActCounters(NamedTuple):
    """What a call of `act` needs to know.

    Attributes:
      step: environment steps so far, by all environments together.
      total: the step at which the run ends.
      act_calls: calls of `act` so far, by all actors together. With the run's key, it determines
        the random numbers of the call.
    """

    step: Any
    total: Any
    act_calls: Any

    def pack(self) -> np.ndarray:
        """Return the counters as an int32 vector."""
        return np.array((self.step, self.total, self.act_calls % LIMIT), np.int32)

    @classmethod
    def unpack(cls, packed: Array) -> Self:
        """Return the counters that `pack` has packed."""
        return cls(*packed)

    @property
    def clock(self) -> Clock:
        """The clock that `act` reads."""
        return Clock(self.step, jnp.zeros_like(self.step), self.total)


class LearnCounters(NamedTuple):
    """What a call of `learn` needs to know.

    Attributes:
      step: environment steps so far, with those of the trajectory.
      cycle: environment steps of the trajectory.
      total: the step at which the run ends.
    """

    step: Any
    cycle: Any
    total: Any

    def pack(self) -> np.ndarray:
        """Return the counters as an int32 vector."""
        return np.array((self.step, self.cycle, self.total), np.int32)

    @classmethod
    def unpack(cls, packed: Array) -> Self:
        """Return the counters that `pack` has packed."""
        return cls(*packed)

    @property
    def clock(self) -> Clock:
        """The clock that `learn` reads."""
        return Clock(self.step, self.cycle, self.total)


class ChunkCounters(NamedTuple):
    """What a chunk of compiled training cycles needs to know.

    Attributes:
      cycles: how many cycles to run.
      step: environment steps before the chunk.
      act_calls: calls of `act` before the chunk.
      total: the step at which the run ends.
    """

    cycles: Any
    step: Any
    act_calls: Any
    total: Any

    def pack(self) -> np.ndarray:
        """Return the counters as an int32 vector."""
        counters = (self.cycles, self.step, self.act_calls % LIMIT, self.total)
        return np.array(counters, np.int32)

    @classmethod
    def unpack(cls, packed: Array) -> Self:
        """Return the counters that `pack` has packed."""
        return cls(*packed)
