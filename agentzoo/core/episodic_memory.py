"""Nearest neighbours in an agent's episodic memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator

__all__ = ["KNNQueryResult", "knn_query", "squared_euclidean"]


class KNNQueryResult(NamedTuple):
    """The k nearest rows of a memory, nearest first.

    Rows at the same distance are ordered by their position in the memory.

    Attributes:
      neighbors: `[..., k, D]` the rows.
      neighbor_indices: `[..., k]` the positions of the rows in the memory.
      neighbor_neg_distances: `[..., k]` the negated distances of the rows.
    """

    neighbors: jax.Array
    neighbor_indices: jax.Array
    neighbor_neg_distances: jax.Array


def squared_euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the squared Euclidean distance of two vectors, `sum((x - y)^2)`."""
    return jnp.sum(jnp.square(x - y), axis=-1)


@operator(static=("num_neighbors", "metric"))
def knn_query(
    data: ArrayLike,
    query_points: ArrayLike,
    num_neighbors: int,
    metric: Callable[[jax.Array, jax.Array], jax.Array] = squared_euclidean,
) -> KNNQueryResult:
    """Find the nearest rows of a memory for each query.

    The default metric ranks the rows by a matrix product. It then measures the distances of the
    best candidates by `sum((x - y)^2)`, so that the distance of two nearly equal points keeps all
    its digits. If rounding could have hidden a nearer row, all rows are measured.

    Args:
      data: `[N, D]` the memory. A row of infinities is infinitely far from everything, so it can
        stand for an empty place.
      query_points: `[..., D]` the queries.
      num_neighbors: the number of rows to find, at most N.
      metric: the distance of two vectors `[D]`. Define the function once, because each new function
        is compiled anew.

    Returns:
      The `min(num_neighbors, N)` nearest rows of each query.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    if jnp.ndim(data) != 2:
        raise ShapeError(
            f"knn_query: 'data' has shape {jnp.shape(data)}. Pass an array of shape [N, D]."
        )
    if jnp.shape(query_points)[-1:] != jnp.shape(data)[1:]:
        raise ShapeError(
            f"knn_query: 'query_points' has shape {jnp.shape(query_points)}. Pass an array of "
            f"shape [..., {jnp.shape(data)[1]}], because each row of 'data' has that length."
        )
    rows, queries = floats(data=data, query_points=query_points)
    leading, dtype = queries.shape[:-1], rows.dtype
    wide = jnp.promote_types(dtype, jnp.float32)  # 16-bit floats are too coarse for distances
    rows = rows.astype(wide)
    queries = queries.astype(wide).reshape(-1, rows.shape[-1])  # [Q, D]
    k = min(num_neighbors, rows.shape[0])
    if metric is not squared_euclidean:
        nearest = jax.lax.top_k(
            -jax.vmap(lambda q: jax.vmap(lambda row: metric(q, row))(rows))(queries), k
        )
    elif queries.size * rows.shape[0] < _LARGE or rows.shape[0] <= 2 * k + _SPARE:
        nearest = _measure_all(rows, queries, k)
    else:
        nearest = _measure_candidates(rows, queries, k)
    neg_distances, indices = (x.reshape(*leading, k) for x in nearest)
    return KNNQueryResult(jnp.asarray(data)[indices], indices, neg_distances.astype(dtype))


# The number of differences from which a matrix product is faster than measuring all rows.
_LARGE = 2**20
# Additional candidates. With more candidates it is rarer that all rows have to be measured.
_SPARE = 8


def _measure_all(rows, queries, k):
    """Return the k largest negated distances `[Q, k]` of queries `[Q, D]` to rows `[N, D]`."""
    return jax.lax.top_k(-squared_euclidean(queries[:, None], rows[None]), k)


def _measure_candidates(rows, queries, k):
    """Return what `_measure_all` returns, but measure only rows that may be among the nearest."""
    # `|q - x|^2 = |q|^2 + |x|^2 - 2 q.x`. Rounding changes the sum by less than `slack` times the
    # squares, so `at_least` [Q, N] is a lower bound of the measured distance. It is NaN only where
    # a row or a query is not finite.
    x, q = jax.lax.stop_gradient((rows, queries))
    slack = (2 * x.shape[-1] + 16) * float(jnp.finfo(x.dtype).eps)
    squares = jnp.sum(jnp.square(q), axis=-1)[:, None] + jnp.sum(jnp.square(x), axis=-1)[None]
    at_least = (1 - slack) * squares - 2 * jnp.einsum(
        "qd,nd->qn", q, x, precision=jax.lax.Precision.HIGHEST
    )
    at_least = jnp.where(jnp.isposinf(squares), jnp.inf, at_least)
    bounds, candidates = jax.lax.top_k(-at_least, 2 * k + _SPARE)
    # Every other row is at least this far away. This is the last of the bounds, but taking it by a
    # slice makes XLA's CPU compiler sort all rows.
    rest = -jnp.min(bounds, axis=-1)
    candidates = jnp.sort(candidates, axis=-1)  # so that ties are ordered by position
    neg_distances, order = jax.lax.top_k(-squared_euclidean(queries[:, None], rows[candidates]), k)
    return jax.lax.cond(
        jnp.all(-jnp.min(neg_distances, axis=-1) < rest),
        lambda: [neg_distances, jnp.take_along_axis(candidates, order, axis=-1)],
        lambda: _measure_all(rows, queries, k),
    )
