import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core._operator import ShapeError
from agentzoo.core.sequences import (
    extract_subsequences,
    fix_step_type_on_interruptions,
    sample_start_indices,
)

# The value of each step is its time, plus 100 in the second trajectory: [T, B].
TRAJECTORIES = np.arange(10.0, dtype=np.float32)[:, None] + np.array([0.0, 100.0], np.float32)
STARTS = np.array([[0, 1, 4], [1, 2, 7]])  # [B, n]
FIRST, MID, LAST = 0, 1, 2


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_windows_by_hand(transform):
    windows = transform(lambda x, i: extract_subsequences(x, i, 3))(TRAJECTORIES, STARTS)
    np.testing.assert_array_equal(
        windows,
        [[[0, 1, 4], [101, 102, 107]], [[1, 2, 5], [102, 103, 108]], [[2, 3, 6], [103, 104, 109]]],
    )


@jax.numpy_rank_promotion("raise")
def test_windows_of_trees_with_trailing_axes():
    rng = np.random.default_rng(0)
    tree = {
        "obs": rng.normal(size=(10, 2, 4, 3)).astype(np.float32),
        "a": rng.integers(5, size=(10, 2)),
    }
    windows = extract_subsequences(tree, STARTS, 3)
    for name, leaf in tree.items():
        for s, b, n in np.ndindex(3, 2, 3):
            np.testing.assert_array_equal(windows[name][s, b, n], leaf[STARTS[b, n] + s, b])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_what_lies_beyond_the_trajectory_is_no_step_of_it(transform):
    starts = np.array([[8, 20, -1], [9, -2, 0]])
    windows = transform(lambda x: extract_subsequences(x, starts, 2))(TRAJECTORIES)
    np.testing.assert_array_equal(
        windows,
        [[[8, np.nan, np.nan], [109, np.nan, 100]], [[9, np.nan, 0], [np.nan, np.nan, 101]]],
    )
    integers = transform(lambda x: extract_subsequences(x, starts, 2))(
        TRAJECTORIES.astype(np.int32)
    )
    np.testing.assert_array_equal(integers == np.iinfo(np.int32).min, np.isnan(windows))


def test_windows_give_their_gradient_to_the_steps_they_hold():
    grad = jax.grad(lambda x: extract_subsequences(x, np.array([[0, 1], [8, 3]]), 2).sum())(
        TRAJECTORIES
    )
    expected = np.zeros((10, 2))
    for b, t in [(0, 0), (0, 1), (0, 1), (0, 2), (1, 8), (1, 9), (1, 3), (1, 4)]:
        expected[t, b] += 1
    np.testing.assert_array_equal(grad, expected)


def test_windows_are_the_same_when_mapped():
    x, starts = (
        jnp.stack([TRAJECTORIES, TRAJECTORIES + 7]),
        jnp.stack([STARTS, STARTS - 1 + (STARTS == 0)]),
    )
    mapped = jax.vmap(lambda x, i: extract_subsequences(x, i, 2))(x, starts)
    for i in range(2):
        np.testing.assert_array_equal(mapped[i], extract_subsequences(x[i], starts[i], 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TRAJECTORIES, STARTS, 2, 9), AssertionError, "Expected len >= 11"),
        ((TRAJECTORIES, STARTS[0], 2), ShapeError, "'start_indices'"),
        ((TRAJECTORIES, STARTS[:1], 2), ShapeError, "'start_indices'"),
        ((TRAJECTORIES[:, 0], STARTS, 2), ShapeError, "'trajectories'"),
        (
            (TRAJECTORIES, STARTS.astype(np.float32), 2),
            TypeError,
            "'start_indices' has dtype",
        ),
        ((TRAJECTORIES, STARTS, 0), ValueError, "'subsequence_len'"),
    ],
)
def test_windows_that_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        extract_subsequences(*arguments)


def test_the_last_valid_start_fits():
    assert extract_subsequences(TRAJECTORIES, STARTS, 2, max_valid_start_idx=8).shape == (2, 2, 3)


def test_start_indices_are_different_in_each_row_and_uniform():
    starts = np.asarray(sample_start_indices(jax.random.key(0), 4000, 3, 4))
    assert starts.shape == (4000, 3)
    assert all(len(set(row)) == 3 for row in starts.tolist())
    counts = np.bincount(starts.ravel(), minlength=5)
    assert len(counts) == 5
    # An index is in a row with probability 3/5. The tolerance is five standard deviations.
    assert np.abs(counts - 2400).max() < 5 * np.sqrt(4000 * 0.6 * 0.4)
    np.testing.assert_array_equal(
        np.sort(sample_start_indices(jax.random.key(1), 2, 5, 4)), [range(5)] * 2
    )


def test_start_indices_that_cannot_be_different():
    with pytest.raises(ValueError, match="5 different"):
        sample_start_indices(jax.random.key(0), 2, 6, 4)
    with pytest.raises(TypeError, match="'batch_size' must be a Python value"):
        sample_start_indices(jax.random.key(0), jnp.int32(2), 1, 4)


@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, lambda f: jax.vmap(f, 1, 1)], ids=["plain", "jit", "vmap"]
)
def test_interruptions_become_ends(transform):
    steps = np.array(
        [[MID, FIRST, LAST], [FIRST, FIRST, FIRST], [MID, MID, MID], [MID, MID, FIRST]], np.int8
    )
    fixed = transform(fix_step_type_on_interruptions)(steps)
    np.testing.assert_array_equal(
        fixed, [[LAST, FIRST, LAST], [FIRST, FIRST, FIRST], [MID, MID, LAST], [MID, MID, FIRST]]
    )
    assert fixed.dtype == np.int8
    np.testing.assert_array_equal(transform(fix_step_type_on_interruptions)(fixed), fixed)


def test_interruptions_without_batch_and_without_time():
    assert fix_step_type_on_interruptions(np.array([MID, FIRST, MID, LAST, FIRST])).tolist() == [
        LAST,
        FIRST,
        MID,
        LAST,
        FIRST,
    ]
    with pytest.raises(ShapeError, match="'step_type'"):
        fix_step_type_on_interruptions(MID)
