import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core._operator import ShapeError
from agentzoo.core.arrays import AllSum, batched_index, lhs_broadcast, one_hot, replace_masked

VALUES = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], np.float32)
TRANSFORMS = pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"]
)


@TRANSFORMS
def test_batched_index_by_hand(transform):
    np.testing.assert_array_equal(transform(batched_index)(VALUES, np.array([1, 2])), [1, 5])
    np.testing.assert_array_equal(
        transform(lambda v, i: batched_index(v, i, keepdims=True))(VALUES, np.array([1, 2])),
        [[1], [5]],
    )


def test_batched_index_scatters_its_gradient_to_the_elements_picked():
    grad = jax.grad(lambda v: (batched_index(v, np.array([1, 2])) * jnp.array([3.0, 7.0])).sum())(
        VALUES
    )
    np.testing.assert_array_equal(grad, [[0, 3, 0], [0, 0, 7]])


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 4), st.integers(0, 2**31))
def test_batched_index_for_any_leading_axes(leading, length, seed):
    rng = np.random.default_rng(seed)
    values, indices = (
        rng.normal(size=(*leading, length)).astype(np.float32),
        rng.integers(length, size=leading),
    )
    expected = np.zeros(leading, np.float32)
    for i in np.ndindex(*leading):
        expected[i] = values[i][indices[i]]
    np.testing.assert_array_equal(batched_index(values, indices), expected)


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_index_out_of_range_never_picks_another_element(index):
    assert np.isnan(batched_index(VALUES[0], index))
    assert batched_index(VALUES[0].astype(np.int32), index) == np.iinfo(np.int32).min


@TRANSFORMS
def test_one_hot_by_hand(transform):
    expected = [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    for indices in (np.array([0, 2, 3, -1]), np.array([0.0, 2.0, 3.0, 0.5], np.float32)):
        np.testing.assert_array_equal(transform(lambda i: one_hot(i, 3))(indices), expected)


def test_one_hot_keeps_the_rank_of_a_scalar_and_the_dtype_asked_for():
    np.testing.assert_array_equal(one_hot(1, 3), [0, 1, 0])
    assert one_hot(jnp.int32(1), 3).dtype == jnp.float32
    assert one_hot(1, 3, jnp.int8).dtype == jnp.int8


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "bfloat16", "bool"])
def test_more_classes_than_the_dtype_of_an_index_can_count(dtype):
    np.testing.assert_array_equal(one_hot(jnp.asarray([0, 1], dtype), 3000).nonzero()[1], [0, 1])
    if "int" in dtype:
        np.testing.assert_array_equal(
            batched_index(np.arange(6000.0).reshape(2, 3000), np.array([0, 100], dtype)), [0, 3100]
        )


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((), (2, 3), (1, 1)),
        ((2,), (2, 3), (2, 1)),
        ((2, 1), (2, 3, 4), (2, 1, 1)),
        ((2, 3), (2, 3), (2, 3)),
        ((1,), (2, 3), (1, 1)),
    ],
)
def test_lhs_broadcast_appends_axes(source, target, expected):
    assert lhs_broadcast(np.ones(source), np.ones(target)).shape == expected
    assert jax.jit(lhs_broadcast)(np.ones(source), np.ones(target)).shape == expected


@pytest.mark.parametrize(("source", "target"), [((3,), (2, 3)), ((2, 3), (2,)), ((2, 3), (2, 1))])
def test_lhs_broadcast_refuses_what_does_not_line_up(source, target):
    with pytest.raises(ShapeError, match="'source' has shape"):
        lhs_broadcast(np.ones(source), np.ones(target))


@TRANSFORMS
def test_replace_masked_by_hand(transform):
    mask = np.array([0, 1])
    np.testing.assert_array_equal(
        transform(replace_masked)(VALUES, -VALUES, mask), [[0, 1, 2], [-3, -4, -5]]
    )
    np.testing.assert_array_equal(
        transform(lambda d, m: replace_masked(d, None, m))(VALUES, mask), [[0, 1, 2], [0, 0, 0]]
    )
    np.testing.assert_array_equal(
        transform(lambda d, m: replace_masked(d, 9, m))(VALUES, mask), [[0, 1, 2], [9, 9, 9]]
    )


def test_replace_masked_passes_gradients_to_what_is_used_alone():
    bad = np.array([[np.nan, 1, 1], [2, 2, 2]], np.float32)
    grad_data, grad_replacement = jax.grad(
        lambda d, r: replace_masked(d, r, np.array([True, False])).sum(), (0, 1)
    )(bad, VALUES)
    np.testing.assert_array_equal(grad_data, [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(grad_replacement, [[1, 1, 1], [0, 0, 0]])


def test_replace_masked_promotes_and_takes_element_wise_masks():
    assert replace_masked(
        np.array([1, 2]), np.array([0.5, 0.5], np.float32), np.array([1, 0])
    ).tolist() == [0.5, 2]
    np.testing.assert_array_equal(
        replace_masked(VALUES, None, np.array([[0, 1, 1], [2, 0, 0]])), [[0, 0, 0], [0, 4, 5]]
    )


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_all_sum_sums_over_devices_too(axis):
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.testing.assert_array_equal(AllSum()(x[0], axis), x[0].sum(axis))
    mapped = jax.vmap(lambda x: AllSum("i")(x, axis), axis_name="i")(x)
    np.testing.assert_array_equal(mapped, np.broadcast_to(x.sum(0).sum(axis), mapped.shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batched_index(VALUES, np.zeros(3, int)), "'indices' must have shape"),
        (lambda: batched_index(VALUES, 0), "'indices' must have shape"),
        (lambda: batched_index(1.0, 0), "'values' is a scalar"),
        (
            lambda: replace_masked(VALUES, VALUES[0], np.array([0, 1])),
            "'replacement' must have shape",
        ),
        (lambda: replace_masked(VALUES, None, np.array([0, 1, 1])), "'source' has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_indices_must_be_integers():
    with pytest.raises(TypeError, match="'indices'"):
        batched_index(VALUES, np.array([0.0, 1.0]))
