"""Catch: a ball falls, and a paddle at the bottom has to catch it.

The rules are those of bsuite's Catch ("Behaviour Suite for Reinforcement Learning" by Osband et
al., https://arxiv.org/abs/1908.03568). The ball begins in a random column of the top row, the
paddle in the middle of the bottom row. At each step the paddle moves one column to the left, not at
all, or one to the right, and then the ball falls by one row. When the ball reaches the bottom row,
the reward is 1 if the paddle is there and -1 if not, and the episode terminates; all other rewards
are 0. An episode has one step less than the board has rows. On a board of 10 x 5, random play has a
mean return of -0.6.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array


class CatchState(NamedTuple):
    """The positions of ball and paddle.

    Attributes:
      ball_row: int32, 0 at the top.
      ball_column: int32, 0 at the left.
      paddle_column: int32.
    """

    ball_row: Array
    ball_column: Array
    paddle_column: Array


@dataclass(frozen=True)
class Catch:
    """The game on a board of any size.

    Attributes:
      rows: number of rows of the board, at least 2.
      columns: number of columns of the board, at least 1.

    Raises:
      ValueError: if the board is smaller.
    """

    rows: int = 10
    columns: int = 5

    def __post_init__(self):
        if self.rows < 2 or self.columns < 1:
            raise ValueError(
                f"rows={self.rows}, columns={self.columns} is too small. Choose at least 2 rows "
                "and 1 column."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """The board: 1 where the ball and the paddle are, 0 elsewhere."""
        return spaces.Box(0.0, 1.0, (self.rows, self.columns), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """0 for left, 1 to stay, 2 for right."""
        return spaces.Discrete(3)

    def reset(self, key: Array) -> tuple[CatchState, Array]:
        """Begin with the ball in a random column."""
        ball_column = jax.random.randint(key, (), 0, self.columns, jnp.int32)
        state = CatchState(jnp.int32(0), ball_column, jnp.int32(self.columns // 2))
        return state, self._board(state)

    def step(self, state: CatchState, action: Array, key: Array) -> tuple[CatchState, Step]:
        """Move the paddle, then the ball; `key` is not used."""
        paddle_column = jnp.clip(
            state.paddle_column + jnp.asarray(action, jnp.int32) - 1, 0, self.columns - 1
        )
        state = CatchState(state.ball_row + 1, state.ball_column, paddle_column)
        terminated = state.ball_row == self.rows - 1
        reward = jnp.where(
            terminated, jnp.where(paddle_column == state.ball_column, 1.0, -1.0), 0.0
        )
        return state, Step(self._board(state), reward, terminated, jnp.bool_(False))

    def render(self, state: CatchState) -> Array:
        """Return an RGB image of the board, 16 x 16 pixels a cell: red ball, white paddle."""
        ball, paddle = self._cells(state)
        image = 255 * jnp.stack([ball | paddle, paddle, paddle], axis=-1).astype(jnp.uint8)
        return image.repeat(16, axis=0).repeat(16, axis=1)

    def _board(self, state: CatchState) -> Array:
        ball, paddle = self._cells(state)
        return (ball | paddle).astype(jnp.float32)

    def _cells(self, state: CatchState) -> tuple[Array, Array]:
        """Return the cells of the ball and of the paddle, `[rows, columns]` bool each."""
        row, column = jnp.arange(self.rows)[:, None], jnp.arange(self.columns)
        ball = (row == state.ball_row) & (column == state.ball_column)
        return ball, (row == self.rows - 1) & (column == state.paddle_column)
