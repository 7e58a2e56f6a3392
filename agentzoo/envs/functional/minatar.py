"""Two games of MinAtar on a board of 10 x 10.

The rules are those of "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments" by Young and Tian (https://arxiv.org/abs/1903.03176).

An observation is the board `[10, 10, 4]`. Each kind of object has a channel, which is 1 where an
object is. With probability `sticky`, the previous action is repeated instead of the new one.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array

SIZE = 10
_PLACES = np.arange(SIZE)
# The colour of each channel in images, [4, 3].
_COLOURS = np.array([[255, 255, 255], [255, 64, 64], [96, 48, 48], [255, 200, 0]], np.uint8)


def _cell(row: Array | int, column: Array) -> Array:
    """Return a board `[10, 10]` that is True at one cell, or nowhere if the cell is outside."""
    return (_PLACES[:, None] == row) & (column == _PLACES)


def _stick(sticky: float, state: Any, action: Array, key: Array) -> Array:
    """Return the action that is taken: the new one, or the previous one."""
    return jnp.where(
        jax.random.bernoulli(key, float(sticky)), state.last_action, jnp.asarray(action, jnp.int32)
    )


def _image(board: Array) -> Array:
    """Return an RGB image of a board `[10, 10, 4]`, 16 x 16 pixels a cell."""
    # [10, 10, 4, 1] * [4, 3]: the brightest channel of a cell wins.
    cells = jnp.max(board.astype(jnp.uint8)[..., None] * _COLOURS, axis=2)
    return cells.repeat(16, axis=0).repeat(16, axis=1)


class BreakoutState(NamedTuple):
    """The state of the game.

    Attributes:
      ball: `[2]` int32, row and column of the ball.
      last_ball: `[2]` int32, row and column of the ball one step before.
      direction: `[2]` int32, direction of the ball along rows and columns, -1 or 1.
      paddle: int32, column of the paddle, which is in the last row.
      bricks: `[10, 10]` bool, cells with a brick.
      struck: bool, whether the ball met a brick in the newest step.
      last_action: int32, the newest action.
    """

    ball: Array
    last_ball: Array
    direction: Array
    paddle: Array
    bricks: Array
    struck: Array
    last_action: Array


@dataclass(frozen=True)
class Breakout:
    """Breakout: a paddle keeps a ball on the board, and the ball breaks bricks.

    The reward is 1 for each broken brick. The episode terminates if the ball passes the paddle.

    The ball moves along diagonals. Walls, bricks and the paddle reflect it. When the ball breaks a
    brick, it stays in its row. It passes through bricks that it meets in the steps directly after.
    If the paddle is below the ball, the ball bounces up and keeps its horizontal direction. If the
    paddle is where the ball would land, the ball goes back the way it came. After the last brick is
    broken, three new rows of bricks appear when the ball reaches the bottom. The channels are the
    paddle, the ball, the previous position of the ball, and the bricks.

    Attributes:
      sticky: probability that the previous action is repeated.
    """

    sticky: float = 0.1

    observation_space = spaces.Box(0.0, 1.0, (SIZE, SIZE, 4), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, key: Array) -> tuple[BreakoutState, Array]:
        """Begin with the ball at the left or the right side."""
        left = jax.random.bernoulli(key)
        ball = jnp.stack([jnp.int32(3), jnp.where(left, 0, SIZE - 1).astype(jnp.int32)])
        direction = jnp.stack([jnp.int32(1), jnp.where(left, 1, -1).astype(jnp.int32)])
        state = BreakoutState(
            ball, ball, direction, jnp.int32(4), _wall(), jnp.bool_(False), jnp.int32(1)
        )
        return state, self._board(state)

    def step(self, state: BreakoutState, action: Array, key: Array) -> tuple[BreakoutState, Step]:
        """Move the paddle (0 left, 1 not at all, 2 right), and then the ball."""
        action = _stick(self.sticky, state, action, key)
        paddle = jnp.clip(state.paddle + action - 1, 0, SIZE - 1)
        row, column = state.ball
        down, right = state.direction
        bricks = state.bricks
        new_column = column + right
        right = jnp.where((new_column < 0) | (new_column >= SIZE), -right, right)
        new_column = jnp.clip(new_column, 0, SIZE - 1)
        new_row = row + down
        ceiling = new_row < 0
        new_row = jnp.maximum(new_row, 0)
        meets = ~ceiling & bricks[new_row, new_column]
        broken = meets & ~state.struck
        bottom = ~ceiling & ~meets & (new_row == SIZE - 1)
        bricks = jnp.where(broken, bricks & ~_cell(new_row, new_column), bricks)
        bricks = jnp.where(bottom & ~bricks.any(), _wall(), bricks)
        above = bottom & (column == paddle)
        beside = bottom & (column != paddle) & (new_column == paddle)
        down = jnp.where(ceiling | broken | above | beside, -down, down)
        right = jnp.where(beside, -right, right)
        new_row = jnp.where(broken | above | beside, row, new_row)
        ball, direction = jnp.stack([new_row, new_column]), jnp.stack([down, right])
        state = BreakoutState(ball, state.ball, direction, paddle, bricks, meets, action)
        return state, Step(
            self._board(state),
            broken.astype(jnp.float32),
            bottom & ~above & ~beside,
            jnp.bool_(False),
        )

    def render(self, state: BreakoutState) -> Array:
        """Return an RGB image of the board."""
        return _image(self._board(state))

    def _board(self, state: BreakoutState) -> Array:
        """Return the observation, `[10, 10, 4]`."""
        things = (
            _cell(SIZE - 1, state.paddle),
            _cell(*state.ball),
            _cell(*state.last_ball),
            state.bricks,
        )
        return jnp.stack(things, axis=-1).astype(jnp.float32)


def _wall() -> Array:
    """Return three rows of bricks below the first row, `[10, 10]` bool."""
    return jnp.broadcast_to(((_PLACES >= 1) & (_PLACES <= 3))[:, None], (SIZE, SIZE))


class AsterixState(NamedTuple):
    """The state of the game. Each of the rows 1 to 8 holds at most one moving object.

    Attributes:
      player: `[2]` int32, row and column of the player.
      column: `[8]` int32, column of the object in each row.
      right: `[8]` bool, whether the object moves to the right.
      gold: `[8]` bool, whether the object is gold; otherwise it is an enemy.
      there: `[8]` bool, whether the row holds an object.
      spawn_in: int32, number of steps until the next object may appear.
      move_in: int32, number of steps until the objects move.
      spawn_every: int32, number of steps between two appearances.
      move_every: int32, number of steps between two movements.
      ramp_in: int32, number of steps until the game becomes faster.
      ramps: int32, how often the game became faster.
      last_action: int32, the newest action.
    """

    player: Array
    column: Array
    right: Array
    gold: Array
    there: Array
    spawn_in: Array
    move_in: Array
    spawn_every: Array
    move_every: Array
    ramp_in: Array
    ramps: Array
    last_action: Array


@dataclass(frozen=True)
class Asterix:
    """Asterix: the player collects gold and avoids enemies.

    Objects enter from the sides, and a third of them is gold. Touching gold has reward 1. Touching
    an enemy ends the episode. Every 100 steps, objects appear and move faster. The channels are the
    player, the enemies, the previous positions of moving objects, and the gold.

    Attributes:
      sticky: probability that the previous action is repeated.
      ramping: whether the game becomes faster.
    """

    sticky: float = 0.1
    ramping: bool = True

    observation_space = spaces.Box(0.0, 1.0, (SIZE, SIZE, 4), np.float32)
    action_space = spaces.Discrete(5)

    def reset(self, key: Array) -> tuple[AsterixState, Array]:
        """Begin in the middle of an empty board; `key` is not used."""
        none = jnp.zeros(8, bool)
        # From `spawn_in` to `last_action`.
        counts = jnp.array([10, 5, 10, 5, 100, 0, 0], jnp.int32)
        state = AsterixState(
            jnp.array([5, 5], jnp.int32), jnp.zeros(8, jnp.int32), none, none, none, *counts
        )
        return state, self._board(state)

    def step(self, state: AsterixState, action: Array, key: Array) -> tuple[AsterixState, Step]:
        """Let an object appear, move the player, and then the objects.

        The actions are 0 to stay, 1 for left, 2 for up, 3 for right and 4 for down.
        """
        stick_key, spawn_key = jax.random.split(key)
        action = _stick(self.sticky, state, action, stick_key)
        state = self._spawn(state, spawn_key)
        move = jnp.array([[0, 0], [0, -1], [-1, 0], [0, 1], [1, 0]])[action]
        player = jnp.clip(
            state.player + move, jnp.array([1, 0]), jnp.array([SIZE - 2, SIZE - 1])
        ).astype(jnp.int32)
        state = state._replace(player=player, last_action=action)
        state, gold, caught = self._meet(state)

        moving = state.move_in == 0
        column = jnp.where(moving, state.column + jnp.where(state.right, 1, -1), state.column)
        there = state.there & (column >= 0) & (column < SIZE)
        state, more, caught_now = self._meet(state._replace(column=column, there=there))
        spawn_in = jnp.where(state.spawn_in == 0, state.spawn_every, state.spawn_in) - 1
        move_in = jnp.where(moving, state.move_every, state.move_in) - 1
        state = self._ramp(state._replace(spawn_in=spawn_in, move_in=move_in))
        return state, Step(
            self._board(state),
            (gold + more).astype(jnp.float32),
            caught | caught_now,
            jnp.bool_(False),
        )

    def render(self, state: AsterixState) -> Array:
        """Return an RGB image of the board."""
        return _image(self._board(state))

    def _spawn(self, state: AsterixState, key: Array) -> AsterixState:
        """Let an object appear in a random free row, if it is time."""
        side_key, gold_key, row_key = jax.random.split(key, 3)
        right, gold = jax.random.bernoulli(side_key), jax.random.bernoulli(gold_key, 1 / 3)
        row = jnp.argmax(jnp.where(state.there, -1.0, jax.random.uniform(row_key, (8,))))
        new = (jnp.arange(8) == row) & ~state.there & (state.spawn_in == 0)
        return state._replace(
            column=jnp.where(new, jnp.where(right, 0, SIZE - 1), state.column),
            right=jnp.where(new, right, state.right),
            gold=jnp.where(new, gold, state.gold),
            there=state.there | new,
        )

    def _meet(self, state: AsterixState) -> tuple[AsterixState, Array, Array]:
        """Let the player meet the object in its cell.

        Returns:
          The state without collected gold, how much gold was collected, and whether the player met
          an enemy.
        """
        met = (
            state.there
            & (jnp.arange(1, SIZE - 1) == state.player[0])
            & (state.column == state.player[1])
        )
        return (
            state._replace(there=state.there & ~(met & state.gold)),
            (met & state.gold).sum(),
            (met & ~state.gold).any(),
        )

    def _ramp(self, state: AsterixState) -> AsterixState:
        """Make the game faster, if it is time.

        Appearances become faster each time, and movements every second time.
        """
        due = self.ramping & (state.ramp_in == 0)
        flies = due & (state.move_every > 1) & (state.ramps % 2 == 1)
        return state._replace(
            spawn_every=jnp.where(due, jnp.maximum(state.spawn_every - 1, 1), state.spawn_every),
            move_every=jnp.where(flies, state.move_every - 1, state.move_every),
            ramp_in=jnp.where(state.ramp_in == 0, 100, state.ramp_in - 1),
            ramps=state.ramps + due,
        )

    def _board(self, state: AsterixState) -> Array:
        """Return the observation, `[10, 10, 4]`."""
        rows = jnp.arange(1, SIZE - 1)

        def draw(which: Array, column: Array) -> Array:
            cells = jax.vmap(_cell)(rows, column)  # [8, 10, 10]
            return (cells & which[:, None, None]).any(axis=0)

        behind = state.column + jnp.where(state.right, -1, 1)
        enemies, gold = state.there & ~state.gold, state.there & state.gold
        things = (
            _cell(*state.player),
            draw(enemies, state.column),
            draw(state.there, behind),
            draw(gold, state.column),
        )
        return jnp.stack(things, axis=-1).astype(jnp.float32)
