import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import ShapeError
from tests.core.stepwise import (
    Case,
    check_gradients,
    check_reductions,
    check_values,
    has,
    parametrized,
)

RNG = np.random.default_rng(0)
E, A, S = 2, 4, 3
Q_TM1, Q_T = RNG.normal(size=(2, 2, 3, E))
QA_TM1, QA_T = RNG.normal(size=(2, 2, 3, E, A))
LOGITS = RNG.normal(size=(2, 3, A))
R_T, DISCOUNT_T, LOG_PROB, ADV, V = RNG.normal(size=(5, 2, 3))
TEMPERATURE = RNG.uniform(0.1, 1, size=(2, 3))
ACTIONS = RNG.integers(A, size=(2, 3))
SAMPLE_Q, SAMPLE_LOG_PROBS = RNG.normal(size=(2, 3, S, E)), RNG.normal(size=(2, 3, S))
KEY = jax.random.key(0)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def soft_value(logits, q, temperature):
    log_probs = log_softmax(logits)
    return np.exp(log_probs) @ (q.min(0) - temperature * log_probs)


def log_sum_exp(x):
    return np.log(np.exp(x).sum(0))


def sampled_penalty(q_tm1, sample_q_tm1, sample_log_probs, temperature):
    """Call `cql_sampled_penalty` with the axes of the steps first, which the checks expect."""
    axes = [jnp.moveaxis(x, jnp.ndim(q_tm1) - 1, 0) for x in (sample_q_tm1, sample_log_probs)]
    return core.cql_sampled_penalty(q_tm1, *axes, temperature)


ERRORS = [
    Case(
        core.clipped_double_q_learning,
        {"q_tm1": Q_TM1, "r_t": R_T, "discount_t": DISCOUNT_T, "q_t": Q_T},
        lambda x, target, held: target.r_t + target.discount_t * min(target.q_t) - x.q_tm1,
    ),
    Case(
        core.sac_error,
        {
            "q_tm1": Q_TM1,
            "r_t": R_T,
            "discount_t": DISCOUNT_T,
            "q_t": Q_T,
            "log_prob_t": LOG_PROB,
            "temperature": TEMPERATURE,
        },
        lambda x, target, held: (
            target.r_t
            + target.discount_t * (min(target.q_t) - target.temperature * target.log_prob_t)
            - x.q_tm1
        ),
    ),
    Case(
        core.sac_discrete_error,
        {
            "q_tm1": QA_TM1,
            "a_tm1": ACTIONS,
            "r_t": R_T,
            "discount_t": DISCOUNT_T,
            "q_t": QA_T,
            "logits_t": LOGITS,
            "temperature": TEMPERATURE,
        },
        lambda x, target, held: (
            target.r_t
            + target.discount_t * soft_value(target.logits_t, target.q_t, target.temperature)
            - x.q_tm1[:, x.a_tm1]
        ),
    ),
    Case(
        core.iql_error,
        {"q_tm1": Q_TM1, "r_t": R_T, "discount_t": DISCOUNT_T, "v_t": V},
        lambda x, target, held: target.r_t + target.discount_t * target.v_t - x.q_tm1,
    ),
    Case(
        core.cql_penalty,
        {"q_tm1": LOGITS, "a_tm1": ACTIONS},
        lambda x, target, held: 0.5 * log_sum_exp(x.q_tm1 / 0.5) - x.q_tm1[x.a_tm1],
        {"temperature": 0.5},
    ),
    Case(
        sampled_penalty,
        {"q_tm1": Q_TM1, "sample_q_tm1": SAMPLE_Q, "sample_log_probs": SAMPLE_LOG_PROBS},
        lambda x, target, held: (
            0.5 * (log_sum_exp(x.sample_q_tm1 / 0.5 - held.sample_log_probs[:, None]) - np.log(S))
            - x.q_tm1
        ),
        {"temperature": 0.5},
    ),
    Case(
        core.advantage_weights,
        {"adv_t": ADV},
        lambda x, target, held: min(np.exp(x.adv_t / 0.5), 3.0),
        {"temperature": 0.5, "max_weight": 3.0},
    ),
]
LOSSES = [
    Case(
        core.sac_policy_loss,
        {"q_t": Q_T, "log_prob_t": LOG_PROB, "temperature": TEMPERATURE},
        lambda x, target, held: held.temperature * x.log_prob_t - min(x.q_t),
    ),
    Case(
        core.sac_temperature_loss,
        {"log_prob_t": LOG_PROB, "temperature": TEMPERATURE},
        lambda x, target, held: x.temperature * (-held.log_prob_t + 2),
        {"target_entropy": -2},
    ),
    Case(
        core.sac_discrete_policy_loss,
        {"logits_t": LOGITS, "q_t": QA_T, "temperature": TEMPERATURE},
        lambda x, target, held: -soft_value(x.logits_t, target.q_t, held.temperature),
    ),
    Case(
        core.sac_discrete_temperature_loss,
        {"logits_t": LOGITS, "temperature": TEMPERATURE},
        lambda x, target, held: (
            x.temperature * (soft_value(held.logits_t, np.zeros((1, A)), 1) - 0.7)
        ),
        {"target_entropy": 0.7},
    ),
    Case(
        core.awac_policy_loss,
        {"log_prob_t": LOG_PROB, "adv_t": ADV},
        lambda x, target, held: -np.exp(target.adv_t / 2) * x.log_prob_t,
        {"temperature": 2},
    ),
    Case(
        core.iql_value_loss,
        {"v_t": V, "q_t": Q_T},
        lambda x, target, held: (
            abs(0.8 - (min(target.q_t) < x.v_t)) * (min(target.q_t) - x.v_t) ** 2
        ),
        {"expectile": 0.8},
    ),
    Case(
        core.iql_policy_loss,
        {"log_prob_t": LOG_PROB, "adv_t": ADV},
        lambda x, target, held: -min(np.exp(2 * target.adv_t), 3.0) * x.log_prob_t,
        {"inverse_temperature": 2, "max_weight": 3},
    ),
]


@pytest.mark.parametrize(**parametrized(ERRORS + LOSSES))
def test_values_against_the_oracle(case):
    check_values(case, **({"reduction": "none"} if has(case, "reduction") else {}))


@pytest.mark.parametrize(**parametrized(LOSSES))
def test_weights_and_reductions(case):
    check_reductions(case)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(**parametrized(ERRORS + LOSSES))
def test_gradients_against_the_oracle(case, stop):
    options = {"reduction": "sum"} if has(case, "reduction") else {}
    for flag in ("use_stop_gradient", "stop_target_gradients"):
        if has(case, flag):
            check_gradients(case, stop, **options, **{flag: stop})
            return
    if stop:
        check_gradients(case, stop, **options)


def test_values_by_hand():
    q_tm1, q_t = np.array([1.0, 2.0]), np.array([5.0, 3.0])
    np.testing.assert_allclose(core.clipped_double_q_learning(q_tm1, 1, 0.5, q_t), [1.5, 0.5])
    np.testing.assert_allclose(core.sac_error(q_tm1, 1, 0.5, q_t, -2, 0.5), [2, 1])
    np.testing.assert_allclose(core.iql_error(q_tm1, 1, 0.5, 4), [2, 1])
    np.testing.assert_allclose(core.sac_policy_loss(q_t, -2.0, 0.5), -4)
    np.testing.assert_allclose(core.sac_temperature_loss(-2.0, 0.5, 1.0), 0.5)
    np.testing.assert_allclose(
        core.sac_discrete_policy_loss(np.zeros(2), np.array([[1.0, 3.0], [4.0, 1.0]]), 2),
        -1 - 2 * np.log(2),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        core.sac_discrete_temperature_loss(np.zeros(2), 2.0, 0.0), 2 * np.log(2), rtol=1e-6
    )
    np.testing.assert_allclose(core.iql_value_loss(2.0, q_t, 0.9), 0.9)
    np.testing.assert_allclose(core.iql_value_loss(4.0, q_t, 0.9), 0.1, rtol=1e-6)
    np.testing.assert_allclose(core.cql_penalty(np.zeros(3), 0), np.log(3), rtol=1e-6)


def test_more_target_critics_than_critics():
    fewer = Q_TM1[..., :1]
    expected = R_T + DISCOUNT_T * Q_T.min(-1) - fewer[..., 0]
    np.testing.assert_allclose(
        core.clipped_double_q_learning(fewer, R_T, DISCOUNT_T, Q_T)[..., 0], expected, rtol=1e-5
    )


def test_sac_at_temperature_zero_is_td3():
    expected = core.clipped_double_q_learning(Q_TM1, R_T, DISCOUNT_T, Q_T)
    np.testing.assert_allclose(core.sac_error(Q_TM1, R_T, DISCOUNT_T, Q_T, LOG_PROB, 0), expected)


def test_discrete_sac_is_the_expectation_of_sac():
    log_probs = np.stack([log_softmax(logits) for logits in LOGITS.reshape(-1, A)]).reshape(
        LOGITS.shape
    )
    probs, q_t = np.exp(log_probs), np.moveaxis(QA_T, -1, 0)
    each = jnp.stack(
        [
            core.sac_policy_loss(
                q_t[a], log_probs[..., a], TEMPERATURE, probs[..., a], reduction="none"
            )
            for a in range(A)
        ]
    )
    actual = core.sac_discrete_policy_loss(LOGITS, QA_T, TEMPERATURE, reduction="none")
    np.testing.assert_allclose(actual, each.sum(0), rtol=1e-5, atol=1e-6)
    each = jnp.stack(
        [
            core.sac_temperature_loss(log_probs[..., a], 0.5, 1.0, probs[..., a], reduction="none")
            for a in range(A)
        ]
    )
    actual = core.sac_discrete_temperature_loss(LOGITS, 0.5, 1.0, reduction="none")
    np.testing.assert_allclose(actual, each.sum(0), rtol=1e-5, atol=1e-6)


def test_actions_that_are_ruled_out_add_nothing():
    logits, q = jnp.array([0.5, -jnp.inf, 1.0]), jnp.array([[1.0, 9.0, 2.0]])
    for loss in (
        lambda logits: core.sac_discrete_policy_loss(logits, q, 0.5),
        lambda logits: core.sac_discrete_error(
            q, 0, 1.0, 0.9, q, logits, 0.5, stop_target_gradients=False
        ).sum(),
    ):
        assert np.isfinite(loss(logits))
        gradient = jax.grad(loss)(logits)
        assert np.isfinite(gradient).all()
        assert gradient[1] == 0
    np.testing.assert_allclose(
        core.sac_discrete_policy_loss(logits, q, 0.5),
        core.sac_discrete_policy_loss(logits[::2], q[:, ::2], 0.5),
    )


def test_temperature_moves_the_entropy_towards_its_target():
    gradient = jax.grad(core.sac_temperature_loss, argnums=1)
    assert (
        gradient(1.0, 0.5, 0.0) < 0
    )  # the entropy -1 is below its target, so descent raises the temperature
    assert gradient(-1.0, 0.5, 0.0) > 0


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_smoothing_noise_is_clipped_and_stays_within_the_bounds(transform):
    smooth, a_t = transform(core.target_policy_smoothing), jnp.zeros((500, 2))
    noise = smooth(KEY, a_t, 1.0, np.array([0.1, 0.5]))
    np.testing.assert_allclose(jnp.abs(noise).max(0), [0.1, 0.5])
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(
        smooth(KEY, a_t), np.clip(0.2 * jax.random.normal(KEY, a_t.shape), -0.5, 0.5), atol=1e-6
    )
    assert smooth(KEY, a_t + 0.9).max() == 1
    mapped = jax.vmap(smooth)(jax.random.split(KEY, 500), a_t)
    assert 0.15 < mapped.std() < 0.25


def test_smoothing_passes_the_gradient_and_keeps_the_dtype():
    a_t = jnp.zeros(3, jnp.bfloat16)
    gradient = jax.grad(lambda a_t: core.target_policy_smoothing(KEY, a_t).sum())(a_t)
    np.testing.assert_array_equal(gradient, np.ones(3))
    assert gradient.dtype == core.target_policy_smoothing(KEY, a_t).dtype == jnp.bfloat16


def test_normalized_advantage_weights():
    weights = core.advantage_weights(ADV, 0.5, normalize=True)
    np.testing.assert_allclose(weights, np.exp(ADV / 0.5) / np.exp(ADV / 0.5).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        core.advantage_weights(ADV + 1000, 0.5, normalize=True), weights, rtol=1e-3
    )  # normalized weights do not overflow
    counted = np.array([[1, 0, 1], [0, 1, 1]])
    actual = core.advantage_weights(ADV, 0.5, normalize=True, w_t=counted)[counted > 0]
    np.testing.assert_allclose(
        actual, core.advantage_weights(ADV[counted > 0], 0.5, normalize=True), rtol=1e-5
    )
    np.testing.assert_allclose(
        core.awac_policy_loss(
            LOG_PROB, ADV, 0.5, normalize=True, w_t=counted, reduction="masked_mean"
        ),
        core.awac_policy_loss(LOG_PROB[counted > 0], ADV[counted > 0], 0.5, normalize=True),
        rtol=1e-5,
    )


def test_iql_and_awac_policies_differ_by_their_temperature_only():
    awac = core.awac_policy_loss(LOG_PROB, ADV, 0.25)
    np.testing.assert_allclose(core.iql_policy_loss(LOG_PROB, ADV, 4, None), awac, rtol=1e-5)
    np.testing.assert_allclose(
        core.iql_policy_loss(LOG_PROB, ADV, 0), -LOG_PROB.mean(), rtol=1e-5
    )  # weight 1: plain imitation
    large = core.iql_policy_loss(LOG_PROB, np.full_like(ADV, 1e6))
    np.testing.assert_allclose(large, -100 * LOG_PROB.mean(), rtol=1e-4)


def test_value_of_iql_is_the_expectile():
    q_t = jnp.array([[0.0], [1.0], [2.0], [7.0]])

    def best(expectile):
        values = jnp.linspace(0, 7, 701)
        return values[
            jnp.argmin(
                jax.vmap(lambda v: core.iql_value_loss(jnp.full(4, v), q_t, expectile))(values)
            )
        ]

    np.testing.assert_allclose(best(0.5), 2.5, atol=0.02)  # the mean
    assert 2.5 < best(0.7) < best(0.9) < best(0.99) < 7


def test_sampled_penalty_estimates_the_integral():
    # q(a) = -a^2 / 2: the log of its integral over the real line is log(2 pi) / 2
    actions = 2 * jax.random.normal(KEY, (20000,))
    log_probs = -0.5 * (actions / 2) ** 2 - jnp.log(2.0) - 0.5 * jnp.log(2 * jnp.pi)
    penalty = core.cql_sampled_penalty(jnp.zeros(1), -0.5 * actions[:, None] ** 2, log_probs)
    np.testing.assert_allclose(penalty, 0.5 * np.log(2 * np.pi), atol=0.02)
    # Every action once, each with probability 1 / A, is the sum over the actions
    q = LOGITS[0, 0]
    actual = core.cql_sampled_penalty(q[2:3], q[:, None], np.full(A, -np.log(A)))
    np.testing.assert_allclose(actual, core.cql_penalty(q, 2), rtol=1e-5)


def test_penalty_of_large_values_keeps_its_digits():
    np.testing.assert_allclose(
        core.cql_penalty(np.full(2, 1e4), 0, 0.07), 0.07 * np.log(2), rtol=1e-6
    )


def test_penalty_of_an_ensemble():
    mapped = jax.vmap(core.cql_penalty, in_axes=(-2, None), out_axes=-1)(QA_TM1, ACTIONS)
    np.testing.assert_allclose(
        mapped[..., 1], core.cql_penalty(QA_TM1[..., 1, :], ACTIONS), rtol=1e-6
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 3),
    st.sampled_from(["float32", "bfloat16", "float16", "int32"]),
)
def test_any_leading_axes_and_dtypes(leading, num_critics, dtype):
    expected = jnp.promote_types(dtype, jnp.float32) if dtype == "int32" else jnp.dtype(dtype)
    q, step, actions = (
        jnp.ones((*leading, num_critics), dtype),
        jnp.ones(leading, dtype),
        jnp.zeros(leading, int),
    )

    def errors():  # only traced: shapes and dtypes need no compilation
        return (
            core.clipped_double_q_learning(q, step, step, q),
            core.sac_error(q, 1, 1, q, step, 1),
            core.iql_error(q, 1, 1, 1),
            core.sac_discrete_error(q[..., None], actions, 1, 1, q[..., None], step[..., None], 1),
            core.cql_sampled_penalty(q, jnp.stack([q, q]), jnp.stack([step, step])),
        )

    def losses():
        return (
            core.sac_policy_loss(q, step, 1, reduction="none"),
            core.sac_temperature_loss(step, 1, 1, reduction="none"),
            core.sac_discrete_policy_loss(step[..., None], q[..., None], 1, reduction="none"),
            core.iql_value_loss(step, q, reduction="none"),
            core.iql_policy_loss(step, 1, reduction="none"),
            core.awac_policy_loss(step, 1, max_weight=2, normalize=True, reduction="none"),
        )

    for results, shape in ((errors, q.shape), (losses, step.shape)):
        for result in jax.eval_shape(results):
            assert (result.shape, result.dtype) == (shape, expected)


WRONG = np.zeros((2, 1))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: core.clipped_double_q_learning(1.0, 1.0, 1.0, Q_T), "q_tm1"),
        (lambda: core.clipped_double_q_learning(Q_TM1, R_T, DISCOUNT_T, Q_T[0]), "q_t"),
        (lambda: core.clipped_double_q_learning(Q_TM1, WRONG, DISCOUNT_T, Q_T), "r_t"),
        (lambda: core.sac_error(Q_TM1, R_T, DISCOUNT_T, Q_T, WRONG, 0.5), "log_prob_t"),
        (lambda: core.sac_error(Q_TM1, R_T, DISCOUNT_T, Q_T, LOG_PROB, WRONG), "temperature"),
        (lambda: core.sac_policy_loss(Q_T, WRONG, 0.5), "log_prob_t"),
        (lambda: core.sac_temperature_loss(LOG_PROB, WRONG, 0.5), "temperature"),
        (
            lambda: core.sac_discrete_error(QA_TM1, ACTIONS[0], R_T, DISCOUNT_T, QA_T, LOGITS, 0.5),
            "a_tm1",
        ),
        (
            lambda: core.sac_discrete_error(
                QA_TM1, ACTIONS, R_T, DISCOUNT_T, QA_T[..., :2], LOGITS, 0.5
            ),
            "q_t",
        ),
        (
            lambda: core.sac_discrete_error(
                QA_TM1, ACTIONS, R_T, DISCOUNT_T, QA_T, LOGITS[..., :2], 0.5
            ),
            "logits_t",
        ),
        (lambda: core.sac_discrete_policy_loss(LOGITS[0], QA_T, 0.5), "logits_t"),
        (lambda: core.sac_discrete_temperature_loss(LOGITS, WRONG, 0.5), "temperature"),
        (lambda: core.target_policy_smoothing(KEY, LOGITS, np.ones(2)), "stddev"),
        (lambda: core.advantage_weights(ADV, WRONG), "temperature"),
        (lambda: core.awac_policy_loss(LOG_PROB, WRONG), "adv_t"),
        (lambda: core.iql_value_loss(WRONG, Q_T), "q_t"),
        (lambda: core.iql_error(Q_TM1, R_T, DISCOUNT_T, WRONG), "v_t"),
        (lambda: core.iql_policy_loss(LOG_PROB, WRONG), "adv_t"),
        (lambda: core.cql_penalty(LOGITS, ACTIONS[0]), "a_tm1"),
        (lambda: core.cql_sampled_penalty(Q_TM1, Q_TM1[None, :1], LOG_PROB[None]), "sample_q_tm1"),
        (lambda: core.cql_sampled_penalty(Q_TM1, Q_TM1[None], LOG_PROB), "sample_q_tm1"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=f"'{name}'"):
        call()


def test_bad_actions():
    assert np.isnan(core.cql_penalty(LOGITS[0, 0], A))
    assert np.isnan(
        core.sac_discrete_error(QA_TM1[0, 0], -1, 0.0, 0.0, QA_T[0, 0], LOGITS[0, 0], 0.5)
    ).all()
    with pytest.raises(TypeError, match="'a_tm1'"):
        core.cql_penalty(LOGITS, ADV)
