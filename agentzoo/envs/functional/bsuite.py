"""Two problems of bsuite, one that needs deep exploration, and one that needs memory.

"Behaviour Suite for Reinforcement Learning", Osband et al., https://arxiv.org/abs/1908.03568.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array


class DeepSeaState(NamedTuple):
    """Where the diver is, int32 from the top left."""

    row: Array
    column: Array


@dataclass(frozen=True)
class DeepSea:
    """A diver sinks by one row at each step, one column to the left or to the right; the treasure is in the last column at the bottom.

    Going right costs 0.01 / size, and only who always goes right finds the treasure, which is worth
    1: random play does once in 2^size episodes of `size` steps.

    Attributes:
      size: rows and columns.
      mapping_seed: which of the two actions goes right differs from cell to cell, and is drawn with
        this seed; None for 1 everywhere.
    """

    size: int = 10
    mapping_seed: int | None = 0

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size={self.size}; expected at least 1.")

    @property
    def observation_space(self) -> spaces.Box:
        """The sea, with 1 where the diver is; empty at the end."""
        return spaces.Box(0.0, 1.0, (self.size, self.size), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Left or right."""
        return spaces.Discrete(2)

    def reset(self, key: Array) -> tuple[DeepSeaState, Array]:
        """Begins at the top left; `key` is not used."""
        state = DeepSeaState(jnp.int32(0), jnp.int32(0))
        return state, self._sea(state)

    def step(self, state: DeepSeaState, action: Array, key: Array) -> tuple[DeepSeaState, Step]:
        """Sinks to the left or to the right; `key` is not used."""
        right = action == self._rights()[state.row, state.column]
        found = right & (state.column == self.size - 1)
        reward = jnp.where(found, 1.0, 0.0) - jnp.where(right, 0.01 / self.size, 0.0)
        column = jnp.clip(state.column + jnp.where(right, 1, -1), 0, self.size - 1)
        state = DeepSeaState(state.row + 1, column)
        return state, Step(self._sea(state), reward, state.row == self.size, jnp.bool_(False))

    def _rights(self) -> Array:
        """Which action goes right, `[size, size]`."""
        size = (self.size, self.size)
        return jnp.array(
            np.ones(size)
            if self.mapping_seed is None
            else np.random.default_rng(self.mapping_seed).integers(2, size=size)
        )

    def _sea(self, state: DeepSeaState) -> Array:
        places = jnp.arange(self.size)
        return ((places[:, None] == state.row) & (places == state.column)).astype(jnp.float32)


class MemoryChainState(NamedTuple):
    """What is to be remembered.

    Attributes:
      context: `[num_bits]` int32, 0 or 1.
      query: int32, the bit that will be asked for.
      t: int32, steps since the episode began.
    """

    context: Array
    query: Array
    t: Array


@dataclass(frozen=True)
class MemoryChain:
    """Bits are seen at the first step, and one of them is asked for at the last: reward 1 for the right action there, -1 for the other.

    Attributes:
      memory_length: steps of an episode.
      num_bits: how many bits there are to remember.
    """

    memory_length: int = 10
    num_bits: int = 1

    def __post_init__(self):
        if self.memory_length < 1 or self.num_bits < 1:
            raise ValueError(
                f"memory_length={self.memory_length}, num_bits={self.num_bits}; expected at least 1."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """The time that is left, from 1 to 0; at the last step, which bit is asked for; at the first, the bits as -1 or 1."""
        return spaces.Box(-1.0, float(max(1, self.num_bits - 1)), (2 + self.num_bits,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The bit."""
        return spaces.Discrete(2)

    def reset(self, key: Array) -> tuple[MemoryChainState, Array]:
        """Draws the bits."""
        context_key, query_key = jax.random.split(key)
        context = jax.random.randint(context_key, (self.num_bits,), 0, 2, jnp.int32)
        state = MemoryChainState(
            context, jax.random.randint(query_key, (), 0, self.num_bits, jnp.int32), jnp.int32(0)
        )
        return state, self._observe(state)

    def step(
        self, state: MemoryChainState, action: Array, key: Array
    ) -> tuple[MemoryChainState, Step]:
        """Takes an action, which matters at the last step only; `key` is not used."""
        right = action == state.context[state.query]
        state = state._replace(t=state.t + 1)
        over = state.t == self.memory_length
        reward = jnp.where(over, jnp.where(right, 1.0, -1.0), 0.0)
        return state, Step(self._observe(state), reward, over, jnp.bool_(False))

    def _observe(self, state: MemoryChainState) -> Array:
        query = jnp.where(state.t == self.memory_length - 1, state.query, 0)
        context = jnp.where(state.t == 0, 2 * state.context - 1, 0)
        return jnp.concatenate(
            [jnp.stack([1 - state.t / self.memory_length, query]), context]
        ).astype(jnp.float32)
