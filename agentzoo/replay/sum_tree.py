"""A binary tree of sums over priorities, as one array.

Changing or drawing B leaves takes O(B log n) array operations. Node 1 is the root, and node i has
the children 2i and 2i + 1. So the leaves are the second half of the array, and node 0 is not used.
See appendix B.2.1 of "Prioritized Experience Replay" by Schaul et al.
(https://arxiv.org/abs/1511.05952).
"""

import jax
import jax.numpy as jnp


def init(num_leaves: int) -> jax.Array:
    """Return a tree for at least `num_leaves` priorities, all of them zero."""
    # The number of leaves is a power of 2, from 2 on, and the array is twice as long.
    return jnp.zeros(2 << max(num_leaves - 1, 1).bit_length(), jnp.float32)


def total(tree: jax.Array) -> jax.Array:
    """Return the sum of all priorities."""
    return tree[1]


def get(tree: jax.Array, leaves: jax.Array) -> jax.Array:
    """Return the priorities `[B]` of leaves `[B]`."""
    return tree[tree.shape[0] // 2 + leaves]


def update(tree: jax.Array, leaves: jax.Array, priorities: jax.Array) -> jax.Array:
    """Set the priorities `[B]` of leaves `[B]`, except for negative leaves.

    A leaf that occurs twice gets one of its values.
    """
    nowhere = tree.shape[0]  # an index out of range, where nothing is written
    node = jnp.where(leaves >= 0, tree.shape[0] // 2 + leaves, nowhere)
    tree = tree.at[node].set(priorities, mode="drop")
    # Level by level, each sum is computed anew from both children, so that rounding errors do not
    # accumulate.
    for _ in range(_depth(tree)):
        node = jnp.where(node < nowhere, node // 2, nowhere)  # the parents
        tree = tree.at[node].set(tree[2 * node] + tree[2 * node + 1], mode="drop")
    return tree


def find(tree: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the leaves in whose share of the total given masses fall.

    The loop is one of XLA, which reads the tree once. If the loop were unrolled, XLA would read the
    tree again wherever the result is used. It would copy the tree to be able to read it after an
    update.

    Args:
      tree: the tree.
      mass: `[B]`, each in `[0, total(tree))`.

    Returns:
      The leaves `[B]`, and their shares of the total `[B]`.
    """

    def descend(_, carry):
        node, mass, _ = carry
        left, right = tree[2 * node], tree[2 * node + 1]
        # The second condition keeps rounding errors from leading to an empty leaf.
        go_right = (mass >= left) & (right > 0)
        share = jnp.where(go_right, right, left) / tree[1]
        return 2 * node + go_right, jnp.where(go_right, mass - left, mass), share

    root = jnp.ones(mass.shape, jnp.int32), mass, jnp.ones(mass.shape, tree.dtype)
    node, _, share = jax.lax.fori_loop(0, _depth(tree), descend, root)
    return node - tree.shape[0] // 2, share


def _depth(tree: jax.Array) -> int:
    """Return how many levels lie between the root and the leaves: log2 of the number of leaves."""
    return tree.shape[0].bit_length() - 2
