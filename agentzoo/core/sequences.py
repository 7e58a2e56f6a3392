"""Subsequences and episode boundaries of trajectories. Time is axis 0: `[T, B, ...]`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, operator

__all__ = ["extract_subsequences", "fix_step_type_on_interruptions", "sample_start_indices"]

_FIRST, _MID, _LAST = 0, 1, 2  # dm_env's step types


@operator(static=("subsequence_len", "max_valid_start_idx"))
def extract_subsequences(
    trajectories: Any,
    start_indices: ArrayLike,
    subsequence_len: int = 1,
    max_valid_start_idx: int | None = None,
) -> Any:
    """Cut windows out of trajectories: `trajectories[start_indices + s]` for `s` in `[0, S)`.

    Outside the trajectory, a window holds NaN in floats, the smallest value in signed integers and
    the largest value in unsigned integers. It never holds another step.

    Args:
      trajectories: `[T, B, ...]`, or a tree of such arrays.
      start_indices: `[B, n]` integers, the first step of each window.
      subsequence_len: the length S of the windows.
      max_valid_start_idx: the largest possible start index. If given, the operator checks that its
        window fits into the trajectory.

    Returns:
      `[S, B, n, ...]`, or a tree of such arrays.

    Raises:
      ShapeError: if the trajectories are too short, or the batch sizes differ.
      TypeError: if the start indices are not integers.
      ValueError: if `subsequence_len` is less than 1.
    """
    start_indices = jnp.asarray(start_indices)
    if not jnp.issubdtype(start_indices.dtype, jnp.integer):
        raise TypeError(
            f"extract_subsequences: 'start_indices' has dtype {start_indices.dtype}. Pass integers."
        )
    if subsequence_len < 1:
        raise ValueError(
            f"extract_subsequences: 'subsequence_len' is {subsequence_len}. Choose a length of at "
            f"least 1."
        )

    def extract(trajectory):
        if (
            start_indices.ndim != 2
            or trajectory.ndim < 2
            or trajectory.shape[1] != start_indices.shape[0]
        ):
            raise ShapeError(
                f"extract_subsequences: 'trajectories' has shape {trajectory.shape} and "
                f"'start_indices' has shape {start_indices.shape}. Pass shapes [T, B, ...] and "
                f"[B, n]."
            )
        length, batch = trajectory.shape[:2]
        if max_valid_start_idx is not None and length < max_valid_start_idx + subsequence_len:
            raise ShapeError(
                f"extract_subsequences: 'trajectories' has length {length}. Expected len >= "
                f"{max_valid_start_idx + subsequence_len} for {subsequence_len} steps from "
                f"'max_valid_start_idx' {max_valid_start_idx}."
            )
        # The time of each step of each window. A negative time would count from the end, so it is
        # moved past the end, where `mode="fill"` gives NaN.
        t = start_indices[None] + jnp.arange(subsequence_len)[:, None, None]  # [S, B, n]
        t = jnp.where(t < 0, length, t)
        return trajectory.at[t, jnp.arange(batch)[None, :, None]].get(mode="fill")

    return jax.tree.map(lambda trajectory: extract(jnp.asarray(trajectory)), trajectories)


@operator(static=("batch_size", "num_start_indices", "max_valid_start_idx"))
def sample_start_indices(
    rng_key: jax.Array, batch_size: int, num_start_indices: int, max_valid_start_idx: int
) -> jax.Array:
    """Draw start indices for `extract_subsequences`, uniformly and without replacement.

    Args:
      rng_key: a random key.
      batch_size: the number B of trajectories.
      num_start_indices: the number n of indices to draw for each trajectory.
      max_valid_start_idx: the largest index to draw, `T - subsequence_len`.

    Returns:
      `[B, n]` integers in `[0, max_valid_start_idx]`, all different within a row.

    Raises:
      ValueError: if there are fewer than `num_start_indices` different indices.
    """
    if not 0 <= num_start_indices <= max_valid_start_idx + 1:
        raise ValueError(
            f"sample_start_indices: 'num_start_indices' is {num_start_indices}, but there are "
            f"{max_valid_start_idx + 1} different indices up to 'max_valid_start_idx' "
            f"{max_valid_start_idx}. Draw no more indices than there are."
        )

    def sample(key: jax.Array) -> jax.Array:
        shape = (num_start_indices,)
        return jax.random.choice(key, max_valid_start_idx + 1, shape, replace=False)

    return jax.vmap(sample)(jax.random.split(rng_key, batch_size))


@operator
def fix_step_type_on_interruptions(step_type: ArrayLike) -> jax.Array:
    """Mark the last step of interrupted episodes: a MID directly before a FIRST becomes a LAST.

    Args:
      step_type: `[T, ...]` step types as in `dm_env`: 0 for FIRST, 1 for MID, 2 for LAST.

    Returns:
      `[T, ...]` step types of the same dtype. An interruption behind the last step of the
      trajectory cannot be seen.

    Raises:
      ShapeError: if there is no time axis.
    """
    step_type = jnp.asarray(step_type)
    if step_type.ndim < 1:
        raise ShapeError(
            "fix_step_type_on_interruptions: 'step_type' is a scalar. Pass an array with time as "
            "its first axis."
        )
    # Compare each step with the next step; the last step has none and stays as it is.
    interrupted = (step_type[:-1] == _MID) & (step_type[1:] == _FIRST)
    fixed = jnp.where(interrupted, _LAST, step_type[:-1]).astype(step_type.dtype)
    return step_type.at[:-1].set(fixed)
