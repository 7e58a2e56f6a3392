import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import value_learning
from tests.core.stepwise import every_way

Q_TM1 = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
A_TM1 = np.array([2, 0])
R_T = np.array([0.5, -1.0], np.float32)
DISCOUNT_T = np.array([0.9, 0.0], np.float32)
Q_T = np.array([[1.0, 7.0, 2.0], [0.0, 1.0, 9.0]], np.float32)
SELECTOR = np.array([[5.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)

Q_LEARNING = [0.5 + 0.9 * 7 - 3, -1.0 - 4]
DOUBLE = [0.5 + 0.9 * 1 - 3, -1.0 - 4]


@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"]
)
def test_values_by_hand(transform):
    np.testing.assert_allclose(
        transform(core.q_learning)(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T), Q_LEARNING, rtol=1e-6
    )
    np.testing.assert_allclose(
        transform(core.double_q_learning)(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, SELECTOR),
        DOUBLE,
        rtol=1e-6,
    )
    x = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(transform(core.huber_loss)(x), [2.5, 0.5, 0.125, 0.0, 0.125, 1.5])
    np.testing.assert_allclose(transform(core.l2_loss)(x), 0.5 * x**2)


def test_unbatched_equals_batched():
    for b in range(2):
        error = core.q_learning(Q_TM1[b], A_TM1[b], R_T[b], DISCOUNT_T[b], Q_T[b])
        assert error.shape == ()
        np.testing.assert_allclose(error, Q_LEARNING[b], rtol=1e-6)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def munchausen(
    q_tm1,
    a_tm1,
    r_t,
    discount_t,
    q_t,
    q_target_tm1,
    munchausen_scale=0.9,
    temperature=0.03,
    log_policy_min=-1.0,
):
    bonus = temperature * np.log(softmax(q_target_tm1 / temperature)[a_tm1])
    pi_t = softmax(q_t / temperature)
    positive = pi_t[pi_t > 0]
    soft = (pi_t * q_t).sum() - temperature * (positive * np.log(positive)).sum()
    return (
        r_t
        + munchausen_scale * np.clip(bonus, log_policy_min, 0)
        + discount_t * soft
        - q_tm1[a_tm1]
    )


def expectile(v_tm1, r_t, discount_t, v_t, expectile):
    error = r_t + discount_t * v_t - v_tm1
    return (expectile if error > 0 else 1 - expectile) * error**2


# Operators on a single transition. Arguments that start with q or probs are `[A]`, arguments that
# start with a are indices, and other arguments are scalars.
ORACLES = {
    "td_learning": lambda v_tm1, r_t, discount_t, v_t: r_t + discount_t * v_t - v_tm1,
    "sarsa": lambda q_tm1, a_tm1, r_t, discount_t, q_t, a_t: (
        r_t + discount_t * q_t[a_t] - q_tm1[a_tm1]
    ),
    "expected_sarsa": lambda q_tm1, a_tm1, r_t, discount_t, q_t, probs_a_t: (
        r_t + discount_t * sum(probs_a_t * q_t) - q_tm1[a_tm1]
    ),
    "q_learning": lambda q_tm1, a_tm1, r_t, discount_t, q_t: (
        r_t + discount_t * max(q_t) - q_tm1[a_tm1]
    ),
    "double_q_learning": lambda q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector: (
        r_t + discount_t * q_t_value[np.argmax(q_t_selector)] - q_tm1[a_tm1]
    ),
    "persistent_q_learning": lambda q_tm1, a_tm1, r_t, discount_t, q_t, action_gap_scale: (
        r_t
        + discount_t * ((1 - action_gap_scale) * max(q_t) + action_gap_scale * q_t[a_tm1])
        - q_tm1[a_tm1]
    ),
    "munchausen_q_learning": munchausen,
    "qv_learning": lambda q_tm1, a_tm1, r_t, discount_t, v_t: r_t + discount_t * v_t - q_tm1[a_tm1],
    "qv_max": lambda v_tm1, r_t, discount_t, q_t: r_t + discount_t * max(q_t) - v_tm1,
    "expectile_td_loss": expectile,
}
OPERATORS = {name: getattr(value_learning, name) for name in ORACLES}
PREDICTIONS = ("q_tm1", "v_tm1")


def transitions(name, leading, num_actions, seed):
    """Return arguments of an operator, without arguments that have a default."""
    rng = np.random.default_rng(seed)
    arguments = {}
    for argument, parameter in inspect.signature(OPERATORS[name]).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            continue
        if argument in ("a_tm1", "a_t"):
            arguments[argument] = rng.integers(num_actions, size=leading)
        elif argument.startswith(("q_", "probs_")):
            arguments[argument] = rng.normal(size=(*leading, num_actions)).astype(np.float32)
        else:
            arguments[argument] = rng.random(leading).astype(np.float32)
    return arguments


@pytest.mark.parametrize("name", ORACLES)
@settings(deadline=None, max_examples=4)
@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 4), st.integers(0, 2**31))
def test_any_leading_axes_against_a_numpy_oracle(name, leading, num_actions, seed):
    arguments = transitions(name, leading, num_actions, seed)
    expected = np.zeros(leading)
    for i in np.ndindex(*leading):
        expected[i] = ORACLES[name](
            **{k: x[i].astype(float) if x.dtype.kind == "f" else x[i] for k, x in arguments.items()}
        )
    np.testing.assert_allclose(OPERATORS[name](**arguments), expected, atol=1e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_every_way_to_call_and_gradients(name):
    operator, oracle = OPERATORS[name], ORACLES[name]
    arguments = transitions(name, (4,), 3, 0)
    exact = {k: x.astype(float) if x.dtype.kind == "f" else x for k, x in arguments.items()}
    expected = [oracle(**{k: x[i] for k, x in exact.items()}) for i in range(4)]
    for how, found in every_way(lambda x: operator(**x), arguments, axes=1).items():
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=how)

    one, exact = ({k: x[0] for k, x in everything.items()} for everything in (arguments, exact))
    floating = {k for k, x in one.items() if x.dtype.kind == "f"}

    def gradient(changed, stop):
        return jax.grad(lambda changed: operator(**{**one, **changed}, stop_target_gradients=stop))(
            changed
        )

    through, stopped = jax.jit(lambda x: (gradient(x, False), gradient(x, True)))(
        {k: one[k] for k in floating}
    )
    for k in floating:
        differences = np.zeros(one[k].shape)
        for i in np.ndindex(one[k].shape):
            step = np.zeros(one[k].shape)
            step[i] = 1e-6
            differences[i] = (
                oracle(**{**exact, k: exact[k] + step}) - oracle(**{**exact, k: exact[k] - step})
            ) / 2e-6
        np.testing.assert_allclose(through[k], differences, atol=1e-3, err_msg=k)
        if k != "expectile":  # it weighs the loss and is not a part of the target
            np.testing.assert_allclose(
                stopped[k],
                differences if k in PREDICTIONS else 0 * differences,
                atol=1e-3,
                err_msg=k,
            )


@pytest.mark.parametrize("name", ORACLES)
def test_each_argument_of_another_shape_is_named(name):
    arguments = transitions(name, (4,), 3, 0)
    for argument, value in arguments.items():
        if argument in PREDICTIONS:
            continue  # predictions set the shape
        # In `qv_max`, q_t sets the shape.
        named = "v_tm1" if (name, argument) == ("qv_max", "q_t") else argument
        with pytest.raises(core.ShapeError, match=f"{name}: '{named}'"):
            OPERATORS[name](**{**arguments, argument: value[:1]})
        if argument in ("a_tm1", "a_t"):
            with pytest.raises(TypeError, match=f"{name}: '{argument}'"):
                OPERATORS[name](**{**arguments, argument: value.astype(float)})
            for action in (3, -1):
                assert np.isnan(
                    OPERATORS[name](**{**arguments, argument: np.full(4, action)})
                ).all()


def test_munchausen_target_is_exact_for_values_far_apart_and_illegal_actions():
    q = np.array([1000.0, 0.0, -np.inf], np.float32)
    error = value_learning.munchausen_q_learning(np.zeros(3), 0, 1.0, 0.5, q, q)
    np.testing.assert_allclose(error, 1 + 0 + 0.5 * 1000)
    clipped = value_learning.munchausen_q_learning(np.zeros(3), 1, 1.0, 0.5, q, q)
    np.testing.assert_allclose(clipped, 1 - 0.9 + 0.5 * 1000)
    uniform = value_learning.munchausen_q_learning(
        np.zeros(4), 0, 0.0, 1.0, np.zeros(4), np.zeros(4), 0.5, 2.0, -10.0
    )
    np.testing.assert_allclose(uniform, 0.5 * -2 * np.log(4) + 2 * np.log(4), rtol=1e-6)
    large = np.full(2, 1e4, np.float32)  # the policy does not depend on a common offset
    bonus = value_learning.munchausen_q_learning(np.zeros(2), 0, 0.0, 0.0, large, large, 1.0, 0.07)
    np.testing.assert_allclose(bonus, -0.07 * np.log(2), rtol=1e-6)
    plain = value_learning.munchausen_q_learning(
        Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, Q_T, munchausen_scale=0.0, temperature=1e-3
    )
    np.testing.assert_allclose(plain, Q_LEARNING, atol=1e-5)


def test_expectile_loss_is_least_at_the_expectile_of_the_target():
    outcomes = np.array([0.0, 1.0, 5.0], np.float32)
    for level, best in ((0.5, 2.0), (0.9, (0.1 * (0 + 1) + 0.9 * 5) / (0.1 * 2 + 0.9))):

        def loss(v, level=level):
            return value_learning.expectile_td_loss(jnp.full(3, v), outcomes, 0.9, 0.0, level).sum()

        np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-5)
        assert loss(best) < min(loss(best - 0.1), loss(best + 0.1))


def test_integers_and_scalars_promote_and_mixed_dtypes_take_the_wider():
    error = core.q_learning(np.array([1, 2]), 0, 1, 1, np.array([3, 4]))
    assert error.dtype == jnp.float32
    assert error == 4
    assert (
        core.q_learning(
            jnp.zeros(2, jnp.bfloat16), 0, jnp.float32(1), 1.0, jnp.zeros(2, jnp.bfloat16)
        ).dtype
        == jnp.float32
    )
    assert (
        core.q_learning(jnp.zeros(2, jnp.bfloat16), 0, 1.0, 1.0, jnp.zeros(2, jnp.bfloat16)).dtype
        == jnp.bfloat16
    )
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
    with pytest.raises(AssertionError):  # code written for RLax catches this type
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


def test_indices_of_few_bits_for_many_actions():
    q = np.arange(300, dtype=np.float32)
    assert core.q_learning(q, np.uint8(255), 0.0, 0.0, q) == -255
    assert core.q_learning(q, np.int8(100), 0.0, 0.0, q) == -100
    assert np.isnan(core.q_learning(q, np.int8(-1), 0.0, 0.0, q))


def test_static_arguments_say_so():
    with pytest.raises(TypeError, match="'stop_target_gradients' must be a Python value"):
        jax.jit(
            lambda stop: core.q_learning(
                Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, stop_target_gradients=stop
            )
        )(True)
    with pytest.raises(
        TypeError, match=r"'stop_target_gradients' must be a Python value .* not 'ndarray'"
    ):
        core.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, stop_target_gradients=np.array(True))


def test_compiled_once_per_shape():
    (compiled,) = (
        cell.cell_contents
        for cell in core.q_learning.__closure__
        if hasattr(cell.cell_contents, "lower")
    )
    compiled.clear_cache()
    for _ in range(3):
        core.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    assert compiled._cache_size() == 1
    core.q_learning(Q_TM1[0], A_TM1[0], R_T[0], DISCOUNT_T[0], Q_T[0])
    assert compiled._cache_size() == 2
