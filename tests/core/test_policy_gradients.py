import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import ShapeError, l2_loss
from tests.core.stepwise import (
    Case,
    check_gradients,
    check_reductions,
    check_values,
    has,
    parametrized,
)

RNG = np.random.default_rng(0)
LOGITS, Q = RNG.normal(size=(2, 2, 3, 4))
ACTIONS = RNG.integers(4, size=(2, 3))
ADV, LOG_PROB, OLD_LOG_PROB, V, OLD_V, TARGET = RNG.normal(size=(6, 2, 3))
RATIOS = np.array([[0.5, 0.9, 1.0], [1.1, 1.5, 3.0]])
DQDA = 2 * RNG.normal(size=(2, 3, 4))


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def softmax(logits):
    return np.exp(log_softmax(logits))


def scaled_to(x, longest):
    return x * min(1, longest / np.sqrt((x**2).sum()))


def surrogate(ratio, adv, epsilon):
    return -min(ratio * adv, min(max(ratio, 1 - epsilon), 1 + epsilon) * adv)


def clipped_value(v, old_v, target, epsilon):
    clipped = min(max(v, old_v - epsilon), old_v + epsilon)
    return 0.5 * max((v - target) ** 2, (clipped - target) ** 2)


LOSSES = [
    Case(
        core.policy_gradient_loss,
        {"logits_t": LOGITS, "a_t": ACTIONS, "adv_t": ADV},
        lambda x, target, held: -log_softmax(x.logits_t)[x.a_t] * target.adv_t,
    ),
    Case(
        core.log_prob_policy_gradient_loss,
        {"log_prob_t": LOG_PROB, "adv_t": ADV},
        lambda x, target, held: -x.log_prob_t * target.adv_t,
    ),
    Case(
        core.entropy_loss,
        {"logits_t": LOGITS},
        lambda x, target, held: softmax(x.logits_t) @ log_softmax(x.logits_t),
    ),
    Case(
        core.qpg_loss,
        {"logits_t": LOGITS, "q_t": Q},
        lambda x, target, held: (
            -softmax(x.logits_t) @ (target.q_t - softmax(held.logits_t) @ target.q_t)
        ),
    ),
    Case(
        core.rm_loss,
        {"logits_t": LOGITS, "q_t": Q},
        lambda x, target, held: (
            -softmax(x.logits_t) @ np.maximum(target.q_t - softmax(held.logits_t) @ target.q_t, 0)
        ),
    ),
    Case(
        core.rpg_loss,
        {"logits_t": LOGITS, "q_t": Q},
        lambda x, target, held: np.maximum(target.q_t - softmax(x.logits_t) @ target.q_t, 0).sum(),
    ),
    Case(
        core.clipped_surrogate_pg_loss,
        {"prob_ratios_t": RATIOS, "adv_t": ADV},
        lambda x, target, held: surrogate(x.prob_ratios_t, target.adv_t, 0.2),
        {"epsilon": 0.2},
    ),
    Case(
        core.clipped_value_loss,
        {"v_t": V, "old_v_t": OLD_V, "target_t": TARGET},
        lambda x, target, held: clipped_value(x.v_t, held.old_v_t, target.target_t, 0.5),
        {"epsilon": 0.5},
    ),
    *(
        Case(
            core.approximate_kl,
            {"log_prob_t": LOG_PROB, "old_log_prob_t": OLD_LOG_PROB},
            lambda x, target, held, estimate=estimate: estimate(x.log_prob_t - x.old_log_prob_t),
            {"estimator": estimator},
        )
        for estimator, estimate in {
            "k1": lambda r: -r,
            "k2": lambda r: r * r / 2,
            "k3": lambda r: np.exp(r) - 1 - r,
        }.items()
    ),
    Case(
        core.clip_fraction,
        {"prob_ratios_t": RATIOS},
        lambda x, target, held: float(abs(x.prob_ratios_t - 1) > 0.2),
        {"epsilon": 0.2},
    ),
]
WITHOUT_REDUCTION = [
    Case(
        core.dpg_loss,
        {"a_t": LOGITS, "dqda_t": DQDA},
        lambda x, target, held: 0.5 * (target.a_t + scaled_to(target.dqda_t, 3) - x.a_t) ** 2,
        {"dqda_clipping": 3.0},
    ),
    Case(
        core.dpg_loss,
        {"a_t": LOGITS, "dqda_t": DQDA},
        lambda x, target, held: 0.5 * (target.a_t + target.dqda_t - x.a_t) ** 2,
    ),
    Case(
        core.prob_ratios,
        {"log_prob_t": LOG_PROB, "old_log_prob_t": OLD_LOG_PROB},
        lambda x, target, held: np.exp(x.log_prob_t - held.old_log_prob_t),
    ),
]


@pytest.mark.parametrize(**parametrized(LOSSES + WITHOUT_REDUCTION))
def test_values_against_the_oracle(case):
    check_values(case, **({"reduction": "none"} if has(case, "reduction") else {}))


@pytest.mark.parametrize(**parametrized(LOSSES))
def test_weights_and_reductions(case):
    check_reductions(case)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(**parametrized(LOSSES + WITHOUT_REDUCTION))
def test_gradients_against_the_oracle(case, stop):
    options = {"reduction": "sum"} if has(case, "reduction") else {}
    if has(case, "use_stop_gradient"):
        check_gradients(case, stop, **options, use_stop_gradient=stop)
    elif stop:
        check_gradients(case, stop, **options)


def test_values_by_hand():
    def check(loss, arguments, expected):
        np.testing.assert_allclose(
            loss(*(np.array(x) for x in arguments)), expected, rtol=1e-6, atol=1e-7
        )

    check(
        core.policy_gradient_loss, (np.zeros((2, 3)), [0, 2], [2.0, 4.0], [1.0, 0.5]), 2 * np.log(3)
    )
    check(core.qpg_loss, ([0.0, 0.0], [1.0, 3.0]), 0)
    check(core.rm_loss, ([0.0, 0.0], [1.0, 3.0]), -0.5)
    check(core.rpg_loss, ([0.0, 0.0], [1.0, 3.0]), 1)
    check(core.dpg_loss, ([0.0, 0.0], [3.0, 4.0]), [4.5, 8])
    check(core.dpg_loss, ([0.0, 0.0], [3.0, 4.0], 1), [0.18, 0.32])
    check(core.clipped_surrogate_pg_loss, ([2.0, 2.0, 0.5], [1, -1, -1], 0.2), -(1.2 - 2 - 0.8) / 3)
    check(core.clipped_value_loss, (3.0, 1.0, 3.0, 0.5), 0.5 * 1.5**2)
    check(core.clip_fraction, ([0.5, 1.0, 1.1, 1.3], 0.2), 0.5)


def test_masked_steps_do_not_dilute_the_mean():
    logits, w_t = np.zeros((2, 3), np.float32), np.array([1.0, 0.0])
    np.testing.assert_allclose(
        core.entropy_loss(logits, w_t), -np.log(3) / 2, rtol=1e-6
    )  # as in RLax
    np.testing.assert_allclose(
        core.entropy_loss(logits, w_t, reduction="masked_mean"), -np.log(3), rtol=1e-6
    )
    np.testing.assert_allclose(core.entropy_loss(logits, 0 * w_t, reduction="masked_mean"), 0)


def test_a_masked_step_adds_nothing_though_its_loss_is_not_finite():
    adv_t, w_t = np.array([1.0, np.nan, np.inf], np.float32), np.array([1.0, 0.0, 0.0], np.float32)
    logits, a_t = np.zeros((3, 2), np.float32), np.zeros(3, int)
    np.testing.assert_allclose(
        core.policy_gradient_loss(logits, a_t, adv_t, w_t), np.log(2) / 3, rtol=1e-6
    )


def test_action_values_get_a_gradient_if_asked():
    def gradient(loss, stop):
        return jax.grad(lambda q_t: loss(LOGITS, q_t, use_stop_gradient=stop))(Q.astype(np.float32))

    for loss in (core.rm_loss, core.rpg_loss):
        assert np.abs(gradient(loss, False)).max() > 0.01
        assert not gradient(loss, True).any()
    np.testing.assert_allclose(
        gradient(core.qpg_loss, False), 0, atol=1e-7
    )  # the baseline cancels it


def test_a_ratio_that_overflowed_is_not_hidden():
    assert np.isnan(core.clipped_surrogate_pg_loss(np.array([np.inf, 1]), np.array([0, 1]), 0.2))
    assert np.isnan(core.clipped_surrogate_pg_loss(np.array([np.nan, 1]), np.ones(2), 0.2))


class Gaussian:
    def __init__(self, mean, stddev):
        self.mean, self.stddev = mean, stddev

    def log_prob(self, x):
        return jnp.sum(
            -0.5 * ((x - self.mean) / self.stddev) ** 2
            - jnp.log(self.stddev)
            - 0.5 * jnp.log(2 * jnp.pi),
            axis=-1,
        )


@pytest.mark.slow
def test_gaussian_policy_gradient_stops_at_the_action():
    mean, noise, adv_t = (
        jnp.array([[0.5, -1.0], [0.0, 2.0]]),
        jnp.array([[1.0, -0.5], [0.3, 0.2]]),
        jnp.array([2.0, -1.0]),
    )

    def loss(mean):  # the gradient would be 0 without the stop
        return core.sampled_policy_gradient_loss(
            Gaussian(mean, 2.0), mean + 2.0 * noise, adv_t, reduction="sum"
        )

    np.testing.assert_allclose(jax.grad(loss)(mean), -adv_t[:, None] * noise / 2, rtol=1e-5)
    expected = -np.mean(adv_t * Gaussian(mean, 2.0).log_prob(mean + 2.0 * noise))
    np.testing.assert_allclose(
        core.sampled_policy_gradient_loss(Gaussian(mean, 2.0), mean + 2.0 * noise, adv_t),
        expected,
        rtol=1e-6,
    )
    with pytest.raises(ShapeError, match="'adv_t'"):
        core.sampled_policy_gradient_loss(Gaussian(mean, 2.0), mean, adv_t[:1])


def test_log_probabilities_and_logits_give_the_same_policy_gradient():
    def from_log_probs(logits):
        log_prob_t = jnp.take_along_axis(jax.nn.log_softmax(logits), ACTIONS[..., None], -1)[..., 0]
        return core.log_prob_policy_gradient_loss(log_prob_t, ADV)

    def from_logits(logits):
        return core.policy_gradient_loss(logits, ACTIONS, ADV)

    def from_ratios(logits):  # at a ratio of 1, PPO's gradient is the policy gradient
        log_prob_t = jnp.take_along_axis(jax.nn.log_softmax(logits), ACTIONS[..., None], -1)[..., 0]
        return core.clipped_surrogate_pg_loss(core.prob_ratios(log_prob_t, log_prob_t), ADV, 0.2)

    expected = jax.grad(from_logits)(jnp.float32(LOGITS))
    for other in (from_log_probs, from_ratios):
        np.testing.assert_allclose(
            jax.grad(other)(jnp.float32(LOGITS)), expected, rtol=1e-5, atol=1e-7
        )


def test_actions_that_are_ruled_out():
    logits = jnp.array([0.0, -jnp.inf, 0.0])
    np.testing.assert_allclose(core.entropy_loss(logits), -np.log(2), rtol=1e-6)
    assert np.isfinite(jax.grad(core.entropy_loss)(logits)).all()
    assert np.isfinite(jax.grad(core.policy_gradient_loss)(logits, 0, 1.0)).all()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 3.0])
def test_deterministic_gradient_at_any_length(scale):
    dqda_t = scale * jnp.array([0.6, 0.8])
    gradient = jax.grad(lambda a_t, dqda_t: core.dpg_loss(a_t, dqda_t, 1.0).sum(), argnums=(0, 1))(
        jnp.ones(2), dqda_t
    )
    np.testing.assert_allclose(gradient[0], -min(scale, 1.0) * np.array([0.6, 0.8]), rtol=1e-4)
    assert not gradient[1].any()
    through = jax.grad(
        lambda dqda_t: core.dpg_loss(jnp.ones(2), dqda_t, 1.0, use_stop_gradient=False).sum()
    )(dqda_t)
    assert np.isfinite(through).all()


def test_clipped_value_loss_within_epsilon_is_the_squared_error():
    np.testing.assert_allclose(
        core.clipped_value_loss(V, OLD_V, TARGET, 100.0), l2_loss(V, TARGET).mean(), rtol=1e-6
    )


def test_kl_estimators():
    old, new = np.log(softmax(LOGITS[0, 0])), np.log(softmax(Q[0, 0]))
    exact = np.exp(old) @ (old - new)
    for estimator in ("k1", "k3"):  # unbiased estimators of the KL
        np.testing.assert_allclose(
            core.approximate_kl(new, old, np.exp(old), estimator=estimator, reduction="sum"),
            exact,
            rtol=1e-5,
        )
    close = np.float32(1e-4) * np.arange(-5, 6, dtype=np.float32)
    estimate = core.approximate_kl(close, np.zeros_like(close), reduction="none")
    assert (estimate >= 0).all()
    np.testing.assert_allclose(estimate, np.expm1(close.astype(float)) - close, rtol=1e-2)
    with pytest.raises(ValueError, match="'k4' is unknown"):
        core.approximate_kl(0.0, 0.0, estimator="k4")


@pytest.mark.parametrize("log_ratio", [100.0, -100.0, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_extreme_ratios_stay_finite(log_ratio, dtype):
    def surrogate(log_prob_t, adv_t):
        return core.clipped_surrogate_pg_loss(
            core.prob_ratios(log_prob_t, dtype(0)), adv_t, dtype(0.2)
        )

    for adv_t in (1, -1, 0):
        loss, grad = jax.value_and_grad(surrogate)(dtype(log_ratio), dtype(adv_t))
        assert np.isfinite(loss) and np.isfinite(grad)
        # Only an action that has become far too likely has a gradient.
        assert (grad > 0) == (adv_t < 0 and log_ratio == 100)
    assert core.clip_fraction(core.prob_ratios(dtype(log_ratio), dtype(0)), dtype(0.2)) == 1
    estimate = core.approximate_kl(dtype(log_ratio), dtype(0))
    assert estimate == np.inf if log_ratio == -np.inf else np.isfinite(estimate)
    assert np.isnan(core.prob_ratios(np.float32(np.nan), 0.0))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_explained_variance(transform):
    explained_variance = transform(core.explained_variance)
    np.testing.assert_allclose(
        explained_variance(V, TARGET), 1 - np.var(TARGET - V) / np.var(TARGET), rtol=1e-5
    )
    np.testing.assert_allclose(explained_variance(TARGET + 3, TARGET), 1, atol=1e-5)
    np.testing.assert_allclose(explained_variance(np.zeros_like(TARGET), TARGET), 0, atol=1e-6)
    assert explained_variance(V, np.ones_like(V)) == 0
    assert explained_variance(np.full_like(V, 2), np.ones_like(V)) == 1
    np.testing.assert_allclose(
        explained_variance(V + 1e3, TARGET + 1e3), explained_variance(V, TARGET), atol=1e-3
    )
    counted = np.arange(6).reshape(2, 3) > 2
    expected = explained_variance(V[counted], TARGET[counted])
    np.testing.assert_allclose(explained_variance(V, TARGET, counted), expected, rtol=1e-5)
    mapped = jax.vmap(core.explained_variance)(V, TARGET)
    np.testing.assert_allclose(
        mapped, [1 - np.var(t - v) / np.var(t) for v, t in zip(V, TARGET, strict=True)], rtol=1e-4
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 4),
    st.sampled_from(["float32", "bfloat16", "float16", "int32"]),
)
def test_any_leading_axes_and_dtypes(leading, num_actions, dtype):
    expected = jnp.promote_types(dtype, jnp.float32) if dtype == "int32" else jnp.dtype(dtype)
    x, step, actions = (
        jnp.ones((*leading, num_actions), dtype),
        jnp.ones(leading, dtype),
        jnp.zeros(leading, int),
    )

    def losses():  # only traced: shapes and dtypes need no compilation
        return (
            core.policy_gradient_loss(x, actions, step, step, reduction="none"),
            core.policy_gradient_loss(
                x, actions, 1, np.ones(leading), reduction="none"
            ),  # weights do not change the dtype of a loss
            core.log_prob_policy_gradient_loss(step, 1, reduction="none"),
            core.qpg_loss(x, x, reduction="none"),
            core.rm_loss(x, x, reduction="none"),
            core.rpg_loss(x, x, reduction="none"),
            core.entropy_loss(x, reduction="none"),
            core.prob_ratios(step, 1),
            core.clipped_surrogate_pg_loss(step, step, 0.2, reduction="none"),
            core.clipped_value_loss(step, step, step, 1, reduction="none"),
            core.approximate_kl(step, step, reduction="none"),
            core.clip_fraction(step, 0.2, reduction="none"),
            core.dpg_loss(x, x, 1)[..., 0],
        )

    for loss in jax.eval_shape(losses):
        assert (loss.shape, loss.dtype) == (tuple(leading), expected)
    mixed = jax.eval_shape(lambda: core.rpg_loss(x, x.astype(jnp.float32)))
    assert (mixed.shape, mixed.dtype) == ((), jnp.float32)


STEP, WRONG = np.zeros((2, 3)), np.zeros((2, 1))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: core.policy_gradient_loss(LOGITS, ACTIONS[:1], ADV, STEP), "a_t"),
        (lambda: core.policy_gradient_loss(LOGITS, ACTIONS, WRONG, STEP), "adv_t"),
        (lambda: core.policy_gradient_loss(LOGITS, ACTIONS, ADV, WRONG), "w"),
        (lambda: core.policy_gradient_loss(1.0, 0, 1.0), "logits_t"),
        (lambda: core.log_prob_policy_gradient_loss(STEP, WRONG), "adv_t"),
        (lambda: core.entropy_loss(LOGITS, WRONG), "w"),
        (lambda: core.rm_loss(LOGITS, Q[:, :, :1]), "q_t"),
        (lambda: core.dpg_loss(LOGITS, DQDA[0]), "dqda_t"),
        (lambda: core.dpg_loss(LOGITS, DQDA, np.ones(3)), "dqda_clipping"),
        (lambda: core.clipped_surrogate_pg_loss(RATIOS, WRONG, 0.2), "adv_t"),
        (lambda: core.clipped_surrogate_pg_loss(RATIOS, ADV, np.ones(3)), "epsilon"),
        (lambda: core.clipped_value_loss(V, WRONG, TARGET, 0.2), "old_v_t"),
        (lambda: core.prob_ratios(V, WRONG), "old_log_prob_t"),
        (lambda: core.approximate_kl(V, WRONG), "old_log_prob_t"),
        (lambda: core.clip_fraction(RATIOS, np.ones(3)), "epsilon"),
        (lambda: core.explained_variance(V, WRONG), "target_t"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=f"'{name}"):
        call()


def test_bad_actions_and_options():
    with pytest.raises(TypeError, match="'a_t'"):
        core.policy_gradient_loss(LOGITS, ADV, ADV)
    assert np.isnan(core.policy_gradient_loss(LOGITS[0, 0], 4, 1.0))
    with pytest.raises(ValueError, match="reduction='average' is unknown"):
        core.entropy_loss(LOGITS, reduction="average")
    with pytest.raises(TypeError, match="'use_stop_gradient' must be a Python value"):
        jax.jit(lambda stop: core.rm_loss(LOGITS, Q, stop))(True)
