"""Indexing, masking and broadcasting of arrays.

Arguments that share their leading axes are aligned from the left: a mask `[T, B]` applies to data
`[T, B, ...]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from agentzoo.core._operator import ShapeError, actions, operator, pick, same_shape

__all__ = ["AllSum", "batched_index", "lhs_broadcast", "one_hot", "replace_masked"]


class AllSum(NamedTuple):
    """A sum over the axes of an array, and over devices if it is given the name of a mapped axis.

    Attributes:
      axis_name: the axis of `jax.vmap`, `jax.pmap` or `jax.shard_map` to sum over, or several. With
        None, the sum covers this device alone.
    """

    axis_name: str | Sequence[str] | None = None

    def __call__(self, x: ArrayLike, axis: int | Sequence[int] | None = None) -> jax.Array:
        """Return the sum of `x` over `axis` (all axes if None) and over the mapped axis."""
        total = jnp.sum(jnp.asarray(x), axis=axis)
        return jax.lax.psum(total, self.axis_name) if self.axis_name else total


@operator(static=("keepdims",))
def batched_index(values: ArrayLike, indices: ArrayLike, keepdims: bool = False) -> jax.Array:
    """Return one element of each row: `values[..., indices]`.

    Args:
      values: `[..., A]`.
      indices: `[...]` integers in `[0, A)`.
      keepdims: whether to keep the last axis, with length 1.

    Returns:
      `[...]`, or `[..., 1]` with `keepdims`. An index out of range gives NaN in floats, the
      smallest value in signed integers and the largest value in unsigned integers.

    Raises:
      ShapeError: if the leading axes differ.
      TypeError: if the indices are not integers.
    """
    values = jnp.asarray(values)
    if values.ndim == 0:
        raise ShapeError(
            "batched_index: 'values' is a scalar. Pass an array with at least one axis."
        )
    actions("batched_index", values.shape[:-1], indices=indices)
    picked = pick(values, indices)  # [...]
    return picked[..., None] if keepdims else picked


@operator
def lhs_broadcast(source: ArrayLike, target: ArrayLike) -> jax.Array:
    """Append axes of length 1 to `source` so that it broadcasts against `target` from the left.

    Args:
      source: an array whose axes are as long as the first axes of the target, or 1.
      target: an array with at least as many axes.

    Returns:
      `source`, reshaped to the number of axes of `target`.

    Raises:
      ShapeError: if the shapes do not match from the left.
    """
    source, shape = jnp.asarray(source), jnp.shape(target)
    if source.ndim > len(shape) or any(
        n not in (1, m) for n, m in zip(source.shape, shape, strict=False)
    ):
        raise ShapeError(
            f"lhs_broadcast: 'source' has shape {source.shape}, which does not match the first "
            f"axes of 'target', {shape}. Pass a source whose axes match them from the left."
        )
    return source.reshape(source.shape + (1,) * (len(shape) - source.ndim))


@operator(static=("num_classes", "dtype"))
def one_hot(indices: ArrayLike, num_classes: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Return vectors of zeros with a one at each index.

    Args:
      indices: `[...]` integers, or floats that hold integers. An index out of range gives zeros.
      num_classes: the length of the vectors.
      dtype: the dtype of the result.

    Returns:
      `[..., num_classes]`.
    """
    indices = jnp.asarray(indices)[..., None]  # [..., 1]
    # 8-bit integers and 16-bit floats cannot hold the numbers of all classes.
    wide = jnp.promote_types(
        indices.dtype, jnp.float32 if jnp.issubdtype(indices.dtype, jnp.floating) else jnp.int32
    )
    classes = jnp.expand_dims(jnp.arange(num_classes, dtype=wide), range(indices.ndim - 1))
    return (indices.astype(wide) == classes).astype(dtype)


@operator
def replace_masked(data: ArrayLike, replacement: ArrayLike | None, mask: ArrayLike) -> jax.Array:
    """Replace the masked elements of an array: `where(mask, replacement, data)`.

    Args:
      data: any shape.
      replacement: the same shape or a scalar; zeros if None.
      mask: true or non-zero where to replace; aligned with the data from the left.

    Returns:
      An array with the shape of `data` and the dtype that both promote to.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    replacement = jnp.zeros_like(data) if replacement is None else replacement
    same_shape("replace_masked", jnp.shape(data), replacement=replacement)
    return jnp.where(lhs_broadcast(mask, data).astype(bool), replacement, data)
