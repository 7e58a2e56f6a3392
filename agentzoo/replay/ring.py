"""Experience replay as pure functions on a pytree, so that it can live inside an agent's state.

Each environment has a ring of its own, in which consecutive rows are consecutive steps: n-step returns are formed when a
transition is drawn, and need no bookkeeping when it is stored. Steps are stored flat over (row, environment); a `slot` is an index
into them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.replay import sum_tree
from agentzoo.replay.rows import make_rows
from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree, Trajectory, zeros


class Replay(NamedTuple):
    """The contents of a buffer with L rows for each of N environments."""

    storage: PyTree  # the steps by slot, as `Rows` keeps them: a Trajectory without `mask`, `extras` and `memory`
    cursor: Array  # [N] the row to be written next
    size: Array  # [N] rows written, at most L
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


class ReplayBuffer(NamedTuple):
    """A pure replay buffer.

    Attributes:
      init: `() -> replay`, empty.
      add: `(replay, trajectory) -> replay`. Steps with mask 0 are not stored.
      sample: `(replay, key, batch_size, importance_exponent) -> batch`. The buffer must not be empty.
      update: `(replay, slot, priority) -> replay`, for prioritised replay, with priorities that are positive.
    """

    init: Callable[[], Replay]
    add: Callable[[Replay, Trajectory], Replay]
    sample: Callable[[Replay, Array, int, Any], Batch]
    update: Callable[[Replay, Array, Array], Replay]


def make_replay(spec: EnvSpec, capacity: int, unroll_length: int, gamma: float, n_step: int = 1, prioritised: bool = False) -> ReplayBuffer:
    """Builds a replay buffer for the transitions of `spec.num_envs` environments.

    Args:
      spec: the environments whose transitions are stored.
      capacity: how many transitions are kept, shared evenly between the environments.
      unroll_length: steps of a trajectory, T.
      gamma: discount per step.
      n_step: steps between the two ends of a drawn transition.
      prioritised: draw in proportion to priorities (https://arxiv.org/abs/1511.05952, proportional variant) instead of uniformly.

    Raises:
      ConfigurationError: if one trajectory does not fit.
    """
    num_envs = spec.num_envs
    rows = capacity // num_envs
    needed = max(unroll_length, n_step)
    if rows < needed:
        raise ConfigurationError(
            f"buffer_size={capacity} leaves {rows} transitions for each of {num_envs} environments, but one training cycle or n-step "
            f"return needs {needed}; use a buffer_size of {needed * num_envs} or more."
        )

    obs, one = zeros(spec.observation_space, 1), jnp.zeros(1)
    flag = one.astype(bool)
    storage = make_rows(Trajectory(obs, zeros(spec.action_space, 1), one, one, obs, flag, flag, mask=()))

    def init() -> Replay:
        slots = rows * num_envs
        count = jnp.zeros(num_envs, jnp.int32)
        priorities, max_priority = (sum_tree.init(slots), jnp.ones(())) if prioritised else ((), ())
        return Replay(storage.init(slots), count, jnp.copy(count), priorities, max_priority)

    def add(replay: Replay, trajectory: Trajectory) -> Replay:
        kept = trajectory.mask.astype(jnp.int32)  # [T, N]
        row = (replay.cursor + jnp.cumsum(kept, axis=0) - kept) % rows
        slot = row * num_envs + jnp.arange(num_envs)
        slot = jnp.where(kept == 1, slot, rows * num_envs).reshape(-1)  # out of range is dropped
        steps = jax.tree.map(lambda x: x.reshape(slot.size, *x.shape[2:]), trajectory._replace(mask=(), extras=(), memory=()))
        stored, added = storage.write(replay.storage, slot, steps), kept.sum(axis=0)
        replay = replay._replace(storage=stored, cursor=(replay.cursor + added) % rows, size=jnp.minimum(replay.size + added, rows))
        if not prioritised:
            return replay
        leaves = jnp.where(slot < rows * num_envs, slot, -1)
        return replay._replace(priorities=sum_tree.update(replay.priorities, leaves, replay.max_priority))

    def sample(replay: Replay, key: Array, batch_size: int, importance_exponent: Any = 0.0) -> Batch:
        start = jnp.cumsum(replay.size) - replay.size  # of each environment, when all transitions are counted through
        total = replay.size.sum()
        oldest = (replay.cursor - replay.size) % rows
        if prioritised:
            # One draw from each of B equal shares of the total mass.
            share = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
            slot = sum_tree.find(replay.priorities, share * sum_tree.total(replay.priorities))
            row, env = slot // num_envs, slot % num_envs
            age = (row - oldest[env]) % rows  # 0 for the oldest
            probability = sum_tree.get(replay.priorities, slot) / sum_tree.total(replay.priorities)
            weight = (total * probability) ** -importance_exponent
            weight = weight / weight.max()
        else:
            number = (jax.random.bits(key, (batch_size,)) % total.astype(jnp.uint32)).astype(jnp.int32)
            env = jnp.searchsorted(start, number, side="right", method="compare_all") - 1
            age = number - start[env]
            row = (oldest[env] + age) % rows
            slot = row * num_envs + env
            weight = jnp.ones(batch_size)
        r_t, discount_t, end = n_step_return(replay, row, env, age)
        first, last = storage.read(replay.storage, slot), storage.read(replay.storage, end)
        return Batch(first.obs_tm1, first.a_tm1, r_t, discount_t, last.obs_t, weight, slot)

    def n_step_return(replay: Replay, row: Array, env: Array, age: Array) -> tuple[Array, Array, Array]:
        """Returns the discounted reward, the discount and the slot of the last step, from each row `[B]` on."""
        steps = jnp.arange(n_step)
        slots = (row[:, None] + steps) % rows * num_envs + env[:, None]  # [B, n]
        stored = storage.read(replay.storage, slots)
        follows = (age[:, None] + steps < replay.size[env][:, None])[:, 1:]  # [B, n - 1]: does the step belong to the window?
        follows &= ~stored.last_t[:, :-1] & ~stored.first_tm1[:, 1:]
        used = jnp.concatenate([jnp.ones_like(slots[:, :1]), jnp.cumprod(follows.astype(jnp.int32), axis=1)], axis=1)
        r_t = jnp.sum(used * gamma**steps * stored.r_t, axis=1)
        length = used.sum(axis=1)
        end, discount_t = (jnp.take_along_axis(x, length[:, None] - 1, axis=1)[:, 0] for x in (slots, stored.discount_t))
        return r_t, gamma**length * discount_t, end

    def update(replay: Replay, slot: Array, priority: Array) -> Replay:
        return replay._replace(
            priorities=sum_tree.update(replay.priorities, slot, priority),
            max_priority=jnp.maximum(replay.max_priority, priority.max()),
        )

    return ReplayBuffer(init, add, sample, update)
