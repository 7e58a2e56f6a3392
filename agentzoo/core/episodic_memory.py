"""Nearest neighbours in an agent's memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator

__all__ = ["KNNQueryResult", "knn_query", "squared_euclidean"]


class KNNQueryResult(NamedTuple):
    """The k nearest rows of a memory, nearest first; of two at the same distance, the one stored first.

    Attributes:
      neighbors: `[..., k, D]` the rows.
      neighbor_indices: `[..., k]` where they are stored.
      neighbor_neg_distances: `[..., k]` their distances, negated.
    """

    neighbors: jax.Array
    neighbor_indices: jax.Array
    neighbor_neg_distances: jax.Array


def squared_euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared Euclidean distance of two vectors, `sum((x - y)^2)`."""
    return jnp.sum(jnp.square(x - y), axis=-1)


@operator(static=("num_neighbors", "metric"))
def knn_query(
    data: ArrayLike,
    query_points: ArrayLike,
    num_neighbors: int,
    metric: Callable[[jax.Array, jax.Array], jax.Array] = squared_euclidean,
) -> KNNQueryResult:
    """Finds the nearest rows of a memory for each query.

    The default metric ranks by a matrix product, and then measures the best candidates by `sum((x -
    y)^2)` itself, so that no digits are lost between points that are nearly the same. Where
    rounding could have hidden a nearer row, all are measured.

    Args:
      data: `[N, D]` the memory. A row of infinities is infinitely far from everything: an empty
        place.
      query_points: `[..., D]`.
      num_neighbors: how many to find, at most N.
      metric: the distance of two vectors `[D]`. A function defined once: each new one is compiled
        anew.

    Returns:
      The `min(num_neighbors, N)` nearest rows of each query.

    Raises:
      ShapeError: if the shapes do not fit together.
    """
    if jnp.ndim(data) != 2:
        raise ShapeError(
            f"knn_query: 'data' must have shape [N, D], but has shape {jnp.shape(data)}."
        )
    if jnp.shape(query_points)[-1:] != jnp.shape(data)[1:]:
        raise ShapeError(
            f"knn_query: 'query_points' must have shape [..., D] with D = {jnp.shape(data)[1]} as in 'data', "
            f"but has shape {jnp.shape(query_points)}."
        )
    rows, queries = floats(data=data, query_points=query_points)
    leading, dtype = queries.shape[:-1], rows.dtype
    rows, queries = (
        x.astype(jnp.promote_types(dtype, jnp.float32)) for x in (rows, queries)
    )  # distances need the digits
    queries = queries.reshape(-1, rows.shape[-1])
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


_LARGE = 2**20  # from so many differences on, a matrix product pays
_SPARE = 8  # the more candidates, the rarer that all rows have to be measured


def _measure_all(rows, queries, k):
    return jax.lax.top_k(-squared_euclidean(queries[:, None], rows[None]), k)


def _measure_candidates(rows, queries, k):
    # |q - x|^2 = |q|^2 + |x|^2 - 2 q.x. Rounding moves the sum by less than `slack` of the squares,
    # so that this is at most what would be measured; where it is NaN, a row or a query is not
    # finite.
    x, q = jax.lax.stop_gradient((rows, queries))
    slack = (2 * x.shape[-1] + 16) * float(jnp.finfo(x.dtype).eps)
    squares = jnp.sum(jnp.square(q), axis=-1)[:, None] + jnp.sum(jnp.square(x), axis=-1)[None]
    at_least = (1 - slack) * squares - 2 * jnp.einsum(
        "qd,nd->qn", q, x, precision=jax.lax.Precision.HIGHEST
    )
    at_least = jnp.where(jnp.isposinf(squares), jnp.inf, at_least)
    bounds, candidates = jax.lax.top_k(-at_least, 2 * k + _SPARE)
    rest = -jnp.min(
        bounds, axis=-1
    )  # every other row is at least so far; no slice: with one, XLA's CPU compiler sorts all rows
    candidates = jnp.sort(candidates, axis=-1)
    neg_distances, order = jax.lax.top_k(-squared_euclidean(queries[:, None], rows[candidates]), k)
    return jax.lax.cond(
        jnp.all(-jnp.min(neg_distances, axis=-1) < rest),
        lambda: [neg_distances, jnp.take_along_axis(candidates, order, axis=-1)],
        lambda: _measure_all(rows, queries, k),
    )
