"""Rings of frames, in which a replay buffer stores large observations once.

An observation is a window of S frames. S is the depth of the stack for a `FrameStack`, and 1 for
other observations. The first observation of an episode is written whole, and each step adds the
newest frame of its `obs_t`. So the frames of a transition are S + 1 frames in a row: those of
`obs_tm1`, and one more for `obs_t`. The row of the last frame is enough to find all of them.

A step takes one frame, and an episode takes S more. There is room for 1/128 more frames than steps.
If episodes are shorter than 128 S steps, the room for frames is used up before the room for steps.
The replay then holds somewhat fewer steps than it has room for, but always the latest ones.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.elements import zeros
from agentzoo.types import Array, EnvSpec, FrameStack, PyTree, Trajectory

# Observations of up to this many bytes are stored twice, with `obs_tm1` and `obs_t` of each step.
# That is faster than looking up where they are.
SMALL = 64


class AddedFrames(NamedTuple):
    """What `add` returns."""

    frames: PyTree
    obs_t: Array  # [T, N] the rows of the newest frames of the steps' `obs_t`
    used: Array  # [N] how many frames have been written


class FrameRings(NamedTuple):
    """Rings of F frames for each of N environments, as pure functions.

    Attributes:
      init: `() -> frames`, leaves `[F * N, ...]`.
      add: `(frames, newest, steps, kept) -> added` writes the new frames of steps `[T, N]` where
        `kept` is 1. `newest` `[N]` are the rows written last.
      read: `(frames, newest, env, num_envs) -> obs` returns the observations `[...]` of
        environments `[...]` whose newest frames are in rows `[...]`. The frames may be rings of
        another size, for another number of environments.
      overwritten: `(newest, obs_t, used) -> lost` returns whether steps `[..., N]` whose newest
        frames are in rows `obs_t` lose a frame when `used` more frames are written.
      most: `(length) -> frames`, the largest number of frames that a trajectory writes.
      room: the length of the longest trajectory that always fits.
    """

    init: Callable[[], PyTree]
    add: Callable[[PyTree, Array, Trajectory, Array], AddedFrames]
    read: Callable[[PyTree, Array, Array, int], PyTree]
    overwritten: Callable[[Array, Array, Array], Array]
    most: Callable[[int], int]
    room: int


def are_small(spec: EnvSpec) -> bool:
    """Return whether observations should be stored with their steps."""
    space = spec.observation_space
    return not isinstance(space, FrameStack) and all(
        leaf.nbytes <= SMALL for leaf in jax.tree.leaves(zeros(space))
    )


def make_frame_rings(spec: EnvSpec, rows: int, unroll_length: int) -> FrameRings:
    """Build rings for the observations of `rows` steps of each environment.

    Args:
      spec: the environments.
      rows: the number of steps of each environment.
      unroll_length: T, the number of steps of a trajectory. One trajectory always fits.
    """
    space: Any = spec.observation_space
    num_envs = spec.num_envs
    stacked = isinstance(space, FrameStack)
    depth = space.shape[0] if stacked else 1  # S
    # F: room for the steps and one window, but always for a trajectory of one-step episodes.
    frame_rows = max(rows + rows // 128 + depth, unroll_length * (depth + 1))
    envs = jnp.arange(num_envs, dtype=jnp.int32)

    def init() -> PyTree:
        def room(obs: Array) -> Array:
            # A frame has the shape of an observation without the axis of the stack.
            return jnp.zeros((frame_rows * num_envs, *obs.shape[stacked:]), obs.dtype)

        return jax.tree.map(room, zeros(space))

    def add(frames: PyTree, newest: Array, steps: Trajectory, kept: Array) -> AddedFrames:
        # A kept step writes one frame, and S more if it begins an episode.
        used = jnp.cumsum(kept * (1 + depth * steps.first_tm1), axis=0, dtype=jnp.int32)  # [T, N]
        obs_t = (newest + used) % frame_rows  # [T, N] the rows are counted modulo F
        # The rows of the S frames of obs_tm1, and of the newest frame of obs_t, which has offset 0.
        offset = jnp.arange(-depth, 1, dtype=jnp.int32)
        slot = (obs_t[..., None] + offset) % frame_rows * num_envs + envs[:, None]  # [T, N, S + 1]
        is_new = (kept == 1)[..., None] & (steps.first_tm1[..., None] | (offset == 0))
        # Frames that are not new get a slot that does not exist, where nothing is written.
        slot = jnp.where(is_new, slot, frame_rows * num_envs).reshape(-1)

        def write(stored: Array, obs_tm1: Array, obs_t: Array) -> Array:
            if stacked:
                both = jnp.concatenate([obs_tm1, obs_t[:, :, -1:]], axis=2)  # [T, N, S + 1, ...]
            else:
                both = jnp.stack([obs_tm1, obs_t], axis=2)  # [T, N, 2, ...]
            return stored.at[slot].set(both.reshape(slot.size, *stored.shape[1:]), mode="drop")

        frames = jax.tree.map(write, frames, steps.obs_tm1, steps.obs_t)
        return AddedFrames(frames, obs_t, used[-1])

    def read(frames: PyTree, newest: Array, env: Array, num_envs: int) -> PyTree:
        row = newest
        if stacked:  # the S rows up to the newest one, as a new last axis
            row = newest[..., None] + jnp.arange(1 - depth, 1, dtype=jnp.int32)
            env = env[..., None]

        def at(stored: Array) -> Array:
            return stored[row % (len(stored) // num_envs) * num_envs + env]

        return jax.tree.map(at, frames)

    def overwritten(newest: Array, obs_t: Array, used: Array) -> Array:
        # How many frames lie between the first frame of a step and the newest frame, with both. The
        # ring still holds all of them if this many and the new ones fit.
        reach = (newest - obs_t) % frame_rows + depth + 1
        return reach + used > frame_rows

    def most(length: int) -> int:
        return length * (depth + 1)

    return FrameRings(init, add, read, overwritten, most, frame_rows // (depth + 1))
