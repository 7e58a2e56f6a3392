"""Functions of trees of arrays: nested dicts, lists, tuples and all other pytrees of JAX."""

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
    """Select the leaves of one tree where a condition holds, and of another tree elsewhere.

    Args:
      pred: a scalar, or an array that selects along the leading axes of each leaf.
      on_true: a tree.
      on_false: a tree with the same structure and shapes.

    Returns:
      A tree with the same structure. Leaves of different dtypes are promoted.

    Raises:
      ShapeError: if the leaves differ in shape.
    """

    def select(path, yes, no):
        if jnp.shape(yes) != jnp.shape(no):
            raise ShapeError(
                f"tree_select: {_name('on_true', path)} has shape {jnp.shape(yes)}, but "
                f"{_name('on_false', path)} has shape {jnp.shape(no)}. Pass trees with the same "
                f"shapes."
            )
        return jnp.where(lhs_broadcast(pred, yes).astype(bool), yes, no)

    return jax.tree_util.tree_map_with_path(select, on_true, on_false)


def conditional_update(new_tensors: Any, old_tensors: Any, is_time: ArrayLike) -> Any:
    """Return the new tree if `is_time` is true, else the old tree.

    Args:
      new_tensors: a tree, for example the parameters of an online network.
      old_tensors: a tree with the same structure and shapes, for example the parameters of a target
        network.
      is_time: a scalar, or an array that selects along the leading axes of each leaf.

    Returns:
      A tree with the same structure.

    Raises:
      ShapeError: if the leaves differ in shape.
    """
    return tree_select(is_time, new_tensors, old_tensors)


def periodic_update(
    new_tensors: Any, old_tensors: Any, steps: ArrayLike, update_period: ArrayLike
) -> Any:
    """Return the new tree every `update_period` steps, else the old tree.

    This is how DQN updates its target network. See "Human-level control through deep reinforcement
    learning" by Mnih et al. (2015, https://www.nature.com/articles/nature14236), algorithm 1.

    Args:
      new_tensors: a tree, for example the parameters of the online network.
      old_tensors: a tree with the same structure and shapes, for example the parameters of the
        target network.
      steps: the number of steps so far. Multiples of the period, including 0, return the new tree.
      update_period: at least 1.

    Returns:
      A tree with the same structure.

    Raises:
      ShapeError: if the leaves differ in shape.
      ValueError: if the period is a Python number below 1.
    """
    if isinstance(update_period, int | float) and update_period < 1:
        raise ValueError(
            f"periodic_update: 'update_period' is {update_period}. Choose a period of at least 1."
        )
    is_time = jnp.asarray(steps) % update_period == 0  # steps is a multiple of the period
    return conditional_update(new_tensors, old_tensors, is_time)


def tree_fn(fn: Callable[..., Any], **unmapped_kwargs: Any) -> Callable[..., Any]:
    """Turn a function of arrays into a function of trees that share their structure.

    Args:
      fn: a function of one or more arrays.
      **unmapped_kwargs: keyword arguments that are the same for all leaves.

    Returns:
      A function of as many trees. It applies `fn` to the leaves in the same place.
    """
    return functools.partial(jax.tree.map, functools.partial(fn, **unmapped_kwargs))


def tree_map_zipped(fn: Callable[..., Any], nests: Sequence[Any]) -> Any:
    """Apply a function to the leaves in the same place of several trees.

    Args:
      fn: a function of as many arrays as there are trees.
      nests: trees with the same structure.

    Returns:
      A tree with the same structure. If there are no trees, `nests` itself.

    Raises:
      ValueError: if the trees differ in structure.
    """
    if not nests:
        return nests
    structures = [jax.tree.structure(nest) for nest in nests]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(
                f"tree_map_zipped: 'nests' must share the same tree structure, but nests[0] has "
                f"{structures[0]} and nests[{i}] has {structure}. Pass trees with one structure."
            )
    return jax.tree.map(fn, *nests)


@operator
def tree_replace_masked(tree_data: Any, tree_replacement: Any, mask: ArrayLike) -> Any:
    """Apply `replace_masked` to each leaf.

    Args:
      tree_data: a tree of arrays that share the axes of the mask.
      tree_replacement: a tree with the same structure and shapes; zeros if None.
      mask: true or non-zero where to replace; aligned with each leaf from the left.

    Returns:
      A tree with the same structure.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    if tree_replacement is None:
        tree_replacement = jax.tree.map(jnp.zeros_like, tree_data)
    return tree_fn(replace_masked, mask=mask)(tree_data, tree_replacement)


@operator
def tree_split_key(rng_key: jax.Array, tree_like: Any) -> tuple[jax.Array, Any]:
    """Split a random key into a new key and one key for each leaf of a tree.

    Args:
      rng_key: a random key, of the new type or the old type.
      tree_like: any tree.

    Returns:
      A new key, and a tree with the structure of `tree_like` and a key at each leaf.
    """
    structure = jax.tree.structure(tree_like)
    new_key, *keys = jax.random.split(rng_key, structure.num_leaves + 1)
    return new_key, jax.tree.unflatten(structure, keys)


def tree_split_leaves(tree_like: Any, axis: int = 0, keepdim: bool = False) -> tuple[Any, ...]:
    """Split a tree of batches into one tree per element of the batch.

    Args:
      tree_like: a tree of JAX or NumPy arrays with the same length along the axis.
      axis: the batch axis.
      keepdim: whether to keep the batch axis, with length 1.

    Returns:
      As many trees as the axis is long, with the same structure. NumPy arrays are not copied. A
      tree without leaves gives an empty tuple.

    Raises:
      ShapeError: if the arrays differ in length.
    """
    python_values("tree_split_leaves", axis=axis, keepdim=keepdim)
    leaves = jax.tree_util.tree_leaves_with_path(tree_like)
    for path, leaf in leaves:
        if not -leaf.ndim <= axis < leaf.ndim or leaf.shape[axis] != leaves[0][1].shape[axis]:
            raise ShapeError(
                f"tree_split_leaves: {_name('tree_like', path)} has shape {leaf.shape}, but "
                f"{_name('tree_like', leaves[0][0])} has shape {leaves[0][1].shape}. Pass arrays "
                f"with the same length along axis {axis}."
            )

    def element(leaf, i):
        index = slice(i, i + 1) if keepdim else i
        axes_before = axis % leaf.ndim  # also for a negative axis, which counts from the end
        return leaf[(slice(None),) * axes_before + (index,)]

    length = leaves[0][1].shape[axis] if leaves else 0
    return tuple(jax.tree.map(functools.partial(element, i=i), tree_like) for i in range(length))


@operator
def transpose_first_axis_to_last(tree: Any) -> Any:
    """Move the first axis of each leaf of `tree` to the end.

    A leaf `[T, B, ...]` becomes `[B, ..., T]`.
    """
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), tree)


@operator
def transpose_last_axis_to_first(tree: Any) -> Any:
    """Move the last axis of each leaf of `tree` to the front.

    A leaf `[B, ..., T]` becomes `[T, B, ...]`.
    """
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), tree)


def _name(argument: str, path: tuple) -> str:
    """Return the name of a leaf for messages, such as `'on_true['w']'`."""
    return repr(argument + jax.tree_util.keystr(path))
