"""Windows and borders of trajectories, time first: `[T, B, ...]`."""

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
    """Cuts windows out of trajectories, `trajectories[start_indices + s]` for `s` in `[0, S)`.

    What a window has beyond either end of the trajectory is NaN (for integers the smallest, for
    unsigned ones the largest there is), and never another step.

    Args:
      trajectories: `[T, B, ...]`, or a tree of such arrays.
      start_indices: `[B, n]` integers, the first step of each window.
      subsequence_len: S, the length of the windows.
      max_valid_start_idx: the largest start index that may occur; if given, it is checked that its
        window fits.

    Returns:
      `[S, B, n, ...]`, or a tree of such arrays.

    Raises:
      ShapeError: if the trajectories are too short, or batches differ.
      TypeError: if the start indices are not integers.
    """
    start_indices = jnp.asarray(start_indices)
    if not jnp.issubdtype(start_indices.dtype, jnp.integer):
        raise TypeError(
            f"extract_subsequences: 'start_indices' must hold integers, but has dtype {start_indices.dtype}."
        )
    if subsequence_len < 1:
        raise ValueError(
            f"extract_subsequences: 'subsequence_len' must be at least 1, but is {subsequence_len}."
        )

    def extract(trajectory):
        if (
            start_indices.ndim != 2
            or trajectory.ndim < 2
            or trajectory.shape[1] != start_indices.shape[0]
        ):
            raise ShapeError(
                f"extract_subsequences: 'trajectories' must have shape [T, B, ...] and 'start_indices' [B, n], "
                f"but they have {trajectory.shape} and {start_indices.shape}."
            )
        length, batch = trajectory.shape[:2]
        if max_valid_start_idx is not None and length < max_valid_start_idx + subsequence_len:
            raise ShapeError(
                f"extract_subsequences: Expected len >= {max_valid_start_idx + subsequence_len} of 'trajectories' for "
                f"{subsequence_len} steps from 'max_valid_start_idx' {max_valid_start_idx}, but it is {length}."
            )
        t = start_indices[None] + jnp.arange(subsequence_len)[:, None, None]  # [S, B, n]
        t = jnp.where(t < 0, length, t)  # a negative index would count from the end
        return trajectory.at[t, jnp.arange(batch)[None, :, None]].get(mode="fill")

    return jax.tree.map(lambda trajectory: extract(jnp.asarray(trajectory)), trajectories)


@operator(static=("batch_size", "num_start_indices", "max_valid_start_idx"))
def sample_start_indices(
    rng_key: jax.Array, batch_size: int, num_start_indices: int, max_valid_start_idx: int
) -> jax.Array:
    """Draws start indices for `extract_subsequences`, for each trajectory uniformly and without replacement.

    Args:
      rng_key: a random key.
      batch_size: the number B of rows.
      num_start_indices: n, how many to draw for each trajectory.
      max_valid_start_idx: the largest index to draw, `T - subsequence_len`.

    Returns:
      `[B, n]` integers in `[0, max_valid_start_idx]`, different from each other in each row.

    Raises:
      ValueError: if there are not that many different indices.
    """
    if not 0 <= num_start_indices <= max_valid_start_idx + 1:
        raise ValueError(
            f"sample_start_indices: 'num_start_indices' is {num_start_indices}, but there are {max_valid_start_idx + 1} different "
            f"indices up to 'max_valid_start_idx' {max_valid_start_idx}."
        )
    keys = jax.random.split(rng_key, batch_size)
    return jax.vmap(
        lambda key: jax.random.choice(
            key, max_valid_start_idx + 1, (num_start_indices,), replace=False
        )
    )(keys)


@operator
def fix_step_type_on_interruptions(step_type: ArrayLike) -> jax.Array:
    """Marks the last step of episodes that were cut off: where a MID comes right before a FIRST, it becomes a LAST.

    Args:
      step_type: `[T, ...]` step types as in `dm_env`: 0 for FIRST, 1 for MID, 2 for LAST.

    Returns:
      `[T, ...]` step types of the same dtype. A cut between the trajectory and what comes after it
      cannot be seen.

    Raises:
      ShapeError: if there is no time axis.
    """
    step_type = jnp.asarray(step_type)
    if step_type.ndim < 1:
        raise ShapeError(
            "fix_step_type_on_interruptions: 'step_type' must have time as its first axis, but is a scalar."
        )
    cut = (step_type[:-1] == _MID) & (step_type[1:] == _FIRST)
    return step_type.at[:-1].set(jnp.where(cut, _LAST, step_type[:-1]).astype(step_type.dtype))
