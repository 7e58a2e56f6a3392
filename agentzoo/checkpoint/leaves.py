"""The leaves of a pytree as arrays in a file."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Signatures of JAX's functions mention types that pyright does not know.

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from agentzoo.types import PyTree


class Stored(NamedTuple):
    """How a leaf is stored.

    Attributes:
      shape: the shape of the array that stands for the leaf.
      dtype: the dtype of this array.
      tag: what the array stands for: "array", "bfloat16", "key:" and the name of a generator, or
        the name of a Python type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    tag: str


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by name, such as "['agent']['params']"."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths}


def with_leaves(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """Return a tree of the same structure with other leaves, given by name."""

    def replace(path: Any, _: Any) -> Any:
        return leaves[jax.tree_util.keystr(path)]

    return jax.tree_util.tree_map_with_path(replace, tree)


def describe(leaf: Any) -> Stored:
    """Return how a leaf is stored. An array may be a `jax.ShapeDtypeStruct`."""
    if not hasattr(leaf, "dtype"):
        return Stored((), np.asarray(leaf).dtype, type(leaf).__name__)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        generator: list[str] = []

        def data_of(key: Any) -> Any:
            generator.append(str(jax.random.key_impl(key)))
            return jax.random.key_data(key)

        data = jax.eval_shape(data_of, leaf)
        return Stored(data.shape, np.dtype(data.dtype), f"key:{generator[0]}")
    if leaf.dtype == ml_dtypes.bfloat16:  # unknown to the NumPy interface of safetensors
        return Stored(leaf.shape, np.dtype(np.uint16), "bfloat16")
    return Stored(leaf.shape, np.dtype(leaf.dtype), "array")


def to_array(leaf: Any) -> tuple[NDArray[Any], str]:
    """Return the array that stands for a leaf, in row-major memory order, and its tag."""
    stored = describe(leaf)
    if stored.tag.startswith("key:"):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        # `addressable_data` returns a new object. JAX keeps the copy on the host that belongs to an
        # array as long as the array object lives, and this object does not live long.
        leaf = leaf.addressable_data(0)
    return np.asarray(leaf, order="C").view(stored.dtype), stored.tag


def from_array(array: NDArray[Any], tag: str, template: Any) -> Any:
    """Return the leaf that an array with this tag stands for, of the kind of the template."""
    if tag.startswith("key:") and jnp.issubdtype(template.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.array(array), impl=tag.removeprefix("key:"))
    if tag in ("int", "float", "bool"):
        return array.item()
    array = array.view(ml_dtypes.bfloat16) if tag == "bfloat16" else array
    if isinstance(template, np.ndarray):
        return array  # JAX would turn float64 into float32.
    return jax.device_put(array, may_alias=False)


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a view of the bytes of an array, in one axis."""
    return array.reshape(-1).view(np.uint8)


def all_finite(tree: PyTree) -> bool:
    """Return whether the floating-point arrays of a tree are free of NaN and infinity."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in floats)
