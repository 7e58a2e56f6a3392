import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core

Q_TM1 = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
A_TM1 = np.array([2, 0])
R_T = np.array([0.5, -1.0], np.float32)
DISCOUNT_T = np.array([0.9, 0.0], np.float32)
Q_T = np.array([[1.0, 7.0, 2.0], [0.0, 1.0, 9.0]], np.float32)
SELECTOR = np.array([[5.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)

Q_LEARNING = [0.5 + 0.9 * 7 - 3, -1.0 - 4]
DOUBLE = [0.5 + 0.9 * 1 - 3, -1.0 - 4]


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_values_by_hand(transform):
    np.testing.assert_allclose(transform(core.q_learning)(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T), Q_LEARNING, rtol=1e-6)
    np.testing.assert_allclose(transform(core.double_q_learning)(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, SELECTOR), DOUBLE, rtol=1e-6)
    x = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(transform(core.huber_loss)(x), [2.5, 0.5, 0.125, 0.0, 0.125, 1.5])
    np.testing.assert_allclose(transform(core.l2_loss)(x), 0.5 * x**2)


def test_unbatched_equals_batched():
    for b in range(2):
        error = core.q_learning(Q_TM1[b], A_TM1[b], R_T[b], DISCOUNT_T[b], Q_T[b])
        assert error.shape == ()
        np.testing.assert_allclose(error, Q_LEARNING[b], rtol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 5), st.integers(0, 2**31))
def test_any_leading_axes_against_a_numpy_oracle(leading, num_actions, seed):
    rng = np.random.default_rng(seed)
    q_tm1, q_t, selector = rng.normal(size=(3, *leading, num_actions))
    a_tm1 = rng.integers(num_actions, size=leading)
    r_t, discount_t = rng.normal(size=(2, *leading))
    single, double = np.zeros(leading), np.zeros(leading)
    for i in np.ndindex(*leading):
        single[i] = r_t[i] + discount_t[i] * max(q_t[i]) - q_tm1[i][a_tm1[i]]
        double[i] = r_t[i] + discount_t[i] * q_t[i][int(np.argmax(selector[i]))] - q_tm1[i][a_tm1[i]]
    np.testing.assert_allclose(core.q_learning(q_tm1, a_tm1, r_t, discount_t, q_t), single, atol=1e-5)
    np.testing.assert_allclose(core.double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, selector), double, atol=1e-5)


def test_integers_and_scalars_promote_and_mixed_dtypes_take_the_wider():
    error = core.q_learning(np.array([1, 2]), 0, 1, 1, np.array([3, 4]))
    assert error.dtype == jnp.float32
    assert error == 4
    assert core.q_learning(jnp.zeros(2, jnp.bfloat16), 0, jnp.float32(1), 1.0, jnp.zeros(2, jnp.bfloat16)).dtype == jnp.float32
    assert core.q_learning(jnp.zeros(2, jnp.bfloat16), 0, 1.0, 1.0, jnp.zeros(2, jnp.bfloat16)).dtype == jnp.bfloat16
    assert core.l2_loss(3) == 4.5


@pytest.mark.parametrize("stop", [True, False])
def test_gradient_reaches_the_target_only_if_asked(stop):
    def error(q_t):
        return core.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, q_t, stop_target_gradients=stop).sum()

    expected = np.zeros((2, 3)) if stop else np.array([[0, 0.9, 0], [0, 0, 0.0]])
    np.testing.assert_allclose(jax.grad(error)(Q_T), expected, rtol=1e-6)


def test_huber_gradient_is_the_clipped_error_and_large_errors_stay_finite():
    x = jnp.array([-1e38, -3.0, -1.0, 0.3, 1.0, 2.0, 1e38])
    np.testing.assert_allclose(jax.vmap(jax.grad(core.huber_loss))(x), np.clip(x, -1, 1), rtol=1e-6)
    assert np.isfinite(core.huber_loss(x)).all()
    np.testing.assert_allclose(core.huber_loss(jnp.array([1.0, 3.0]), 2.0), [0.5, 4.0])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T[:, :2]), "q_t"),
        ((Q_TM1, A_TM1[:1], R_T, DISCOUNT_T, Q_T), "a_tm1"),
        ((Q_TM1, A_TM1, R_T[:1], DISCOUNT_T, Q_T), "r_t"),
        ((Q_TM1, A_TM1, R_T, DISCOUNT_T[:, None], Q_T), "discount_t"),
        ((1.0, A_TM1, R_T, DISCOUNT_T, Q_T), "q_tm1"),
    ],
)
def test_shapes_that_do_not_fit_are_named(arguments, name):
    with pytest.raises(core.ShapeError, match=f"'{name}'"):
        core.q_learning(*arguments)
    with pytest.raises(AssertionError):  # what code written for RLax catches
        core.q_learning(*arguments)


def test_no_silent_broadcasting_in_losses():
    with pytest.raises(core.ShapeError, match="'targets'"):
        core.l2_loss(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(core.ShapeError, match="'delta'"):
        core.huber_loss(np.zeros(3), np.zeros(1))


def test_actions_that_are_no_indices():
    with pytest.raises(TypeError, match="'a_tm1'"):
        core.q_learning(Q_TM1, A_TM1.astype(float), R_T, DISCOUNT_T, Q_T)
    for action in (3, -1):
        assert np.isnan(core.q_learning(Q_TM1[0], action, 0.0, 0.0, Q_T[0]))


def test_static_arguments_say_so():
    with pytest.raises(TypeError, match="'stop_target_gradients' must be a Python value"):
        jax.jit(lambda stop: core.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, stop_target_gradients=stop))(True)


def test_compiled_once_per_shape():
    (compiled,) = (cell.cell_contents for cell in core.q_learning.__closure__ if hasattr(cell.cell_contents, "lower"))
    compiled.clear_cache()
    for _ in range(3):
        core.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    assert compiled._cache_size() == 1
    core.q_learning(Q_TM1[0], A_TM1[0], R_T[0], DISCOUNT_T[0], Q_T[0])
    assert compiled._cache_size() == 2
