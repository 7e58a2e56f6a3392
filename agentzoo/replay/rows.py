"""Many small arrays as one: the numbers of a step lie side by side in memory, and writing or drawing steps is one operation for all.

Each leaf of a pytree whose rows are small becomes some columns of one array of 32-bit words; larger ones (images) stay arrays of their own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.types import Array, PyTree

SMALL = 64  # bytes


class Rows(NamedTuple):
    """Functions for rows like those of a template.

    Attributes:
      init: `(num_rows) -> stored`, all zeros.
      write: `(stored, rows [B], tree with leaves [B, ...]) -> stored`. Rows that are out of range are left out.
      read: `(stored, rows [...]) -> tree` with leaves `[..., ...]`. What is not used of it costs nothing in a compiled program.
    """

    init: Callable[[int], PyTree]
    write: Callable[[PyTree, Array, PyTree], PyTree]
    read: Callable[[PyTree, Array], PyTree]


def make_rows(template: PyTree) -> Rows:
    """Builds the functions for rows like the one row of each leaf `[1, ...]` of a template."""
    leaves, structure = jax.tree.flatten(template)
    small = [leaf.nbytes <= SMALL for leaf in leaves]

    def split(tree: PyTree) -> tuple[Array, list[Array]]:
        parts = [part.astype(leaf.dtype) for part, leaf in zip(jax.tree.leaves(tree), leaves, strict=True)]
        words = [jnp.zeros((parts[0].shape[0], 0), jnp.uint32)]  # there may be no small ones
        words += [_to_words(part) for part, is_small in zip(parts, small, strict=True) if is_small]
        return jnp.concatenate(words, axis=-1), [part for part, is_small in zip(parts, small, strict=True) if not is_small]

    def init(num_rows: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((num_rows, *x.shape[1:]), x.dtype), jax.eval_shape(split, template))

    def write(stored: PyTree, rows: Array, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), stored, split(tree))

    def read(stored: PyTree, rows: Array) -> PyTree:
        words, large = stored[0][rows], iter(stored[1])
        parts, column = [], 0
        for leaf, is_small in zip(leaves, small, strict=True):
            if is_small:
                width = _to_words(leaf).shape[-1]
                parts.append(_from_words(words[..., column : column + width], leaf.shape[1:], leaf.dtype))
                column += width
            else:
                parts.append(next(large)[rows])
        return jax.tree.unflatten(structure, parts)

    return Rows(init, write, read)


def _to_words(x: Array) -> Array:
    """Rows `[B, ...]` of any dtype as 32-bit words `[B, K]`."""
    x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    if x.dtype.itemsize < 4:
        return jax.lax.bitcast_convert_type(x, _unsigned(x.dtype)).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(x.shape[0], -1)  # 64 bits are two words


def _from_words(words: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Words `[..., K]` as arrays `[..., *shape]` of a dtype."""
    leading = words.shape[:-1]
    if dtype == jnp.bool_:
        return words.astype(bool).reshape(*leading, *shape)
    words = words.reshape(*leading, -1, 2) if dtype.itemsize == 8 else words
    words = words.astype(_unsigned(dtype)) if dtype.itemsize < 4 else words
    return jax.lax.bitcast_convert_type(words, dtype).reshape(*leading, *shape)


def _unsigned(dtype: Any) -> Any:
    return jnp.uint8 if dtype.itemsize == 1 else jnp.uint16
