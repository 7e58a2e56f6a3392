import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core._operator import ShapeError
from agentzoo.core.pop_art import (
    PopArt,
    PopArtState,
    art,
    normalize,
    pop,
    popart,
    unnormalize,
    unnormalize_linear,
)

STATE = PopArtState(
    np.array([1.0, -2.0], np.float32),
    np.array([2.0, 0.5], np.float32),
    np.array([5.0, 4.25], np.float32),
)
BOUNDS = (1e-4, 1e6)
TRANSFORMS = pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"]
)


def start(num_outputs):
    return popart(num_outputs, 0.1, *BOUNDS)[0]()


def float64_art(targets, indices, num_outputs, step_size, batch_step="sequential", state=None):
    """Return the shift and variance of each output in float64, from batches of targets."""
    shift, second_moment = (np.zeros(num_outputs), np.ones(num_outputs)) if state is None else state
    shift, variance = shift.astype(np.float64), second_moment - shift**2
    for xs, outputs in zip(targets, indices, strict=True):
        for k in range(num_outputs):
            x = np.asarray(xs, np.float64)[np.asarray(outputs) == k]
            if not len(x):
                continue
            weight = {
                "sequential": 1 - (1 - step_size) ** len(x),
                "mean": step_size,
                "sum": step_size * len(x),
            }[batch_step]
            # The second moment about any point has the same weight as the first. About the old
            # mean, no digits are lost.
            about_old_mean = (1 - weight) * variance[k] + weight * np.mean((x - shift[k]) ** 2)
            moved = weight * (x.mean() - shift[k])
            shift[k], variance[k] = shift[k] + moved, about_old_mean - moved**2
    return shift, variance


@TRANSFORMS
def test_normalizing_by_hand(transform):
    values, indices = np.array([3.0, -1.0, 1.0], np.float32), np.array([0, 1, 0])
    np.testing.assert_array_equal(
        transform(lambda x, i: normalize(STATE, x, i))(values, indices), [1, 2, 0]
    )
    np.testing.assert_array_equal(
        transform(lambda x, i: unnormalize(STATE, x, i))(values, indices), [7, -2.5, 3]
    )
    inputs = np.array([[3.0, 0], [0, -1], [1, 0]], np.float32)
    output = transform(lambda x, i: unnormalize_linear(STATE, x, i))(inputs, indices)
    np.testing.assert_array_equal(output.normalized, values)
    np.testing.assert_array_equal(output.unnormalized, [7, -2.5, 3])


def test_one_index_stands_for_all_and_none_out_of_range_for_another():
    np.testing.assert_array_equal(normalize(STATE, np.array([3.0, 5.0]), 0), [1, 2])
    assert normalize(STATE, 3, 0) == 1
    for index in (-1, 2):
        assert np.isnan(normalize(STATE, 3.0, index))
        assert np.isnan(unnormalize(STATE, 3.0, index))
        assert np.isnan(unnormalize_linear(STATE, np.zeros(2), index).normalized)


def test_gradients_are_scales():
    assert jax.grad(lambda x: normalize(STATE, x, 0))(3.0) == 0.5
    assert jax.grad(lambda x: unnormalize(STATE, x, 0))(3.0) == 2
    grad = jax.grad(lambda x: unnormalize_linear(STATE, x, 0).unnormalized)(np.zeros(2, np.float32))
    np.testing.assert_array_equal(grad, [2, 0])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_adapting_by_hand(transform):
    adapt = transform(lambda state, x, i: art(state, x, i, 0.5, *BOUNDS))
    state = adapt(start(3), np.array([2.0, 4.0, 8.0], np.float32), np.array([0, 0, 1]))
    # The weights are 3/4 for (2, 4), 1/2 for 8, and 0. The old statistics have the rest.
    second_moment = [0.25 * 1 + 0.75 * 10, 0.5 * 1 + 0.5 * 64, 1]
    np.testing.assert_allclose(state.shift, [0.75 * 3, 0.5 * 8, 0], rtol=1e-6)
    np.testing.assert_allclose(state.second_moment, second_moment, rtol=1e-6)
    np.testing.assert_allclose(
        state.scale, np.sqrt(second_moment - np.square(state.shift)), rtol=1e-6
    )


@pytest.mark.parametrize("batch_step", ["sequential", "mean", "sum"])
def test_adapting_against_float64(batch_step):
    rng = np.random.default_rng(0)
    targets, indices = (
        rng.normal(3, 2, (20, 2, 4)).astype(np.float32),
        rng.integers(-1, 4, (20, 2, 4)),
    )
    state = start(3)
    for x, i in zip(targets, indices, strict=True):
        state = art(state, x, i, 0.1, *BOUNDS, batch_step=batch_step)
    shift, variance = float64_art(targets, indices, 3, 0.1, batch_step)
    np.testing.assert_allclose(state.shift, shift, rtol=1e-5)
    np.testing.assert_allclose(state.scale, np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(state.second_moment, variance + shift**2, rtol=1e-5)


def test_one_large_batch_does_not_overshoot():
    # RLax sums its steps over the batch. For 300 targets of 5, its shift is 15 and its scale is at
    # the lower bound.
    targets = np.full(300, 5.0, np.float32)
    state = art(start(1), targets, 0, 0.01, *BOUNDS)
    np.testing.assert_allclose(state.shift, 5 * (1 - 0.99**300), rtol=1e-5)
    one_by_one, _ = jax.lax.scan(
        lambda state, x: (art(state, x, 0, 0.01, *BOUNDS), None), start(1), targets
    )
    np.testing.assert_allclose(state.shift, one_by_one.shift, rtol=1e-5)
    np.testing.assert_allclose(state.scale, one_by_one.scale, rtol=1e-4)
    summed = art(start(1), targets, 0, 0.01, *BOUNDS, batch_step="sum")
    np.testing.assert_allclose(
        [summed.shift[0], summed.second_moment[0], summed.scale[0]], [15, 73, 1e-4], rtol=1e-6
    )


@pytest.mark.parametrize("step_size", [1e-2, 3e-4])
def test_the_scale_is_right_beside_a_large_mean(step_size):
    # With `second_moment - shift^2` in float32 the scale would be 3 or more, and steps of 3e-4
    # would not change the shift.
    targets = np.random.default_rng(0).normal(1e4, 1, 30_000).astype(np.float32)
    state = art(start(1), targets[:100], 0, 1.0, *BOUNDS)
    state, _ = jax.lax.scan(
        lambda state, x: (art(state, x, 0, step_size, *BOUNDS), None), state, targets
    )
    (mean,), (variance,) = float64_art(
        targets[:, None],
        np.zeros((30_000, 1)),
        1,
        step_size,
        state=(np.array([1e4]), np.array([1e8 + 1])),
    )
    np.testing.assert_allclose(state.shift, mean, atol=2e-3)
    np.testing.assert_allclose(state.scale, np.sqrt(variance), rtol=2e-3)


def test_the_scale_stays_within_bounds_and_finds_back():
    state = art(start(1), np.array([-40.0, 40.0]), 0, 1.0, 1.0, 2.0)
    assert state.scale == 2
    state = art(state, np.array([-1.5, 1.5]), 0, 1.0, 1.0, 2.0)
    assert state.scale == 1.5
    assert art(state, np.zeros(2), 0, 1.0, 1.0, 2.0).scale == 1


def test_a_state_of_three_fields_adapts_too():
    adapted = art(STATE, np.array([3.0, 1.0]), np.array([0, 1]), 0.1, *BOUNDS)
    assert adapted.moments is None
    shift, variance = float64_art(
        [[3.0, 1.0]], [[0, 1]], 2, 0.1, state=(STATE.shift, STATE.second_moment)
    )
    np.testing.assert_allclose(adapted.shift, shift, rtol=1e-6)
    np.testing.assert_allclose(adapted.scale, np.sqrt(variance), rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.floats(-1e3, 1e3), st.floats(0.1, 100), st.integers(0, 2**31))
def test_outputs_are_preserved(mean, std, seed):
    rng = np.random.default_rng(seed)
    x, indices = rng.normal(size=(5, 3)).astype(np.float32), rng.integers(2, size=5)
    layer = PopArt.init(jax.random.key(seed), 3, 2)
    before = layer.apply(x, indices).unnormalized
    for _ in range(3):
        layer = layer.update(rng.normal(mean, std, 5).astype(np.float32), indices, step_size=0.1)
        np.testing.assert_allclose(
            layer.apply(x, indices).unnormalized,
            before,
            rtol=1e-5,
            atol=1e-6 * (abs(mean) + std + 1),
        )


def test_popping_by_hand():
    new = PopArtState(np.array([3.0, -2.0]), np.array([4.0, 0.25]), np.zeros(2))
    params = pop(
        {"w": np.ones((3, 2), np.float32), "b": np.array([1.0, 2.0], np.float32), "other": 7},
        STATE,
        new,
    )
    np.testing.assert_array_equal(params["w"], [[0.5, 2]] * 3)
    np.testing.assert_array_equal(params["b"], [(2 * 1 + 1 - 3) / 4, 0.5 * 2 / 0.25])
    assert params["other"] == 7


def test_no_step_size_leaves_everything_as_it_is():
    initial_state, update = popart(2, None, *BOUNDS)
    params, state = {"w": np.ones((3, 2)), "b": np.zeros(2)}, initial_state()
    assert update(params, state, np.ones(4), np.zeros(4, int)) == (params, state)


@pytest.mark.parametrize("axis_name", ["i", ["i"], ("i",)])
def test_targets_of_a_mapped_axis_count_together(axis_name):
    rng = np.random.default_rng(0)
    targets, indices = rng.normal(1e4, 1, (4, 6)).astype(np.float32), rng.integers(3, size=(4, 6))
    whole = art(start(3), targets, indices, 0.1, *BOUNDS)
    divided = jax.vmap(
        lambda x, i: art(start(3), x, i, 0.1, *BOUNDS, axis_name=axis_name), axis_name="i"
    )(targets, indices)
    for found, expected in zip(divided[:3], whole[:3], strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=2e-6)


def test_a_learner_that_owns_both_keeps_what_it_has_learned_while_the_scale_grows():
    """Take gradient steps after the change of parameters, so that the outputs do not jump."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    function = x @ np.array([1.0, -2.0, 0.5], np.float32)

    @jax.jit
    def learn(layer, targets):
        before = layer.apply(x).unnormalized
        layer = layer.update(targets, step_size=1e-2)
        jump = jnp.abs(layer.apply(x).unnormalized - before).max() / jnp.abs(targets).max()

        def loss(params):
            return jnp.square(
                layer._replace(params=params).apply(x).normalized - layer.normalize(targets)
            ).mean()

        grads = jax.grad(loss)(layer.params)
        return layer._replace(
            params=jax.tree.map(lambda p, g: p - 0.1 * g, layer.params, grads)
        ), jump

    layer = PopArt.init(jax.random.key(0), 3)
    for scale in (1.0, 100.0, 10_000.0):
        for _ in range(150):
            layer, jump = learn(layer, scale * (function + 5))
            assert jump < 1e-5
        error = layer.apply(x).unnormalized - scale * (function + 5)
        # The function has a standard deviation of 2.3 * scale.
        assert np.abs(error).max() < 0.02 * scale


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: normalize(STATE, np.zeros(3), np.zeros(2, int)),
            ShapeError,
            "'indices' must have shape",
        ),
        (lambda: unnormalize(STATE, np.zeros(3), np.zeros(3)), TypeError, "'indices'"),
        (
            lambda: unnormalize_linear(STATE, np.zeros((4, 3)), 0),
            ShapeError,
            "'inputs' has shape",
        ),
        (lambda: art(STATE, np.zeros(3), np.zeros(4, int), 0.1, *BOUNDS), ShapeError, "'indices'"),
        (lambda: art(STATE, np.zeros(3), 0, np.ones(3), *BOUNDS), ShapeError, "'step_size'"),
        (
            lambda: art(STATE, np.zeros(3), 0, 0.1, *BOUNDS, batch_step="all"),
            ValueError,
            "batch_step='all' is unknown",
        ),
        (
            lambda: pop({"w": np.zeros((3, 1)), "b": np.zeros(2)}, STATE, STATE),
            ShapeError,
            r"params\['w'\]",
        ),
        (
            lambda: pop({"w": np.zeros((3, 2)), "b": np.zeros(1)}, STATE, STATE),
            ShapeError,
            r"params\['b'\]",
        ),
        (
            lambda: pop({"w": np.zeros((3, 2)), "b": np.zeros(2)}, STATE, start(1)),
            ShapeError,
            "'new'",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
