"""Experience replay as pure functions on a pytree, so that it can live inside an agent's state.

Each environment has a ring of its own, in which consecutive rows are consecutive steps: n-step
returns are formed when a transition is drawn, and need no bookkeeping when it is stored. Steps are
stored flat over (row, environment); a `slot` is an index into them.

Small observations are stored with their steps. Large ones have rings apart, in which every frame is
stored once (`frames.py`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.elements import zeros
from agentzoo.replay import sum_tree
from agentzoo.replay.frames import are_small, make_frame_rings
from agentzoo.replay.memory import check_memory
from agentzoo.sharding import shard_batch
from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree, Trajectory


class Replay(NamedTuple):
    """The contents of a buffer with L rows of steps for each of N environments."""

    frames: PyTree  # rings of frames, or () where observations are small
    storage: Trajectory  # leaves [L * N, ...]; of large observations `obs_t` is the row of the newest frame, and `obs_tm1` is ()
    cursor: Array  # [N] the row to be written next
    size: Array  # [N] rows that can be drawn, at most L, which end before the cursor
    priorities: PyTree  # sum tree over slots, or () without prioritisation
    max_priority: PyTree  # the highest so far, or ()


class Batch(NamedTuple):
    """B transitions over n steps each, or over fewer where an episode or the stored experience ends before."""

    obs_tm1: PyTree  # [B, ...]
    a_tm1: PyTree  # [B, ...]
    r_t: Array  # [B] sum of the rewards, discounted by gamma
    discount_t: Array  # [B] gamma^n, or 0 if the episode terminated within the n steps
    obs_t: PyTree  # [B, ...] where the n steps lead
    weight: Array  # [B] importance weights, at most 1
    slot: Array  # [B] where the transitions are stored


class Prioritisation(NamedTuple):
    """Replay in proportion to errors, https://arxiv.org/abs/1511.05952."""

    alpha: Any = 0.6  # transitions are drawn in proportion to (|error| + eps)^alpha
    beta0: Any = 0.4  # and weigh (number of transitions * probability)^-beta, where beta rises from beta0 to 1 in the course of a run
    eps: Any = 1e-6  # so that nothing has priority 0


class ReplayBuffer(NamedTuple):
    """A pure replay buffer.

    Attributes:
      init: `() -> replay`, empty.
      add: `(replay, trajectory) -> replay`. Steps with mask 0 are not stored. Without `first_tm1`,
        `obs_tm1` is the `obs_t` before it.
      sample: `(replay, key, batch_size, remaining) -> batch`. The buffer must not be empty.
        `remaining` is the progress that the run still has to make, from 1 to 0; only prioritised
        replay asks for it.
      sample_sequences: `(replay, key, batch_size, length) -> trajectory`, `[T, B]` consecutive
        steps of one environment each, uniformly drawn. Episodes may begin and end within them. An
        environment must hold as many steps.
      update: `(replay, slot, error) -> replay`, the errors `[B]` of what has been drawn. Without
        prioritisation it changes nothing.
      refill: `(replay, old) -> replay`, an empty replay filled with the steps of a replay of
        another number of environments, or of another capacity. Each environment gets about as many
        of them, in order. It is not to be compiled.
    """

    init: Callable[[], Replay]
    add: Callable[[Replay, Trajectory], Replay]
    sample: Callable[..., Batch]
    sample_sequences: Callable[[Replay, Array, int, int], Trajectory]
    update: Callable[[Replay, Array, Array], Replay]
    refill: Callable[[Replay, Replay], Replay]


def make_replay(
    spec: EnvSpec,
    capacity: int,
    unroll_length: int,
    gamma: float,
    n_step: int = 1,
    prioritisation: Prioritisation | None = None,
    extras: PyTree = (),
) -> ReplayBuffer:
    """Builds a replay buffer for the transitions of `spec.num_envs` environments.

    Args:
      spec: the environments whose transitions are stored.
      capacity: how many transitions are kept, shared evenly between the environments.
      unroll_length: steps of a trajectory, T.
      gamma: discount per step.
      n_step: steps between the two ends of a drawn transition.
      prioritisation: draw transitions in proportion to their errors, instead of uniformly.
      extras: `[1, ...]` an example of what is stored beside each step, of a trajectory's `extras`;
        nothing by default.

    Raises:
      ConfigurationError: if one trajectory does not fit, or the buffer does not fit into memory.
    """
    num_envs, rows = spec.num_envs, capacity // spec.num_envs
    needed = max(unroll_length, n_step)
    if rows < needed:
        raise ConfigurationError(
            f"buffer_size={capacity} leaves {rows} transitions for each of {num_envs} environments, but one training cycle or n-step "
            f"return needs {needed}; use a buffer_size of {needed * num_envs} or more."
        )
    rings = None if are_small(spec) else make_frame_rings(spec, rows, unroll_length)
    envs = jnp.arange(num_envs, dtype=jnp.int32)
    obs, one, flag = zeros(spec.observation_space, 1), jnp.zeros(1, jnp.float32), jnp.zeros(1, bool)
    ends = ((), jnp.zeros(1, jnp.int32)) if rings else (obs, obs)
    step = Trajectory(
        ends[0], zeros(spec.action_space, 1), one, one, ends[1], flag, flag, mask=(), extras=extras
    )

    def init() -> Replay:
        slots = rows * num_envs
        count = jnp.zeros(num_envs, jnp.int32)
        priorities, max_priority = (
            (sum_tree.init(slots), jnp.float32(1)) if prioritisation is not None else ((), ())
        )
        storage = jax.tree.map(lambda x: jnp.zeros((slots, *x.shape[1:]), x.dtype), step)
        return Replay(
            rings.init() if rings else (), storage, count, jnp.copy(count), priorities, max_priority
        )

    def add(replay: Replay, trajectory: Trajectory) -> Replay:
        kept = trajectory.mask.astype(jnp.int32)  # [T, N]
        count = jnp.cumsum(kept, axis=0, dtype=jnp.int32)
        slot = jnp.where(
            kept, (replay.cursor + count - kept) % rows * num_envs + envs, rows * num_envs
        )  # out of range is dropped
        steps = trajectory._replace(
            mask=(), extras=trajectory.extras if jax.tree.leaves(extras) else (), memory=()
        )
        age = jnp.arange(min(rows, rings.most(len(kept))) if rings else 0, dtype=jnp.int32)[
            :, None
        ]  # of those that may lose a frame
        old = (replay.cursor - replay.size + age) % rows * num_envs + envs
        frames, lost = replay.frames, age < 0
        if rings:
            steps = steps._replace(
                first_tm1=trajectory.first_tm1 | (replay.size + count - kept == 0)
            )
            last = (replay.cursor - 1) % rows * num_envs + envs
            read = read_once(replay.storage.obs_t, jnp.vstack([last, old]))
            newest, rows_of_old = read[0], read[1:]
            frames, obs_t, used = rings.add(frames, newest, steps, kept)
            lost = (age < replay.size) & rings.overwritten(newest, rows_of_old, used)
            steps = steps._replace(obs_tm1=(), obs_t=obs_t)

        def write(stored: Array, new: Array) -> Array:
            return stored.at[slot.reshape(-1)].set(
                new.reshape(slot.size, *stored.shape[1:]), mode="drop"
            )

        storage = jax.tree.map(write, replay.storage, steps)
        size = jnp.minimum(replay.size - lost.sum(axis=0, dtype=jnp.int32) + count[-1], rows)
        overwritten = age < replay.size + count[-1] - rows
        replay = replay._replace(
            frames=frames, storage=storage, size=size, cursor=(replay.cursor + count[-1]) % rows
        )
        if prioritisation is None:
            return replay
        changed = jnp.concatenate(
            [jnp.where(kept, slot, -1), jnp.where(lost & ~overwritten, old, -1)]
        )
        priority = jnp.where(jnp.arange(len(changed)) < len(slot), replay.max_priority, 0.0)
        priorities = sum_tree.update(
            replay.priorities, changed.reshape(-1), jnp.repeat(priority, num_envs)
        )
        return replay._replace(priorities=priorities)

    def read(replay: Replay, slot: Array) -> Trajectory:
        """The steps `[...]` with their observations; the replay may be of another number of environments."""
        num = len(replay.cursor)
        steps, env = jax.tree.map(lambda x: x[slot], replay.storage), slot % num
        if not rings:
            return steps
        obs_tm1, obs_t = (
            rings.read(replay.frames, newest, env, num) for newest in (steps.obs_t - 1, steps.obs_t)
        )
        return steps._replace(obs_tm1=obs_tm1, obs_t=obs_t)

    def draw(replay: Replay, key: Array, batch_size: int, counts: Array) -> tuple[Array, Array]:
        """Draws environments and ages `[B]`, 0 for the oldest step, if `counts` `[N]` of the oldest steps can be drawn."""
        start = jnp.cumsum(counts) - counts  # of each environment, when all are counted through
        number = (jax.random.bits(key, (batch_size,)) % counts.sum().astype(jnp.uint32)).astype(
            jnp.int32
        )
        env = jnp.searchsorted(start, number, side="right", method="compare_all") - 1
        return env, number - start[env]

    def sample(replay: Replay, key: Array, batch_size: int, remaining: Any = 0.0) -> Batch:
        oldest = (replay.cursor - replay.size) % rows
        if prioritisation is not None:
            # One draw from each of B equal shares of the total mass.
            drawn = (
                jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,), jnp.float32)
            ) / batch_size
            slot, probability = sum_tree.find(
                replay.priorities, drawn * sum_tree.total(replay.priorities)
            )
            row, env = slot // num_envs, slot % num_envs
            age = (row - oldest[env]) % rows
            beta = 1.0 - remaining * (1.0 - prioritisation.beta0)
            weight = (replay.size.sum() * probability) ** -beta
            weight = weight / weight.max()
        else:
            env, age = draw(replay, key, batch_size, replay.size)
            row = (oldest[env] + age) % rows
            slot = row * num_envs + env
            weight = jnp.ones(batch_size, jnp.float32)
        r_t, discount_t, end = n_step_return(replay, row, env, age)
        first, last = read(replay, slot), read(replay, end)
        return shard_batch(
            Batch(first.obs_tm1, first.a_tm1, r_t, discount_t, last.obs_t, weight, slot)
        )

    def n_step_return(
        replay: Replay, row: Array, env: Array, age: Array
    ) -> tuple[Array, Array, Array]:
        """Returns the discounted reward, the discount and the slot of the last step, from each row `[B]` on."""
        steps = jnp.arange(n_step, dtype=jnp.int32)
        slots = (row[:, None] + steps) % rows * num_envs + env[:, None]  # [B, n]
        stored = jax.tree.map(lambda x: x[slots], replay.storage)
        follows = (age[:, None] + steps < replay.size[env][:, None])[
            :, 1:
        ]  # [B, n - 1]: does the step belong to the window?
        follows &= ~stored.last_t[:, :-1] & ~stored.first_tm1[:, 1:]
        used = jnp.concatenate(
            [jnp.ones_like(slots[:, :1]), jnp.cumprod(follows.astype(jnp.int32), axis=1)], axis=1
        )
        discounts = jnp.asarray(gamma**steps, jnp.float32)
        r_t = jnp.sum(used * discounts * stored.r_t, axis=1)
        length = used.sum(axis=1, dtype=jnp.int32)
        end, discount_t = (
            jnp.take_along_axis(x, length[:, None] - 1, axis=1)[:, 0]
            for x in (slots, stored.discount_t)
        )
        return r_t, jnp.asarray(gamma**length, jnp.float32) * discount_t, end

    def sample_sequences(replay: Replay, key: Array, batch_size: int, length: int) -> Trajectory:
        env, age = draw(replay, key, batch_size, jnp.maximum(replay.size - length + 1, 0))
        row = (
            (replay.cursor - replay.size)[env] + age + jnp.arange(length, dtype=jnp.int32)[:, None]
        )  # [T, B]
        return shard_batch(
            read(replay, row % rows * num_envs + env)._replace(mask=jnp.ones(row.shape, bool)),
            axis=1,
        )

    def update(replay: Replay, slot: Array, error: Array) -> Replay:
        if prioritisation is None:
            return replay
        priority = (jnp.abs(error) + prioritisation.eps) ** prioritisation.alpha
        return replay._replace(
            priorities=sum_tree.update(replay.priorities, slot, priority),
            max_priority=jnp.maximum(replay.max_priority, priority.max()),
        )

    def refill(replay: Replay, old: Replay) -> Replay:
        sizes = jax.device_get(old.size)
        share_of_each = -(-int(sizes.sum()) // num_envs)
        # As many steps at once as can be written at once, and as do not take much memory beside the
        # replay.
        piece = min(256, rows, rings.room if rings else rows)
        if prioritisation is not None:
            replay = replay._replace(max_priority=jnp.copy(old.max_priority))
        add_piece = jax.jit(functools.partial(move, piece=piece), donate_argnums=0)
        for first in range(0, share_of_each, piece):
            replay = add_piece(replay, old, first, share_of_each)
        return replay

    def move(replay: Replay, old: Replay, first: Array, share_of_each: Array, piece: int) -> Replay:
        """Adds the next steps of an old replay, which are counted through environment by environment, from the oldest on."""
        num, old_rows = len(old.cursor), len(old.storage.r_t) // len(old.cursor)
        place = first + jnp.arange(piece)[:, None]  # [T, 1] in the ring of each environment
        number = place + share_of_each * envs  # [T, N] of the old steps
        ends = jnp.cumsum(old.size)
        mask = (place < share_of_each) & (number < ends[-1])
        env = jnp.minimum(
            jnp.searchsorted(ends, number, side="right", method="compare_all"), num - 1
        )
        age = number - (ends - old.size)[env]
        slot = (old.cursor[env] - old.size[env] + age) % old_rows * num + env
        steps = read(old, slot)
        # Nothing may be taken for one episode that was not: neither across two old environments nor
        # across two new ones.
        first_tm1 = steps.first_tm1 | (age == 0) | (place == 0)
        last_t = steps.last_t | (age == old.size[env] - 1) | (place == share_of_each - 1)
        target = (replay.cursor + place - first) % rows * num_envs + envs
        replay = add(replay, steps._replace(first_tm1=first_tm1, last_t=last_t, mask=mask))
        if prioritisation is None:
            return replay
        target = jnp.where(mask, target, -1).reshape(-1)
        priorities = sum_tree.update(
            replay.priorities, target, sum_tree.get(old.priorities, slot.reshape(-1))
        )
        return replay._replace(priorities=priorities)

    check_memory(jax.eval_shape(init), capacity)
    return ReplayBuffer(init, add, sample, sample_sequences, update, refill)


def read_once(x: Array, slots: Array) -> Array:
    """`x[slots]`, before anything is written to `x`.

    XLA would read it again wherever it is used, also after writing, and copy the whole of `x` to be
    able to. It does not repeat a sort, even if there is nothing to sort.
    """
    order, read = jnp.arange(slots.size), x[slots.reshape(-1)]
    return jax.lax.sort((order, read), num_keys=1)[1].reshape(slots.shape)
