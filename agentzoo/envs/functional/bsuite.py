"""Two environments of bsuite: one needs deep exploration, and one needs memory.

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
    """The position of the diver, as int32 from the top left."""

    row: Array
    column: Array


@dataclass(frozen=True)
class DeepSea:
    """Deep Sea: a diver must go right at every step to find the treasure.

    At each step, the diver sinks by one row and moves one column to the left or to the right. A
    move to the right costs 0.01 / size. The treasure, in the last column of the last row, is worth
    1. An episode has `size` steps. Random play finds the treasure once in 2^size episodes.

    Attributes:
      size: number of rows and of columns.
      mapping_seed: seed that decides for each cell which of the two actions goes right. If None,
        action 1 goes right in all cells.

    Raises:
      ValueError: if `size` is less than 1.
    """

    size: int = 10
    mapping_seed: int | None = 0

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size={self.size} is too small. Choose at least 1.")

    @property
    def observation_space(self) -> spaces.Box:
        """The sea, with 1 at the position of the diver. It is empty at the end of an episode."""
        return spaces.Box(0.0, 1.0, (self.size, self.size), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Left or right, see `mapping_seed`."""
        return spaces.Discrete(2)

    def reset(self, key: Array) -> tuple[DeepSeaState, Array]:
        """Begin at the top left; `key` is not used."""
        state = DeepSeaState(jnp.int32(0), jnp.int32(0))
        return state, self._sea(state)

    def step(self, state: DeepSeaState, action: Array, key: Array) -> tuple[DeepSeaState, Step]:
        """Sink to the left or to the right; `key` is not used."""
        right = action == self.right_actions()[state.row, state.column]
        found = right & (state.column == self.size - 1)
        reward = jnp.where(found, 1.0, 0.0) - jnp.where(right, 0.01 / self.size, 0.0)
        column = jnp.clip(state.column + jnp.where(right, 1, -1), 0, self.size - 1)
        state = DeepSeaState(state.row + 1, column)
        return state, Step(self._sea(state), reward, state.row == self.size, jnp.bool_(False))

    def right_actions(self) -> Array:
        """Return the action that goes right in each cell, `[size, size]`."""
        size = (self.size, self.size)
        return jnp.array(
            np.ones(size)
            if self.mapping_seed is None
            else np.random.default_rng(self.mapping_seed).integers(2, size=size)
        )

    def _sea(self, state: DeepSeaState) -> Array:
        """Return the observation, `[size, size]`."""
        places = jnp.arange(self.size)
        return ((places[:, None] == state.row) & (places == state.column)).astype(jnp.float32)


class MemoryChainState(NamedTuple):
    """The bits, the question, and the time.

    Attributes:
      context: `[num_bits]` int32, the bits, 0 or 1.
      query: int32, the index of the bit that will be asked for.
      t: int32, number of steps since the episode began.
    """

    context: Array
    query: Array
    t: Array


@dataclass(frozen=True)
class MemoryChain:
    """Memory Chain: the agent must remember bits from the first step to the last one.

    The first observation shows the bits, and the last one asks for one of them. At the last step,
    the right action has reward 1 and the wrong one -1. All other rewards are 0.

    Attributes:
      memory_length: number of steps of an episode.
      num_bits: number of bits to remember.

    Raises:
      ValueError: if one of the numbers is less than 1.
    """

    memory_length: int = 10
    num_bits: int = 1

    def __post_init__(self):
        if self.memory_length < 1 or self.num_bits < 1:
            raise ValueError(
                f"memory_length={self.memory_length}, num_bits={self.num_bits} is too small. "
                "Choose at least 1 for both."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """The remaining time from 1 to 0, the question, and the bits, `[2 + num_bits]`.

        The question is the index of a bit at the last step, and 0 before. The bits are -1 or 1 at
        the first step, and 0 after it.
        """
        return spaces.Box(-1.0, float(max(1, self.num_bits - 1)), (2 + self.num_bits,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The value of the bit."""
        return spaces.Discrete(2)

    def reset(self, key: Array) -> tuple[MemoryChainState, Array]:
        """Begin an episode with random bits and a random question."""
        context_key, query_key = jax.random.split(key)
        context = jax.random.randint(context_key, (self.num_bits,), 0, 2, jnp.int32)
        state = MemoryChainState(
            context, jax.random.randint(query_key, (), 0, self.num_bits, jnp.int32), jnp.int32(0)
        )
        return state, self._observe(state)

    def step(
        self, state: MemoryChainState, action: Array, key: Array
    ) -> tuple[MemoryChainState, Step]:
        """Take an action, which matters only at the last step; `key` is not used."""
        right = action == state.context[state.query]
        state = state._replace(t=state.t + 1)
        over = state.t == self.memory_length
        reward = jnp.where(over, jnp.where(right, 1.0, -1.0), 0.0)
        return state, Step(self._observe(state), reward, over, jnp.bool_(False))

    def _observe(self, state: MemoryChainState) -> Array:
        """Return the observation, `[2 + num_bits]`."""
        query = jnp.where(state.t == self.memory_length - 1, state.query, 0)
        context = jnp.where(state.t == 0, 2 * state.context - 1, 0)
        return jnp.concatenate(
            [jnp.stack([1 - state.t / self.memory_length, query]), context]
        ).astype(jnp.float32)
