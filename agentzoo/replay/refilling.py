"""Moving the steps of one replay buffer into another buffer."""

import functools

import jax
import jax.numpy as jnp

from agentzoo.replay import sum_tree
from agentzoo.replay.adding import add
from agentzoo.replay.contents import Layout, Replay, read
from agentzoo.types import Array

PIECE = 256  # steps per environment that are moved at once, so that little memory is needed


def refill(layout: Layout, replay: Replay, old: Replay) -> Replay:
    """Fill an empty replay with the steps of a replay for other environments or capacities.

    Each environment gets about as many steps, in order. The function must not be compiled.
    """
    num_steps = int(jax.device_get(old.size).sum())
    share = -(-num_steps // layout.num_envs)  # steps of each environment, rounded up
    # Frame rings have room for a limited number of steps at once.
    room = layout.rows if layout.rings is None else layout.rings.room
    piece = min(PIECE, layout.rows, room)
    if layout.prioritisation is not None:
        replay = replay._replace(max_priority=jnp.copy(old.max_priority))
    move = jax.jit(functools.partial(_move, layout, piece), donate_argnums=0)
    for first in range(0, share, piece):
        replay = move(replay, old, first, share)
    return replay


def _move(
    layout: Layout, piece: int, replay: Replay, old: Replay, first: Array, share: Array
) -> Replay:
    """Add the next steps of an old replay: `piece` steps for each environment.

    The old steps are numbered through, environment by environment, from the oldest step on. Of N
    new environments, environment n gets the steps with the numbers from `n * share` on.

    Args:
      layout: the layout of the new replay.
      piece: T, the number of steps for each environment.
      replay: the new replay.
      old: the old replay, of M environments.
      first: how many steps each environment has got already.
      share: how many steps each environment gets in all.
    """
    num_old = len(old.cursor)  # M
    old_rows = len(old.storage.r_t) // num_old
    envs = jnp.arange(layout.num_envs, dtype=jnp.int32)
    place = first + jnp.arange(piece)[:, None]  # [T, 1] number of the step in its new environment
    number = place + share * envs  # [T, N] number of the old step

    # Find the old step: `ends` are the numbers that follow the last step of each environment.
    ends = jnp.cumsum(old.size)  # [M]
    mask = (place < share) & (number < ends[-1])
    env = jnp.searchsorted(ends, number, side="right", method="compare_all")
    env = jnp.minimum(env, num_old - 1)  # numbers beyond the last step are masked
    age = number - (ends - old.size)[env]  # how many older steps the old environment holds
    slot = (old.cursor[env] - old.size[env] + age) % old_rows * num_old + env
    steps = read(layout, old, slot)

    # Steps of two old environments must not look like one episode, and neither must steps that
    # follow on each other in the numbering but go to two new environments.
    first_tm1 = steps.first_tm1 | (age == 0) | (place == 0)
    last_t = steps.last_t | (age == old.size[env] - 1) | (place == share - 1)
    target = layout.slot(replay.cursor + place - first, envs)  # [T, N]
    replay = add(layout, replay, steps._replace(first_tm1=first_tm1, last_t=last_t, mask=mask))
    if layout.prioritisation is None:
        return replay
    target = jnp.where(mask, target, -1).reshape(-1)
    priority = sum_tree.get(old.priorities, slot.reshape(-1))
    return replay._replace(priorities=sum_tree.update(replay.priorities, target, priority))
