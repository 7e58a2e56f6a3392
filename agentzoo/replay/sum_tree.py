"""A binary tree of sums over priorities, as one array: changing or drawing B leaves takes O(B log n) array operations.

Node 1 is the root and node i has children 2i and 2i + 1, so the leaves are the second half of the
array. See appendix B.2.1 of "Prioritized Experience Replay" by Schaul et al.
(https://arxiv.org/abs/1511.05952).
"""

import jax
import jax.numpy as jnp


def init(num_leaves: int) -> jax.Array:
    """A tree for at least `num_leaves` priorities, all of them zero."""
    return jnp.zeros(2 << max(num_leaves - 1, 1).bit_length(), jnp.float32)


def total(tree: jax.Array) -> jax.Array:
    """The sum of all priorities."""
    return tree[1]


def get(tree: jax.Array, leaves: jax.Array) -> jax.Array:
    """The priorities `[B]` of leaves `[B]`."""
    return tree[tree.shape[0] // 2 + leaves]


def update(tree: jax.Array, leaves: jax.Array, priorities: jax.Array) -> jax.Array:
    """Sets the priorities `[B]` of leaves `[B]`; negative leaves are left out.

    A leaf named twice gets one of its values.
    """
    depth = tree.shape[0].bit_length() - 2
    nowhere = tree.shape[0]  # out of range, which scatters drop
    node = jnp.where(leaves >= 0, tree.shape[0] // 2 + leaves, nowhere)
    tree = tree.at[node].set(priorities, mode="drop")
    for _ in range(
        depth
    ):  # Sums are formed anew from both children, so that rounding errors cannot pile up.
        node = jnp.where(node < nowhere, node // 2, nowhere)
        tree = tree.at[node].set(tree[2 * node] + tree[2 * node + 1], mode="drop")
    return tree


def find(tree: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The leaves `[B]` in whose share of the total the given masses `[B]` fall, each in `[0, total)`, and their share of it.

    The loop is one of XLA's, so that what it reads is read once: unrolled, XLA would read it again
    wherever it is used, and to be able to do that after an update it would copy the tree.
    """

    def descend(_, carry):
        node, mass, _ = carry
        left, right = tree[2 * node], tree[2 * node + 1]
        go_right = (mass >= left) & (
            right > 0
        )  # the second condition guards against rounding into an empty leaf
        share = jnp.where(go_right, right, left) / tree[1]
        return 2 * node + go_right, jnp.where(go_right, mass - left, mass), share

    depth = tree.shape[0].bit_length() - 2
    node, _, share = jax.lax.fori_loop(
        0, depth, descend, (jnp.ones(mass.shape, jnp.int32), mass, jnp.ones(mass.shape, tree.dtype))
    )
    return node - tree.shape[0] // 2, share
