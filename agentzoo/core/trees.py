"""Functions on trees of arrays: nested dicts, lists, tuples and whatever else JAX knows as a pytree."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, operator, python_values
from agentzoo.core.arrays import lhs_broadcast, replace_masked

__all__ = [
    "conditional_update",
    "periodic_update",
    "transpose_first_axis_to_last",
    "transpose_last_axis_to_first",
    "tree_fn",
    "tree_map_zipped",
    "tree_replace_masked",
    "tree_select",
    "tree_split_key",
    "tree_split_leaves",
]


@operator
def tree_select(pred: ArrayLike, on_true: Any, on_false: Any) -> Any:
    """The leaves of one tree where a condition holds, and those of another elsewhere.

    Args:
      pred: a scalar; or an array, lined up with each leaf from the left, to select along the
        leading axes.
      on_true: a tree.
      on_false: a tree of the same structure with leaves of the same shapes.

    Returns:
      A tree of the same structure; leaves of different dtypes promote.

    Raises:
      ShapeError: if the leaves differ in shape.
    """

    def select(path, yes, no):
        if jnp.shape(yes) != jnp.shape(no):
            raise ShapeError(
                f"tree_select: {_name('on_true', path)} has shape {jnp.shape(yes)}, but 'on_false' has {jnp.shape(no)} there."
            )
        return jnp.where(lhs_broadcast(pred, yes).astype(bool), yes, no)

    return jax.tree_util.tree_map_with_path(select, on_true, on_false)


def conditional_update(new_tensors: Any, old_tensors: Any, is_time: ArrayLike) -> Any:
    """The new tree if it is time, else the old one.

    Args:
      new_tensors: a tree, for example of an online network's parameters.
      old_tensors: a tree of the same structure and shapes, for example of a target network's.
      is_time: a scalar; or an array, lined up with each leaf from the left.

    Returns:
      A tree of the same structure.

    Raises:
      ShapeError: if the leaves differ in shape.
    """
    return tree_select(is_time, new_tensors, old_tensors)


def periodic_update(
    new_tensors: Any, old_tensors: Any, steps: ArrayLike, update_period: ArrayLike
) -> Any:
    """The new tree every `update_period` steps, else the old one: how DQN updates its target network.

    See "Human-level control through deep reinforcement learning" by Mnih et al. (2015,
    https://www.nature.com/articles/nature14236), algorithm 1.

    Args:
      new_tensors: a tree, for example of the online network's parameters.
      old_tensors: a tree of the same structure and shapes, for example of the target network's.
      steps: the number of the step; at multiples of the period, 0 among them, it is time.
      update_period: at least 1.

    Returns:
      A tree of the same structure.

    Raises:
      ShapeError: if the leaves differ in shape.
      ValueError: if the period is a Python number below 1.
    """
    if isinstance(update_period, int | float) and update_period < 1:
        raise ValueError(
            f"periodic_update: 'update_period' must be at least 1, but is {update_period}."
        )
    return conditional_update(new_tensors, old_tensors, jnp.asarray(steps) % update_period == 0)


def tree_fn(fn: Callable[..., Any], **unmapped_kwargs: Any) -> Callable[..., Any]:
    """A function of arrays as a function of trees that share their structure.

    Args:
      fn: a function of one or more arrays.
      **unmapped_kwargs: keyword arguments that are the same for all leaves.

    Returns:
      A function of as many trees; it applies `fn` to the leaves in the same place.
    """
    return functools.partial(jax.tree.map, functools.partial(fn, **unmapped_kwargs))


def tree_map_zipped(fn: Callable[..., Any], nests: Sequence[Any]) -> Any:
    """Applies a function to the leaves that are in the same place of several trees.

    Args:
      fn: a function of as many arrays as there are trees.
      nests: trees of the same structure.

    Returns:
      A tree of the same structure; for no trees, what was given.

    Raises:
      ValueError: if the trees differ in structure.
    """
    if not nests:
        return nests
    structures = [jax.tree.structure(nest) for nest in nests]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(
                f"tree_map_zipped: 'nests' must share the same tree structure, but nests[0] is {structures[0]} and nests[{i}] {structure}."
            )
    return jax.tree.map(fn, *nests)


@operator
def tree_replace_masked(tree_data: Any, tree_replacement: Any, mask: ArrayLike) -> Any:
    """`replace_masked` for each leaf.

    Args:
      tree_data: a tree of arrays that share the axes of the mask.
      tree_replacement: a tree of the same structure and shapes; None for zeros.
      mask: true or non-zero where to replace; lined up with each leaf from the left.

    Returns:
      A tree of the same structure.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    if tree_replacement is None:
        tree_replacement = jax.tree.map(jnp.zeros_like, tree_data)
    return tree_fn(replace_masked, mask=mask)(tree_data, tree_replacement)


@operator
def tree_split_key(rng_key: jax.Array, tree_like: Any) -> tuple[jax.Array, Any]:
    """Splits a random key into one for each leaf of a tree, and one to go on with.

    Args:
      rng_key: a key, of the new or the old kind.
      tree_like: any tree.

    Returns:
      A new key, and a tree of that structure with a key at each leaf.
    """
    structure = jax.tree.structure(tree_like)
    new_key, *keys = jax.random.split(rng_key, structure.num_leaves + 1)
    return new_key, jax.tree.unflatten(structure, keys)


def tree_split_leaves(tree_like: Any, axis: int = 0, keepdim: bool = False) -> tuple[Any, ...]:
    """Takes a tree of batches apart into one tree per element of the batch.

    Args:
      tree_like: a tree of JAX or NumPy arrays that are equally long along the axis.
      axis: of the batch.
      keepdim: whether to keep that axis, with length 1.

    Returns:
      As many trees as the axis is long, of the same structure; NumPy arrays are not copied. None
      for a tree without leaves.

    Raises:
      ShapeError: if the arrays are not equally long.
    """
    python_values("tree_split_leaves", axis=axis, keepdim=keepdim)
    leaves = jax.tree_util.tree_leaves_with_path(tree_like)
    for path, leaf in leaves:
        if not -leaf.ndim <= axis < leaf.ndim or leaf.shape[axis] != leaves[0][1].shape[axis]:
            raise ShapeError(
                f"tree_split_leaves: {_name('tree_like', path)} has shape {leaf.shape}, which does not split along axis {axis} "
                f"like {_name('tree_like', leaves[0][0])} of shape {leaves[0][1].shape}."
            )

    def element(leaf, i):
        index = slice(i, i + 1) if keepdim else i
        return leaf[(slice(None),) * (axis % leaf.ndim) + (index,)]

    length = leaves[0][1].shape[axis] if leaves else 0
    return tuple(jax.tree.map(functools.partial(element, i=i), tree_like) for i in range(length))


@operator
def transpose_first_axis_to_last(tree: Any) -> Any:
    """Moves the first axis of each leaf of `tree` to the end: `[T, B, ...]` becomes `[B, ..., T]`."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), tree)


@operator
def transpose_last_axis_to_first(tree: Any) -> Any:
    """Moves the last axis of each leaf of `tree` to the front: `[B, ..., T]` becomes `[T, B, ...]`."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), tree)


def _name(argument: str, path: tuple) -> str:
    return repr(argument + jax.tree_util.keystr(path))
