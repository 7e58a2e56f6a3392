"""Indexing, masking and broadcasting of arrays.

Arguments that share their leading axes are lined up from the left: a mask `[T, B]` belongs to data
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
    """A sum over an array, and over all devices if an axis of `jax.vmap`, `jax.pmap` or `jax.shard_map` is named.

    Attributes:
      axis_name: the mapped axis, or several; None sums on this device alone.
    """

    axis_name: str | Sequence[str] | None = None

    def __call__(self, x: ArrayLike, axis: int | Sequence[int] | None = None) -> jax.Array:
        """Sums `x` over `axis` (all axes if None) and over the mapped axis."""
        total = jnp.sum(jnp.asarray(x), axis=axis)
        return jax.lax.psum(total, self.axis_name) if self.axis_name else total


@operator(static=("keepdims",))
def batched_index(values: ArrayLike, indices: ArrayLike, keepdims: bool = False) -> jax.Array:
    """The element of the last axis at an index of its own for each row, `values[..., indices]`.

    Args:
      values: `[..., A]`.
      indices: `[...]` integers in `[0, A)`.
      keepdims: whether to keep the last axis, with length 1.

    Returns:
      `[...]`, or `[..., 1]`. NaN where an index is out of range (for integers the smallest, for
      unsigned ones the largest there is).

    Raises:
      ShapeError: if the leading axes differ.
      TypeError: if the indices are not integers.
    """
    values = jnp.asarray(values)
    if values.ndim == 0:
        raise ShapeError("batched_index: 'values' must have at least one axis, but is a scalar.")
    actions("batched_index", values.shape[:-1], indices=indices)
    picked = pick(values, indices)
    return picked[..., None] if keepdims else picked


@operator
def lhs_broadcast(source: ArrayLike, target: ArrayLike) -> jax.Array:
    """`source` with as many axes of length 1 behind its own as it takes to broadcast it against `target` from the left.

    Args:
      source: each axis is as long as that of the target in the same place, or 1.
      target: at least as many axes.

    Returns:
      `source`, reshaped to the number of axes of `target`.

    Raises:
      ShapeError: if the shapes do not line up.
    """
    source, shape = jnp.asarray(source), jnp.shape(target)
    if source.ndim > len(shape) or any(
        n not in (1, m) for n, m in zip(source.shape, shape, strict=False)
    ):
        raise ShapeError(
            f"lhs_broadcast: source shape {source.shape} does not line up with target shape {shape} from the left."
        )
    return source.reshape(source.shape + (1,) * (len(shape) - source.ndim))


@operator(static=("num_classes", "dtype"))
def one_hot(indices: ArrayLike, num_classes: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Vectors of zeros with a one at the index; all zeros for an index out of range.

    Args:
      indices: `[...]` integers, or floats that hold integers.
      num_classes: length of the vectors.
      dtype: of the result.

    Returns:
      `[..., num_classes]`.
    """
    indices = jnp.asarray(indices)[..., None]
    # 8 bits, or half a float's, may not tell all classes apart.
    wide = jnp.promote_types(
        indices.dtype, jnp.float32 if jnp.issubdtype(indices.dtype, jnp.floating) else jnp.int32
    )
    classes = jnp.expand_dims(jnp.arange(num_classes, dtype=wide), range(indices.ndim - 1))
    return (indices.astype(wide) == classes).astype(dtype)


@operator
def replace_masked(data: ArrayLike, replacement: ArrayLike | None, mask: ArrayLike) -> jax.Array:
    """`data` with the elements that the mask marks replaced: `where(mask, replacement, data)`.

    Args:
      data: any shape.
      replacement: the same shape or a scalar; None for zeros.
      mask: true or non-zero where to replace; lined up with the data from the left.

    Returns:
      An array of the shape of `data`, of the dtype that both promote to.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    replacement = jnp.zeros_like(data) if replacement is None else replacement
    same_shape("replace_masked", jnp.shape(data), replacement=replacement)
    return jnp.where(lhs_broadcast(mask, data).astype(bool), replacement, data)
