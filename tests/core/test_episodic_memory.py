import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import ShapeError, episodic_memory
from agentzoo.core.episodic_memory import knn_query

TRANSFORMS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda q: jax.tree.map(lambda x: x[0], jax.vmap(f)(q[None])),
}


def oracle(data, query_points, k):
    """Return the sorted distances of each query to each row in float64, and their positions."""
    data, query_points = np.asarray(data, np.float64), np.asarray(query_points, np.float64)
    distances = np.sum((query_points[:, None] - data) ** 2, axis=-1)
    indices = np.argsort(distances, axis=-1, kind="stable")[:, :k]
    return indices, np.take_along_axis(distances, indices, axis=-1)


def small_and_large(data, queries, k):
    """Measure directly, and check that many queries, for which rows are ranked first, agree."""
    result = knn_query(data, queries, k)
    copies = math.ceil(episodic_memory._LARGE / (queries.size * len(data)))
    assert copies > 1
    large = knn_query(data, np.tile(queries, (copies, 1)), k)
    for name, one, many in zip(result._fields, result, large, strict=True):
        for x in np.split(np.asarray(many), copies):
            np.testing.assert_array_equal(x, one, err_msg=name)
    return result


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("n", "q", "dimension"), [(5, 7, 6), (40, 7, 6), (1000, 36, 32)])
def test_values_against_an_oracle(n, q, dimension, transform):
    rng = np.random.default_rng(n)
    data, queries = (
        rng.normal(size=(n, dimension)).astype(np.float32),
        rng.normal(size=(q, dimension)).astype(np.float32),
    )
    result = TRANSFORMS[transform](lambda q: knn_query(data, q, 10))(queries)
    indices, distances = oracle(data, queries, 10)
    np.testing.assert_array_equal(result.neighbor_indices, indices)
    np.testing.assert_allclose(result.neighbor_neg_distances, -distances, rtol=1e-5)
    np.testing.assert_array_equal(result.neighbors, data[indices])


def test_by_hand():
    result = knn_query(
        np.array([[0.0, 0.0], [7.5, 1.0], [40.0, 40.0]]), np.array([[2.0, 1.3], [7.5, 0.0]]), 2
    )
    np.testing.assert_array_equal(result.neighbor_indices, [[0, 1], [1, 0]])
    np.testing.assert_allclose(
        result.neighbor_neg_distances, [[-5.69, -30.34], [-1, -56.25]], rtol=1e-6
    )


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_points_that_are_nearly_the_same_keep_their_digits(offset, spread):
    """With `|q|^2 + |x|^2 - 2 q.x`, rounding would hide all of these distances."""
    rng = np.random.default_rng(0)
    data = (offset + spread * rng.normal(size=(300, 8))).astype(np.float32)
    queries = np.concatenate(
        [data[:20], (offset + spread * rng.normal(size=(20, 8))).astype(np.float32)]
    )
    indices, distances = oracle(data, queries, 5)
    result = small_and_large(data, queries, 5)
    np.testing.assert_array_equal(result.neighbor_indices, indices)
    np.testing.assert_allclose(result.neighbor_neg_distances, -distances, rtol=1e-5)
    assert (result.neighbor_neg_distances[:20, 0] == 0).all()


def test_a_crowd_of_duplicates_far_from_the_origin():
    """More rows than there are candidates lie within the rounding error of the matrix product."""
    rng = np.random.default_rng(0)
    data = np.float32(
        100 + np.concatenate([1e-4 * rng.normal(size=(200, 4)), rng.normal(size=(50, 4))])
    )
    queries = data[::7]
    indices, distances = oracle(data, queries, 3)
    result = small_and_large(data, queries, 3)
    np.testing.assert_allclose(result.neighbor_neg_distances, -distances, rtol=1e-5)
    np.testing.assert_array_equal(result.neighbor_indices, indices)


@pytest.mark.slow
def test_of_equal_distances_the_first_counts():
    for n in (10, 200):
        np.testing.assert_array_equal(
            small_and_large(np.zeros((n, 2)), np.ones((3, 2)), 4).neighbor_indices,
            [[0, 1, 2, 3]] * 3,
        )


def test_empty_places_are_infinitely_far():
    data = np.full((100, 3), np.inf)
    data[[50, 60]] = [[1.0, 0, 0], [2.0, 0, 0]]
    result = small_and_large(data, np.zeros((5, 3)), 3)
    np.testing.assert_array_equal(result.neighbor_indices[:, :2], [[50, 60]] * 5)
    np.testing.assert_array_equal(result.neighbor_neg_distances, [[-1, -4, -np.inf]] * 5)


def test_other_metrics():
    data, queries = np.array([[0.0, 3.0], [2.0, 2.0], [9.0, 9.0]]), np.zeros((2, 2))
    result = knn_query(data, queries, 2, manhattan)
    np.testing.assert_array_equal(result.neighbor_indices, [[0, 1]] * 2)
    np.testing.assert_array_equal(result.neighbor_neg_distances, [[-3, -4]] * 2)
    np.testing.assert_array_equal(knn_query(data, queries, 2).neighbor_indices, [[1, 0]] * 2)


def manhattan(x, y):
    return jnp.sum(jnp.abs(x - y))


def test_gradients_of_distances():
    rng = np.random.default_rng(0)
    data, queries = rng.normal(size=(2, 700, 3)).astype(
        np.float32
    )  # enough that rows are ranked first
    indices, _ = oracle(data, queries, 2)

    def total(data, queries):
        return -knn_query(data, queries, 2).neighbor_neg_distances.sum()

    by_data, by_queries = jax.grad(total, (0, 1))(data, queries)
    difference = 2 * (queries[:, None] - data[indices])
    np.testing.assert_allclose(by_queries, difference.sum(1), rtol=1e-4, atol=1e-5)
    expected = np.zeros_like(data)
    np.add.at(expected, indices, -difference)
    np.testing.assert_allclose(by_data, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=8)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from([(3, 5), (50, 2)]),
    st.sampled_from([np.int32, np.float16, jnp.bfloat16]),
)
def test_shapes_and_dtypes(leading, sizes, dtype):
    (n, k), leading = sizes, tuple(leading)
    data, queries = jnp.ones((n, 2), dtype), jnp.ones((*leading, 2), dtype)
    result = jax.eval_shape(lambda: knn_query(data, queries, k))  # traced, not compiled
    k = min(n, k)
    assert result.neighbors.shape == (*leading, k, 2) and result.neighbors.dtype == dtype
    assert result.neighbor_indices.shape == result.neighbor_neg_distances.shape == (*leading, k)
    assert result.neighbor_neg_distances.dtype == (jnp.float32 if dtype == np.int32 else dtype)


def test_low_precision_is_ranked_in_float32():
    # In bfloat16, the squares of these numbers differ by less than a digit.
    data = jnp.array([[100.0], [101.0], [102.0]], jnp.bfloat16)
    np.testing.assert_array_equal(
        knn_query(data, jnp.array([[101.0]], jnp.bfloat16), 2).neighbor_indices[0], [1, 0]
    )


@pytest.mark.parametrize(
    ("data", "queries", "message"),
    [
        (np.array([]), np.array([]), "'data' has shape"),
        (np.ones((3, 2)), np.ones((4, 3)), "'query_points' has shape"),
        (np.ones((3, 2)), 1.0, "'query_points' has shape"),
    ],
)
def test_shapes_that_do_not_fit(data, queries, message):
    with pytest.raises(ShapeError, match=message):
        knn_query(data, queries, 2)
    with pytest.raises(TypeError, match="'num_neighbors' must be a Python value"):
        jax.jit(lambda k: knn_query(np.ones((3, 2)), np.ones((4, 2)), k))(2)


def test_compiled_once_per_shape_and_metric(monkeypatch):
    traced = []
    monkeypatch.setattr(
        episodic_memory, "_measure_all", lambda *args: traced.append(1) or _measure_all(*args)
    )
    for seed in range(3):
        knn_query(np.random.default_rng(seed).normal(size=(11, 13)), np.zeros((1, 13)), 2)
    assert len(traced) == 1


_measure_all = episodic_memory._measure_all
