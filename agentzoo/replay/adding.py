"""Adding steps to a replay buffer."""

import jax
import jax.numpy as jnp

from agentzoo.replay import sum_tree
from agentzoo.replay.contents import Layout, Replay
from agentzoo.types import Array, PyTree, Trajectory


def init(layout: Layout) -> Replay:
    """Return an empty replay."""
    num_slots = layout.rows * layout.num_envs

    def room(x: Array) -> Array:
        return jnp.zeros((num_slots, *x.shape[1:]), x.dtype)

    prioritised = layout.prioritisation is not None
    return Replay(
        frames=() if layout.rings is None else layout.rings.init(),
        storage=jax.tree.map(room, layout.step),
        cursor=jnp.zeros(layout.num_envs, jnp.int32),
        size=jnp.zeros(layout.num_envs, jnp.int32),
        priorities=sum_tree.init(num_slots) if prioritised else (),
        max_priority=jnp.float32(1) if prioritised else (),
    )


def add(layout: Layout, replay: Replay, trajectory: Trajectory) -> Replay:
    """Add the steps of a trajectory `[T, N]`, except for those whose mask is 0."""
    rows, num_envs = layout.rows, layout.num_envs
    envs = jnp.arange(num_envs, dtype=jnp.int32)
    kept = trajectory.mask.astype(jnp.int32)  # [T, N]

    # A kept step goes to the cursor of its environment plus the number of steps kept before it.
    count = jnp.cumsum(kept, axis=0, dtype=jnp.int32)  # [T, N] including the step itself
    slot = layout.slot(replay.cursor + count - kept, envs)
    # Other steps get a slot that does not exist, where nothing is written.
    slot = jnp.where(kept, slot, rows * num_envs)

    # Frames first: they may overwrite frames of old steps, which then cannot be drawn any longer.
    steps = trajectory._replace(
        mask=(), extras=trajectory.extras if jax.tree.leaves(layout.step.extras) else (), memory=()
    )
    if layout.rings is None:
        frames, num_lost, old, lost = replay.frames, 0, None, None
    else:
        begins = trajectory.first_tm1 | (replay.size + count - kept == 0)
        steps = steps._replace(first_tm1=begins)
        frames, steps, old, lost = add_frames(layout, replay, steps, kept)
        num_lost = lost.sum(axis=0, dtype=jnp.int32)  # [N]

    def write(stored: Array, new: Array) -> Array:
        new = new.reshape(slot.size, *stored.shape[1:])  # [T, N, ...] -> [T * N, ...]
        return stored.at[slot.reshape(-1)].set(new, mode="drop")

    num_new = count[-1]  # [N]
    added = replay._replace(
        frames=frames,
        storage=jax.tree.map(write, replay.storage, steps),
        size=jnp.minimum(replay.size - num_lost + num_new, rows),
        cursor=(replay.cursor + num_new) % rows,
    )
    if layout.prioritisation is None:
        return added

    # New steps get the highest priority so far. Steps that lost a frame get 0, unless a new step
    # has taken their slot.
    changed, priority = jnp.where(kept, slot, -1), jnp.full(slot.shape, replay.max_priority)
    if old is not None and lost is not None:
        age = jnp.arange(len(old), dtype=jnp.int32)[:, None]  # [A, 1]
        overwritten = age < replay.size + num_new - rows
        changed = jnp.concatenate([changed, jnp.where(lost & ~overwritten, old, -1)])
        priority = jnp.concatenate([priority, jnp.zeros(old.shape, jnp.float32)])
    priorities = sum_tree.update(replay.priorities, changed.reshape(-1), priority.reshape(-1))
    return added._replace(priorities=priorities)


def add_frames(
    layout: Layout, replay: Replay, steps: Trajectory, kept: Array
) -> tuple[PyTree, Trajectory, Array, Array]:
    """Write the frames of steps `[T, N]`.

    Returns:
      The frames, the steps as they are stored, the slots `[A, N]` of the A oldest steps, and
      whether each of these steps has lost a frame `[A, N]`.
    """
    assert layout.rings is not None
    envs = jnp.arange(layout.num_envs, dtype=jnp.int32)
    # A trajectory overwrites the frames of this many old steps at most.
    num_old = min(layout.rows, layout.rings.most(len(kept)))
    age = jnp.arange(num_old, dtype=jnp.int32)[:, None]  # [A, 1]; age 0 is the oldest step
    old = layout.slot(replay.cursor - replay.size + age, envs)  # [A, N]
    last = layout.slot(replay.cursor - 1, envs)  # [N] the step added last
    # The barrier has XLA read these rows before it writes to the storage. If XLA read them again
    # afterwards, it would copy the whole storage to be able to.
    rows = jax.lax.optimization_barrier(replay.storage.obs_t[jnp.vstack([last, old])])
    newest, rows_of_old = rows[0], rows[1:]  # [N], [A, N]
    added = layout.rings.add(replay.frames, newest, steps, kept)
    lost = (age < replay.size) & layout.rings.overwritten(newest, rows_of_old, added.used)
    return added.frames, steps._replace(obs_tm1=(), obs_t=added.obs_t), old, lost
