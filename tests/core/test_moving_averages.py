import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core._operator import ShapeError
from agentzoo.core.moving_averages import EmaMoments, RewardNormalizer, RunningMeanStd, create_ema


def float64_ema(batches, decay, axis):
    """Return weighted moments of batches, where each batch reduces all earlier weights."""
    weights = np.array([decay ** (len(batches) - 1 - i) for i in range(len(batches))])
    weights /= weights.sum()
    batches = np.asarray(batches, np.float64)
    axis = tuple(range(batches.ndim - 1)) if axis is None else axis
    mean = np.tensordot(weights, batches.mean(tuple(i + 1 for i in axis)), 1)
    deviation = batches - np.expand_dims(mean, (0, *(i + 1 for i in axis)))
    return mean, np.tensordot(weights, np.square(deviation).mean(tuple(i + 1 for i in axis)), 1)


def test_ema_by_hand():
    init, update = create_ema(decay=0.5)
    state = init(np.zeros(2))
    assert state.debiased_moments() == EmaMoments(0.0, 0.0)
    moments, state = update(np.array([1.0, 3.0]), state)
    np.testing.assert_allclose(moments, [2, 1], rtol=1e-6)  # the first batch has all the weight
    moments, state = update(np.array([5.0, 5.0]), state)
    # With weights 1/3 and 2/3 the mean is 4 and the variance (0.5 * 9 + 0.5 * 1) / 3 + 2 / 3 * 1.
    np.testing.assert_allclose(moments, [4, 7 / 3], rtol=1e-6)
    assert state.decay_product == 0.25
    assert state.debiased_moments() == moments


@pytest.mark.parametrize("axis", [None, (0,), (0, 1), (1,), (-1,)])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_ema_against_float64(axis, transform):
    batches = np.random.default_rng(0).normal(3, 2, (7, 4, 5, 3)).astype(np.float32)
    init, update = create_ema(0.8, axis=axis)
    update = transform(update)
    state = init({"a": batches[0]})
    for batch in batches:
        moments, state = update({"a": batch}, state)
    mean, variance = float64_ema(batches, 0.8, None if axis is None else tuple(i % 3 for i in axis))
    np.testing.assert_allclose(moments.mean["a"], mean, rtol=1e-6)
    np.testing.assert_allclose(moments.variance["a"], variance, rtol=1e-5)


def test_ema_of_one_axis_given_as_a_number_and_of_integers():
    init, update = create_ema(0.9, axis=0)
    x = np.array([[1, 10], [3, 20]])
    moments, _ = update(x, init(x))
    np.testing.assert_allclose(moments, [[2, 15], [1, 25]], rtol=1e-6)


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_ema_keeps_the_variance_beside_a_large_mean(decay):
    x = np.random.default_rng(0).normal(1e4, 1, 3000).astype(np.float32)
    init, update = create_ema(decay)
    _, all_moments = jax.lax.scan(lambda state, x: update(x, state)[::-1], init(0.0), x)
    for n in (2, 50, 3000):
        mean, variance = float64_ema(x[:n], decay, None)
        np.testing.assert_allclose(all_moments.mean[n - 1], mean, atol=2e-3)
        np.testing.assert_allclose(all_moments.variance[n - 1], variance, rtol=2e-3)


def test_ema_over_a_mapped_axis_is_that_of_the_whole_batch():
    batches = np.random.default_rng(0).normal(3, 2, (3, 4, 5)).astype(np.float32)
    whole_init, whole_update = create_ema(0.9)
    init, update = create_ema(0.9, pmean_axis_name="i")
    whole, state = whole_init(batches[0]), init(batches[0, 0])
    for batch in batches:
        expected, whole = whole_update(batch, whole)
        moments, states = jax.vmap(update, (0, None), axis_name="i")(batch, state)
        state = jax.tree.map(lambda leaf: leaf[0], states)
        for found, wanted in zip(moments, expected, strict=True):
            np.testing.assert_allclose(found, np.full(4, wanted), rtol=1e-5)


def weighted_moments(x, weights):
    """Return the mean and variance over the first axis in float64."""
    x, weights = np.asarray(x, np.float64), np.asarray(weights, np.float64)
    weights = weights.reshape(len(weights), *[1] * (x.ndim - 1)) / weights.sum()
    mean = (weights * x).sum(0)
    return mean, (weights * (x - mean) ** 2).sum(0)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_running_statistics_by_hand(transform):
    statistics = RunningMeanStd.init(np.zeros(2))
    np.testing.assert_array_equal(statistics.normalize(np.array([3.0, -4.0])), [3, -4])
    update = transform(RunningMeanStd.update)
    statistics = update(statistics, np.array([[0.0, 1.0], [2.0, 1.0]]))
    statistics = update(statistics, np.array([4.0, 4.0]))
    assert statistics.count == 3
    np.testing.assert_allclose(statistics.mean, [2, 2], rtol=1e-6)
    np.testing.assert_allclose(statistics.variance, [8 / 3, 2], rtol=1e-6)
    normalize = transform(lambda x: statistics.normalize(x, clip=1.5))
    np.testing.assert_allclose(normalize(np.array([2.0, 4.0])), [0, 2**0.5], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(normalize(np.array([-9.0, 9.0])), [-1.5, 1.5])


@settings(deadline=None, max_examples=8)
@given(
    st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**31)
)
def test_any_division_into_batches_gives_the_moments_of_all(features, sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(5, 3, (n, features)).astype(np.float32) for n in sizes]
    weights = [rng.integers(0, 3, n).astype(np.float32) for n in sizes]
    weights[0][0] = 1
    statistics = RunningMeanStd.init(np.zeros(features))
    for x, w in zip(batches, weights, strict=True):
        statistics = statistics.update(x, w)
    mean, variance = weighted_moments(np.concatenate(batches), np.concatenate(weights))
    assert statistics.count == sum(w.sum() for w in weights)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-4, atol=1e-5)


def test_few_samples_far_away_count_for_what_they_are_beside_many():
    x, weights = np.array([[0.0], [1e4]]), np.array([10, 3e7])
    statistics = RunningMeanStd.init(x[0])
    for sample, weight in zip(x, weights, strict=True):
        statistics = statistics.update(sample[None], np.array([weight]))
    mean, variance = weighted_moments(x, weights)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-5)


def test_merging_statistics_is_updating_with_the_samples_of_both():
    x = np.random.default_rng(0).normal(1e4, 1, (300, 2)).astype(np.float32)
    empty = RunningMeanStd.init(x[0])
    merged = empty.update(x[:10]).merge(empty.update(x[10:]))
    mean, variance = weighted_moments(x, np.ones(300))
    assert merged.count == 300
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(merged.variance, variance, rtol=1e-5)
    for same in (empty.merge(empty), empty.merge(merged), merged.merge(empty)):
        expected = empty if same.count == 0 else merged
        jax.tree.map(np.testing.assert_array_equal, same, expected)


@pytest.mark.parametrize("batch", [1, 16])
def test_statistics_are_accurate_beside_a_large_mean_and_follow_it(batch):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(1e4, 1, 32_000), rng.normal(1e4 + 2, 1, 32_000)]).astype(
        np.float32
    )
    statistics, _ = jax.lax.scan(
        lambda s, x: (s.update(x), None), RunningMeanStd.init(0.0), x.reshape(-1, batch)
    )
    mean, variance = weighted_moments(x, np.ones(len(x)))
    assert abs(float(statistics.mean) + float(statistics.rest) - mean) < 1e-4
    np.testing.assert_allclose(statistics.variance, variance, rtol=2e-5)
    normal = statistics.normalize(x, clip=np.inf)
    np.testing.assert_allclose([normal.mean(), normal.std()], [0, 1], atol=1e-4)


def test_samples_without_weight_may_be_anything():
    x = np.array([1.0, np.nan, 3.0, np.inf], np.float32)
    statistics = RunningMeanStd.init(0.0).update(x, np.array([True, False, True, False]))
    np.testing.assert_array_equal(
        [statistics.count, statistics.mean, statistics.variance], [2, 2, 1]
    )
    unchanged = statistics.update(x, np.zeros(4))
    jax.tree.map(np.testing.assert_array_equal, unchanged, statistics)


def test_trees_of_samples():
    rng = np.random.default_rng(0)
    x = {
        "image": rng.integers(256, size=(5, 4, 2, 2), dtype=np.uint8),
        "pair": (rng.normal(size=(5, 4)), rng.normal(size=(5, 4, 3))),
    }
    sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), x)
    statistics = RunningMeanStd.init(sample).update(x)
    for leaf, mean, variance in zip(
        *map(jax.tree.leaves, (x, statistics.mean, statistics.variance)), strict=True
    ):
        expected_mean, expected_variance = weighted_moments(
            leaf.reshape(20, *leaf.shape[2:]), np.ones(20)
        )
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance, expected_variance, rtol=1e-5)
    normal = statistics.normalize(x)
    assert jax.tree.map(np.shape, normal) == jax.tree.map(np.shape, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(normal)} == {np.dtype(np.float32)}


def test_a_constant_is_normalised_to_zero():
    statistics = RunningMeanStd.init(0.0).update(np.full(10, 1234.5))
    assert statistics.variance == 0
    assert statistics.normalize(1234.5) == 0


def test_normalising_is_differentiable():
    statistics = RunningMeanStd.init(0.0).update(np.array([1.0, 5.0]))
    assert jax.grad(statistics.normalize)(2.0) == pytest.approx(0.5)
    assert jax.grad(statistics.normalize)(100.0) == 0  # clipped
    # Statistics are constants for the gradient, even if they come from the same sample.
    assert jax.grad(
        lambda x: RunningMeanStd.init(0.0).update(np.array([1.0, 5.0]) * x).normalize(2.0 * x)
    )(1.0) == pytest.approx(1.0)


def test_division_over_a_mapped_axis_gives_the_same_statistics():
    x = np.random.default_rng(0).normal(1e4, 1, (4, 6, 3)).astype(np.float32)
    weights = np.random.default_rng(1).integers(0, 2, (4, 6))
    start = RunningMeanStd.init(x[0, 0]).update(x[0, :2] + 5)
    whole = start.update(x, weights)
    divided = jax.vmap(lambda x, w: start.update(x, w, axis_name="i"), axis_name="i")(x, weights)
    for found, expected in zip(divided, whole, strict=True):
        np.testing.assert_allclose(found[:1], expected[None], rtol=1e-6, atol=1e-3)
        np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))


def float64_reward_scale(r_t, last_t, gamma, mask):
    """Return the discounted sums of all steps that happened, one environment after another."""
    sums = []
    for n in range(r_t.shape[1]):
        total = 0.0
        for t in range(r_t.shape[0]):
            if mask[t, n]:
                total = r_t[t, n] + gamma * total
                sums.append(total)
                if last_t[t, n]:
                    total = 0.0
    return np.std(sums)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_reward_scale_by_hand(transform):
    state = RewardNormalizer.init()
    assert state.normalize(3.0) == 3
    r_t, last_t = np.array([1.0, 2.0, 4.0]), np.array([False, True, False])
    state = transform(lambda s, r, end: s.update(r, end, 0.5))(state, r_t, last_t)
    sums = [1, 2.5, 4]  # the third step starts an episode
    assert state.returns == 4
    np.testing.assert_allclose(state.statistics.variance, np.var(sums), rtol=1e-6)
    np.testing.assert_allclose(transform(state.normalize)(r_t), r_t / np.std(sums), rtol=1e-6)
    np.testing.assert_allclose(
        state.normalize(r_t, clip=1.0), np.minimum(r_t / np.std(sums), 1), rtol=1e-6
    )


def test_reward_scale_against_float64_in_any_portions_with_ends_and_dummy_steps():
    rng = np.random.default_rng(0)
    r_t = rng.normal(50, 10, (40, 3)).astype(np.float32)
    last_t, mask = rng.random((40, 3)) < 0.15, rng.random((40, 3)) < 0.8
    expected = float64_reward_scale(r_t, last_t, 0.9, mask)
    garbage = np.where(mask, r_t, np.nan)
    for portions in ([40], [1, 14, 25]):
        state, t = RewardNormalizer.init(3), 0
        for length in portions:
            span = slice(t, t + length)
            state, t = state.update(garbage[span], last_t[span], 0.9, mask[span]), t + length
        np.testing.assert_allclose(np.sqrt(state.statistics.variance), expected, rtol=1e-5)
        np.testing.assert_allclose(state.normalize(r_t, clip=np.inf), r_t / expected, rtol=1e-5)
        assert state.statistics.count == mask.sum()


def test_reward_scale_over_a_mapped_axis():
    rng = np.random.default_rng(0)
    r_t, last_t = rng.normal(1, 1, (10, 4, 2)).astype(np.float32), rng.random((10, 4, 2)) < 0.2
    whole = RewardNormalizer.init((4, 2)).update(r_t, last_t, 0.9)
    start = RewardNormalizer(jnp.zeros((4, 2)), RunningMeanStd.init(0.0))
    axes = RewardNormalizer(0, None)
    divided = jax.vmap(
        lambda s, r, end: s.update(r, end, 0.9, axis_name="i"), (axes, 1, 1), axis_name="i"
    )(start, r_t, last_t)
    np.testing.assert_allclose(divided.returns, whole.returns, rtol=1e-6)
    np.testing.assert_allclose(
        divided.statistics.variance, np.full(4, whole.statistics.variance), rtol=1e-5
    )


@pytest.mark.slow
def test_arrays_divided_over_devices_give_the_statistics_of_the_whole():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    program = [sys.executable, "-m", "tests.core.over_devices"]
    done = subprocess.run(
        program,
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [
        "running_statistics",
        "moving_averages",
        "reward_scale",
        "pop_art",
    ], done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: RunningMeanStd.init(np.zeros(2)).update(np.zeros((5, 3))),
            r"'x' has shape \(5, 3\)",
        ),
        (
            lambda: RunningMeanStd.init({"a": np.zeros(2)}).normalize({"a": np.zeros(3)}),
            r"'x\['a'\]'",
        ),
        (
            lambda: RunningMeanStd.init(np.zeros(2)).update(np.zeros((5, 2)), np.ones(2)),
            "'weights' must have shape",
        ),
        (
            lambda: RunningMeanStd.init((0.0, 0.0)).update((np.zeros(5), np.zeros(4))),
            "leading axes",
        ),
        (lambda: RunningMeanStd.init({"a": 0.0}).update({"b": 0.0}), "'x' has the structure"),
        (
            lambda: RewardNormalizer.init(3).update(np.zeros((5, 2)), False, 0.9),
            r"Pass an array of shape \[T, 3\]",
        ),
        (lambda: RewardNormalizer.init().update(np.zeros(5), np.zeros(4), 0.9), "'last_t'"),
        (lambda: RewardNormalizer.init().update(np.zeros(5), False, 0.9, np.ones(4)), "'mask'"),
        (
            lambda: RewardNormalizer.init().update(np.zeros(5), False, np.ones(5)),
            "'gamma' must be a scalar",
        ),
        (
            lambda: RewardNormalizer.init().normalize(np.zeros(5), clip=np.ones(5)),
            "'clip' must be a scalar",
        ),
        (
            lambda: RunningMeanStd.init(np.zeros(2)).normalize(np.zeros(2), epsilon=np.ones(2)),
            "'epsilon' must be a scalar",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ShapeError, match=message):
        call()
