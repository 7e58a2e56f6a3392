"""Two games on a board of 10 x 10, with the rules of "MinAtar" (Young and Tian, https://arxiv.org/abs/1903.03176).

An observation is the board `[10, 10, 4]`, with 1 in the channel of each thing where it is. With
probability `sticky`, the last action is repeated in place of the new one.
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
_COLOURS = np.array(
    [[255, 255, 255], [255, 64, 64], [96, 48, 48], [255, 200, 0]], np.uint8
)  # of the channels


def _cell(row: Array | int, column: Array) -> Array:
    """The board `[10, 10]` with True at one cell; nowhere if that lies outside."""
    return (_PLACES[:, None] == row) & (column == _PLACES)


def _stick(sticky: float, state: Any, action: Array, key: Array) -> Array:
    """The action that is taken."""
    return jnp.where(
        jax.random.bernoulli(key, float(sticky)), state.last_action, jnp.asarray(action, jnp.int32)
    )


def _image(board: Array) -> Array:
    """A board `[10, 10, 4]` as an RGB image, 16 pixels a cell."""
    return (
        jnp.max(board.astype(jnp.uint8)[..., None] * _COLOURS, axis=2)
        .repeat(16, axis=0)
        .repeat(16, axis=1)
    )


class BreakoutState(NamedTuple):
    """Where things are.

    Attributes:
      ball: `[2]` int32, row and column.
      last_ball: `[2]` int32, where it was before.
      direction: `[2]` int32, -1 or 1 along each axis.
      paddle: int32, column.
      bricks: `[10, 10]` bool.
      struck: bool, whether the ball has met a brick in the last step.
      last_action: int32.
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
    """A ball flies along diagonals, and a paddle keeps it from leaving the board at the bottom; reward 1 for each brick that it breaks.

    Walls, bricks and paddle reflect the ball. Where a brick breaks, the ball stays in its row, and
    flies through those that it meets in the steps right after. If the paddle is below the ball, it
    goes up again on the same diagonal side; if the paddle is where it would land, it turns round.
    When the last brick is broken, three new rows are there as soon as the ball has come down. The
    channels are the paddle, the ball, where the ball was before, and the bricks.

    Attributes:
      sticky: probability that an action is repeated.
    """

    sticky: float = 0.1

    observation_space = spaces.Box(0.0, 1.0, (SIZE, SIZE, 4), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, key: Array) -> tuple[BreakoutState, Array]:
        """Begins with the ball at one of the sides."""
        left = jax.random.bernoulli(key)
        ball = jnp.stack([jnp.int32(3), jnp.where(left, 0, SIZE - 1).astype(jnp.int32)])
        direction = jnp.stack([jnp.int32(1), jnp.where(left, 1, -1).astype(jnp.int32)])
        state = BreakoutState(
            ball, ball, direction, jnp.int32(4), _wall(), jnp.bool_(False), jnp.int32(1)
        )
        return state, self._board(state)

    def step(self, state: BreakoutState, action: Array, key: Array) -> tuple[BreakoutState, Step]:
        """Moves the paddle, 0 to the left, 1 not at all, 2 to the right, and then the ball."""
        action = _stick(self.sticky, state, action, key)
        paddle = jnp.clip(state.paddle + action - 1, 0, SIZE - 1)
        (row, column), (down, right), bricks = state.ball, state.direction, state.bricks
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
        above, beside = (
            bottom & (column == paddle),
            bottom & (column != paddle) & (new_column == paddle),
        )
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
        """The board as an RGB image."""
        return _image(self._board(state))

    def _board(self, state: BreakoutState) -> Array:
        things = (
            _cell(SIZE - 1, state.paddle),
            _cell(*state.ball),
            _cell(*state.last_ball),
            state.bricks,
        )
        return jnp.stack(things, axis=-1).astype(jnp.float32)


def _wall() -> Array:
    """Three rows of bricks below the topmost."""
    return jnp.broadcast_to(((_PLACES >= 1) & (_PLACES <= 3))[:, None], (SIZE, SIZE))


class AsterixState(NamedTuple):
    """Where things are. Those that fly have the rows from 1 to 8, one each.

    Attributes:
      player: `[2]` int32, row and column.
      column: `[8]` int32.
      right: `[8]` bool, whether it flies to the right.
      gold: `[8]` bool, whether it is gold, and else an enemy.
      there: `[8]` bool, whether there is one.
      spawn_in: int32, steps until the next comes.
      move_in: int32, steps until they move.
      spawn_every, move_every: int32, steps in between, which become fewer.
      ramp_in: int32, steps until they do.
      ramps: int32, how often they did.
      last_action: int32.
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
    """Enemies and gold fly in from the sides, a third of them gold: reward 1 for gold that is met, and an enemy ends the episode.

    They come and fly faster from 100 steps to the next. The channels are the player, enemies, where
    those that fly were before, and gold.

    Attributes:
      sticky: probability that an action is repeated.
      ramping: whether it becomes faster.
    """

    sticky: float = 0.1
    ramping: bool = True

    observation_space = spaces.Box(0.0, 1.0, (SIZE, SIZE, 4), np.float32)
    action_space = spaces.Discrete(5)

    def reset(self, key: Array) -> tuple[AsterixState, Array]:
        """Begins in the middle of an empty board; `key` is not used."""
        none, counts = jnp.zeros(8, bool), jnp.array([10, 5, 10, 5, 100, 0, 0], jnp.int32)
        state = AsterixState(
            jnp.array([5, 5], jnp.int32), jnp.zeros(8, jnp.int32), none, none, none, *counts
        )
        return state, self._board(state)

    def step(self, state: AsterixState, action: Array, key: Array) -> tuple[AsterixState, Step]:
        """Something may come; the player moves, 0 not at all, 1 left, 2 up, 3 right, 4 down; then those that fly may."""
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
        """The board as an RGB image."""
        return _image(self._board(state))

    def _spawn(self, state: AsterixState, key: Array) -> AsterixState:
        """Something comes into one of the free rows, if it is time."""
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
        """The player takes the gold that is where it is; also how much, and whether an enemy is there."""
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
        """Makes it faster when it is time: what comes each time, what flies every second time."""
        due = self.ramping & (state.ramp_in == 0)
        flies = due & (state.move_every > 1) & (state.ramps % 2 == 1)
        return state._replace(
            spawn_every=jnp.where(due, jnp.maximum(state.spawn_every - 1, 1), state.spawn_every),
            move_every=jnp.where(flies, state.move_every - 1, state.move_every),
            ramp_in=jnp.where(state.ramp_in == 0, 100, state.ramp_in - 1),
            ramps=state.ramps + due,
        )

    def _board(self, state: AsterixState) -> Array:
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
