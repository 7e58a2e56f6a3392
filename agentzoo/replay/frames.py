"""Rings of frames, in which a replay stores large observations once.

An observation is a window of S frames: S = 1 in general, and the depth of the stack where the
observation is a `FrameStack`. The first observation of an episode is written whole, and each step
adds the newest frame of its `obs_t`; so the frames of a transition are S + 1 in a row, those of
`obs_tm1` and one more for `obs_t`, and to know where the last of them is suffices.

A step takes one frame, and an episode S more. There is room for 1/128 more frames than steps: where
episodes are shorter than 128 S steps, frames run out before steps do, and the replay holds somewhat
fewer steps than it has room for, always the latest.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.elements import zeros
from agentzoo.types import Array, EnvSpec, FrameStack, PyTree, Trajectory

SMALL = 64  # bytes: up to here an observation is stored twice, which is faster than to look up where it is


class FrameRings(NamedTuple):
    """Rings of F frames for each of N environments.

    Attributes:
      init: `() -> frames`, leaves `[F * N, ...]`.
      add: `(frames, newest, steps, kept) -> (frames, obs_t, used)` writes the new frames of steps
        `[T, N]` where `kept` is 1. `newest` `[N]` are the rows last written to; `obs_t` `[T, N]`
        those of the newest frames of the steps' `obs_t`, and `used` `[N]` how many have been
        written.
      read: `(frames, newest, env, num_envs) -> obs`, the observations `[...]` of environments
        `[...]` whose newest frames are in these rows `[...]`. The frames may be rings of another
        size, for another number of environments.
      overwritten: `(newest, obs_t, used) -> lost` whether steps `[..., N]` with these rows lose a
        frame when so many more are written.
      most: `(length) -> frames`, how many a trajectory of so many steps writes at most.
      room: how many steps of a trajectory fit at least.
    """

    init: Callable[[], PyTree]
    add: Callable[[PyTree, Array, Trajectory, Array], tuple[PyTree, Array, Array]]
    read: Callable[[PyTree, Array, Array, int], PyTree]
    overwritten: Callable[[Array, Array, Array], Array]
    most: Callable[[int], int]
    room: int


def are_small(spec: EnvSpec) -> bool:
    """Whether observations are better stored with their steps."""
    space = spec.observation_space
    return not isinstance(space, FrameStack) and all(
        leaf.nbytes <= SMALL for leaf in jax.tree.leaves(zeros(space))
    )


def make_frame_rings(spec: EnvSpec, rows: int, unroll_length: int) -> FrameRings:
    """Builds rings for the observations of `rows` steps of each environment, which come in trajectories of `unroll_length`."""
    space, num_envs = spec.observation_space, spec.num_envs
    stacked, depth = (
        (True, space.low.shape[0]) if isinstance(space, FrameStack) else (False, 1)
    )  # depth is S
    frame_rows = max(
        rows + rows // 128 + depth, unroll_length * (depth + 1)
    )  # so that one trajectory always fits
    envs = jnp.arange(num_envs, dtype=jnp.int32)

    def init() -> PyTree:
        def room(obs: Array) -> Array:
            return jnp.zeros((frame_rows * num_envs, *obs.shape[stacked:]), obs.dtype)

        return jax.tree.map(room, zeros(space))

    def add(
        frames: PyTree, newest: Array, steps: Trajectory, kept: Array
    ) -> tuple[PyTree, Array, Array]:
        used = jnp.cumsum(kept * (1 + depth * steps.first_tm1), axis=0, dtype=jnp.int32)
        obs_t = (newest + used) % frame_rows
        offset = jnp.arange(
            -depth, 1, dtype=jnp.int32
        )  # of the frames of obs_tm1, and of the newest one of obs_t
        slot = (obs_t[..., None] + offset) % frame_rows * num_envs + envs[:, None]  # [T, N, S + 1]
        fresh = (kept == 1)[..., None] & (steps.first_tm1[..., None] | (offset == 0))
        slot = jnp.where(fresh, slot, frame_rows * num_envs).reshape(-1)  # out of range is dropped

        def write(stored: Array, obs_tm1: Array, obs_t: Array) -> Array:
            both = (
                jnp.concatenate([obs_tm1, obs_t[:, :, -1:]], axis=2)
                if stacked
                else jnp.stack([obs_tm1, obs_t], axis=2)
            )
            return stored.at[slot].set(both.reshape(slot.size, *stored.shape[1:]), mode="drop")

        return jax.tree.map(write, frames, steps.obs_tm1, steps.obs_t), obs_t, used[-1]

    def read(frames: PyTree, newest: Array, env: Array, num_envs: int) -> PyTree:
        row = newest[..., None] + jnp.arange(1 - depth, 1, dtype=jnp.int32) if stacked else newest
        env = env[..., None] if stacked else env

        def at(stored: Array) -> Array:
            return stored[row % (len(stored) // num_envs) * num_envs + env]

        return jax.tree.map(at, frames)

    def overwritten(newest: Array, obs_t: Array, used: Array) -> Array:
        reach = (
            (newest - obs_t) % frame_rows + depth + 1
        )  # frames from the first one of the step on
        return reach + used > frame_rows

    def most(length: int) -> int:
        return length * (depth + 1)

    return FrameRings(init, add, read, overwritten, most, frame_rows // (depth + 1))
