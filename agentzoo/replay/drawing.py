"""Drawing transitions and sequences from a replay buffer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.replay import sum_tree
from agentzoo.replay.contents import Layout, Replay, read
from agentzoo.sharding import shard_batch
from agentzoo.types import Array, PyTree, Trajectory


class Batch(NamedTuple):
    """B transitions that span n steps, or fewer if the episode or the stored steps end before.

    Attributes:
      obs_tm1: `[B, ...]` observations at the beginning.
      a_tm1: `[B, ...]` actions at the beginning.
      r_t: `[B]` sums of the rewards, discounted by gamma.
      discount_t: `[B]` gamma^n, or 0 if the episode terminated within the n steps.
      obs_t: `[B, ...]` observations at the end.
      weight: `[B]` importance weights, at most 1.
      slot: `[B]` where the transitions are stored.
    """

    obs_tm1: PyTree
    a_tm1: PyTree
    r_t: Array
    discount_t: Array
    obs_t: PyTree
    weight: Array
    slot: Array


class Places(NamedTuple):
    """Steps of a replay: the environment of each, and its position from the oldest step on."""

    env: Array
    age: Array  # 0 for the oldest step


class NStep(NamedTuple):
    """What n steps lead to."""

    r_t: Array  # [B]
    discount_t: Array  # [B]
    end: Array  # [B] the slot of the last step


def sample(
    layout: Layout, replay: Replay, key: Array, batch_size: int, remaining: Any = 0.0
) -> Batch:
    """Draw transitions.

    Args:
      layout: the layout.
      replay: the replay, which must not be empty.
      key: a random key.
      batch_size: B.
      remaining: the remaining progress of the run, from 1 to 0. Only prioritised replay needs it.
    """
    oldest = (replay.cursor - replay.size) % layout.rows  # [N] rows
    if layout.prioritisation is None:
        env, age = draw_uniformly(key, batch_size, replay.size)
        slot = layout.slot(oldest[env] + age, env)
        weight = jnp.ones(batch_size, jnp.float32)
    else:
        slot, weight = draw_by_priority(layout, replay, key, batch_size, remaining)
        env = slot % layout.num_envs  # because slot = row * N + env
        age = (slot // layout.num_envs - oldest[env]) % layout.rows
    n_step = n_step_return(layout, replay, slot // layout.num_envs, Places(env, age))
    first, last = read(layout, replay, slot), read(layout, replay, n_step.end)
    batch = Batch(
        obs_tm1=first.obs_tm1,
        a_tm1=first.a_tm1,
        r_t=n_step.r_t,
        discount_t=n_step.discount_t,
        obs_t=last.obs_t,
        weight=weight,
        slot=slot,
    )
    return shard_batch(batch)


def draw_uniformly(key: Array, batch_size: int, counts: Array) -> Places:
    """Draw steps `[B]` uniformly from the `counts[n]` oldest steps of each environment n."""
    # Number the steps through, environment by environment. `start` is the number of the first step.
    start = jnp.cumsum(counts) - counts  # [N]
    bits = jax.random.bits(key, (batch_size,))
    number = (bits % counts.sum().astype(jnp.uint32)).astype(jnp.int32)
    # The environment of a step is the last one whose first step has no higher number.
    env = jnp.searchsorted(start, number, side="right", method="compare_all") - 1
    return Places(env, number - start[env])


def draw_by_priority(
    layout: Layout, replay: Replay, key: Array, batch_size: int, remaining: Any
) -> tuple[Array, Array]:
    """Draw slots `[B]` in proportion to their priorities, and return their importance weights."""
    assert layout.prioritisation is not None
    # One draw from each of B equal shares of the sum of all priorities.
    shares = jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,), jnp.float32)
    mass = shares / batch_size * sum_tree.total(replay.priorities)
    slot, probability = sum_tree.find(replay.priorities, mass)
    beta = 1.0 - remaining * (1.0 - layout.prioritisation.beta0)
    weight = (replay.size.sum() * probability) ** -beta
    return slot, weight / weight.max()


def n_step_return(layout: Layout, replay: Replay, row: Array, places: Places) -> NStep:
    """Return what the n steps from each row `[B]` on lead to."""
    env, age = places
    steps = jnp.arange(layout.n_step, dtype=jnp.int32)  # [n]
    slots = layout.slot(row[:, None] + steps, env[:, None])  # [B, n]
    stored: Trajectory = jax.tree.map(lambda x: x[slots], replay.storage)

    # A transition spans n steps, or fewer if its episode or the stored steps end before.
    is_stored = age[:, None] + steps < replay.size[env][:, None]  # [B, n]
    continues = is_stored[:, 1:] & ~stored.last_t[:, :-1] & ~stored.first_tm1[:, 1:]  # [B, n - 1]
    later = jnp.cumprod(continues.astype(jnp.int32), axis=1)
    used = jnp.concatenate([jnp.ones_like(slots[:, :1]), later], axis=1)  # [B, n] of 1 and 0

    discounts = jnp.asarray(layout.gamma**steps, jnp.float32)  # [n]
    r_t = jnp.sum(used * discounts * stored.r_t, axis=1)
    length = used.sum(axis=1, dtype=jnp.int32)  # [B] at least 1

    def at_last_step(x: Array) -> Array:
        return jnp.take_along_axis(x, length[:, None] - 1, axis=1)[:, 0]

    discount_t = jnp.asarray(layout.gamma**length, jnp.float32) * at_last_step(stored.discount_t)
    return NStep(r_t, discount_t, at_last_step(slots))


def sample_sequences(
    layout: Layout, replay: Replay, key: Array, batch_size: int, length: int
) -> Trajectory:
    """Draw sequences `[T, B]` of consecutive steps, uniformly.

    Episodes may begin and end within a sequence. At least one environment must hold T steps. A step
    is also the last one if its episode was broken off, so that the next step begins another.
    """
    # A sequence may begin at any step that has T - 1 steps after it.
    num_starts = jnp.maximum(replay.size - length + 1, 0)  # [N]
    env, age = draw_uniformly(key, batch_size, num_starts)
    steps = jnp.arange(length, dtype=jnp.int32)[:, None]  # [T, 1]
    row = (replay.cursor - replay.size)[env] + age + steps  # [T, B]
    sequences = read(layout, replay, layout.slot(row, env))
    begins = jnp.zeros_like(sequences.first_tm1).at[:-1].set(sequences.first_tm1[1:])
    sequences = sequences._replace(last_t=sequences.last_t | begins, mask=jnp.ones(row.shape, bool))
    return shard_batch(sequences, axis=1)


def update(layout: Layout, replay: Replay, slot: Array, error: Array) -> Replay:
    """Set the priorities of slots `[B]` by errors `[B]`, if replay is prioritised.

    A slot keeps its priority if its error is not finite, because one NaN would spoil the sums of
    the whole tree.
    """
    if layout.prioritisation is None:
        return replay
    priority = (jnp.abs(error) + layout.prioritisation.eps) ** layout.prioritisation.alpha
    finite = jnp.isfinite(priority)
    priority = jnp.where(finite, priority, sum_tree.get(replay.priorities, slot))
    return replay._replace(
        priorities=sum_tree.update(replay.priorities, slot, priority),
        max_priority=jnp.maximum(replay.max_priority, priority.max()),
    )
