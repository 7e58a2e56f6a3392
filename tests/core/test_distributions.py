import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import ShapeError
from tests.core.stepwise import LEADING, Case, every_way, float32, looped

RNG = np.random.default_rng(0)
A, D = 4, 3
LOGITS, OTHER = RNG.normal(size=(2, *LEADING, A))
LABELS = RNG.dirichlet(np.ones(A), LEADING)
ACTIONS = RNG.integers(A, size=LEADING)
TIES = np.round(LOGITS)
MU, MU_1, VALUE = RNG.normal(size=(3, *LEADING, D))
SIGMA, SIGMA_1 = np.exp(0.5 * RNG.normal(size=(2, *LEADING, D)))
INSIDE = np.tanh(VALUE)
BOX = SimpleNamespace(minimum=np.array([-1.0, -2.0, 100.0]), maximum=np.array([1.0, 5.0, 101.0]))
# Rounded to float32, which has few numbers between 100 and 101.
IN_BOX = np.float64(np.float32(BOX.minimum + (BOX.maximum - BOX.minimum) * (INSIDE + 1) / 2))
KEY = jax.random.key(0)


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x)))


def entropy(p):
    return -sum(x * np.log(x) for x in p if x > 0)


def kl(log_p, log_q):
    return np.sum(np.exp(log_p) * (log_p - log_q))


def greedy_probs(x, epsilon=0.0):
    best = x == x.max()
    return (1 - epsilon) * best / best.sum() + epsilon / len(x)


def normal_logpdf(x, mu, sigma):
    return np.sum(-((x - mu) ** 2) / (2 * sigma**2) - np.log(sigma * np.sqrt(2 * np.pi)))


def normal_kl(mu_0, sigma_0, mu_1, sigma_1):
    return np.sum(
        np.log(sigma_1 / sigma_0) + (sigma_0**2 + (mu_0 - mu_1) ** 2) / (2 * sigma_1**2) - 0.5
    )


def squashed_base(mu, sigma, low=-4.0, high=0.0):
    return np.tanh(mu), np.exp(low + (high - low) * (np.tanh(sigma) + 1) / 2)


def squashed_logpdf(a, mu, sigma):
    y = 2 * (a - BOX.minimum) / (BOX.maximum - BOX.minimum) - 1
    log_det = np.sum(np.log(1 - y**2) + np.log((BOX.maximum - BOX.minimum) / 2))
    return normal_logpdf(np.arctanh(y), *squashed_base(mu, sigma)) - log_det


def in_box(function):
    return lambda **arguments: function(**arguments, action_spec=BOX)


SOFTMAX, CLIPPED, GREEDY, EPSILON = (
    core.softmax(0.7),
    core.clipped_entropy_softmax(0.7, 0.9),
    core.greedy(),
    core.epsilon_greedy(0.3),
)
GAUSSIAN, SQUASHED = core.gaussian_diagonal(), core.squashed_gaussian()
PAIR = {"mu_0": MU, "sigma_0": SIGMA, "mu_1": MU_1, "sigma_1": SIGMA_1}
ONE = {"mu": MU, "sigma": SIGMA}

CASES = {
    "cross_entropy": Case(
        core.categorical_cross_entropy,
        {"labels": LABELS, "logits": LOGITS},
        lambda x, *_: -np.sum(x.labels * log_softmax(x.logits)) / np.sum(x.labels),
    ),
    "ratios": Case(
        core.categorical_importance_sampling_ratios,
        {"pi_logits_t": LOGITS, "mu_logits_t": OTHER, "a_t": ACTIONS},
        lambda x, *_: np.exp(log_softmax(x.pi_logits_t)[x.a_t] - log_softmax(x.mu_logits_t)[x.a_t]),
    ),
    "kl": Case(
        core.categorical_kl_divergence,
        {"p_logits": LOGITS, "q_logits": OTHER},
        lambda x, *_: kl(log_softmax(x.p_logits), log_softmax(x.q_logits)),
    ),
    "softmax.probs": Case(
        SOFTMAX.probs, {"logits": LOGITS}, lambda x, *_: np.exp(log_softmax(x.logits / 0.7))
    ),
    "softmax.logprob": Case(
        SOFTMAX.logprob,
        {"sample": ACTIONS, "logits": LOGITS},
        lambda x, *_: log_softmax(x.logits / 0.7)[x.sample],
    ),
    "softmax.entropy": Case(
        SOFTMAX.entropy,
        {"logits": LOGITS},
        lambda x, *_: entropy(np.exp(log_softmax(x.logits / 0.7))),
    ),
    "softmax.kl": Case(
        SOFTMAX.kl,
        {"p_logits": LOGITS, "q_logits": OTHER},
        lambda x, *_: kl(log_softmax(x.p_logits / 0.7), log_softmax(x.q_logits / 0.7)),
    ),
    "clipped.probs": Case(
        CLIPPED.probs, {"logits": LOGITS}, lambda x, *_: np.exp(log_softmax(x.logits / 0.7))
    ),
    "clipped.logprob": Case(
        CLIPPED.logprob,
        {"sample": ACTIONS, "logits": LOGITS},
        lambda x, *_: log_softmax(x.logits / 0.7)[x.sample],
    ),
    "clipped.entropy": Case(
        CLIPPED.entropy,
        {"logits": LOGITS},
        lambda x, *_: min(entropy(np.exp(log_softmax(x.logits / 0.7))), 0.9 * np.log(A)),
    ),
    "gaussian.prob": Case(
        GAUSSIAN.prob,
        {"sample": VALUE, **ONE},
        lambda x, *_: np.exp(normal_logpdf(x.sample, x.mu, x.sigma)),
    ),
    "gaussian.logprob": Case(
        GAUSSIAN.logprob,
        {"sample": VALUE, **ONE},
        lambda x, *_: normal_logpdf(x.sample, x.mu, x.sigma),
    ),
    "gaussian.entropy": Case(
        GAUSSIAN.entropy, ONE, lambda x, *_: np.sum(np.log(x.sigma * np.sqrt(2 * np.pi * np.e)))
    ),
    "gaussian.kl_to_standard_normal": Case(
        GAUSSIAN.kl_to_standard_normal, ONE, lambda x, *_: normal_kl(x.mu, x.sigma, 0, 1)
    ),
    "gaussian.kl": Case(
        GAUSSIAN.kl, PAIR, lambda x, *_: normal_kl(x.mu_0, x.sigma_0, x.mu_1, x.sigma_1)
    ),
    "squashed.prob": Case(
        in_box(SQUASHED.prob),
        {"sample": IN_BOX, **ONE},
        lambda x, *_: np.exp(squashed_logpdf(x.sample, x.mu, x.sigma)),
    ),
    "squashed.logprob": Case(
        in_box(SQUASHED.logprob),
        {"sample": IN_BOX, **ONE},
        lambda x, *_: squashed_logpdf(x.sample, x.mu, x.sigma),
    ),
    "squashed.entropy": Case(
        SQUASHED.entropy,
        ONE,
        lambda x, *_: np.sum(np.log(squashed_base(x.mu, x.sigma)[1] * np.sqrt(2 * np.pi * np.e))),
    ),
    "squashed.kl_to_standard_normal": Case(
        SQUASHED.kl_to_standard_normal,
        ONE,
        lambda x, *_: normal_kl(*squashed_base(x.mu, x.sigma), 0, 1),
    ),
    "squashed.kl": Case(
        SQUASHED.kl,
        PAIR,
        lambda x, *_: normal_kl(
            *squashed_base(x.mu_0, x.sigma_0), *squashed_base(x.mu_1, x.sigma_1)
        ),
    ),
}
# These are not differentiable in the preferences.
GREEDY_CASES = {
    "greedy.probs": Case(
        GREEDY.probs, {"preferences": TIES}, lambda x, *_: greedy_probs(x.preferences)
    ),
    "greedy.logprob": Case(
        GREEDY.logprob,
        {"sample": TIES.argmax(-1), "preferences": TIES},
        lambda x, *_: np.log(greedy_probs(x.preferences)[x.sample]),
    ),
    "greedy.entropy": Case(
        GREEDY.entropy, {"preferences": TIES}, lambda x, *_: entropy(greedy_probs(x.preferences))
    ),
    "epsilon_greedy.probs": Case(
        EPSILON.probs, {"preferences": TIES}, lambda x, *_: greedy_probs(x.preferences, 0.3)
    ),
    "epsilon_greedy.logprob": Case(
        EPSILON.logprob,
        {"sample": ACTIONS, "preferences": TIES},
        lambda x, *_: np.log(greedy_probs(x.preferences, 0.3)[x.sample]),
    ),
    "epsilon_greedy.entropy": Case(
        EPSILON.entropy,
        {"preferences": TIES},
        lambda x, *_: entropy(greedy_probs(x.preferences, 0.3)),
    ),
}


@pytest.mark.slow
def test_values_against_an_oracle():
    cases = CASES | GREEDY_CASES
    arguments = {name: float32(case.arguments) for name, case in cases.items()}
    expected = {name: looped(case, case.arguments) for name, case in cases.items()}
    for how, actual in every_way(
        lambda x: {name: case.call(x[name]) for name, case in cases.items()}, arguments
    ).items():
        for name in cases:
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{name}, {how}"
            )


@pytest.mark.slow
def test_gradients_against_differences_of_the_oracle():
    arguments = {
        name: {k: v for k, v in case.arguments.items() if v.dtype == np.float64}
        for name, case in CASES.items()
    }

    @jax.jit
    @jax.grad
    def gradients(x):
        return sum(case.call({**case.arguments, **x[name]}).sum() for name, case in CASES.items())

    actual = gradients({name: float32(x) for name, x in arguments.items()})
    for name, case in CASES.items():
        for argument, value in arguments[name].items():
            # All steps are changed at once, because an element affects only its own step.
            expected = np.zeros_like(value)
            for i in range(value.shape[-1]):
                up, down = (
                    looped(
                        case,
                        {**case.arguments, argument: value + step * np.eye(value.shape[-1])[i]},
                    )
                    for step in (1e-6, -1e-6)
                )
                expected[..., i] = ((up - down) / 2e-6).reshape(*LEADING, -1).sum(-1)
            # Relative to the largest gradient, because float32 rounds the steep slope of the
            # density between 100 and 101.
            np.testing.assert_allclose(
                actual[name][argument],
                expected,
                rtol=2e-3,
                atol=1e-4,
                err_msg=f"{name}, {argument}",
            )


def test_values_by_hand():
    even, odd = np.log([1.0, 1.0]), np.log([1.0, 3.0])
    for actual, expected in (
        (core.softmax().probs(odd), [0.25, 0.75]),
        (core.categorical_kl_divergence(even, odd), 0.5 * np.log(4 / 3)),
        (core.categorical_cross_entropy(np.array([0, 1]), odd), np.log(4 / 3)),
        (core.categorical_importance_sampling_ratios(odd, even, 1), 1.5),
        (core.greedy().probs(np.array([1, 1, 0])), [0.5, 0.5, 0]),
        (core.epsilon_greedy(0.2).probs(np.array([1, 1, 0, 0])), [0.45, 0.45, 0.05, 0.05]),
        (
            core.multivariate_normal_kl_divergence(
                np.array([1.0, 0]), 1.0, np.zeros(2), np.array([1.0, 2])
            ),
            0.5 + np.log(2) - 3 / 8,
        ),
        (
            core.gaussian_diagonal(2.0).logprob(np.array([2.0]), np.zeros(1)),
            -0.5 - np.log(2 * np.sqrt(2 * np.pi)),
        ),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("sample", "probs"),
    [
        (
            lambda key: core.softmax(0.5).sample(key, np.log([0.2, 0.3, 0.5])),
            np.array([0.04, 0.09, 0.25]) / 0.38,
        ),
        (
            lambda key: core.clipped_entropy_softmax(0.5).sample(key, np.log([0.2, 0.3, 0.5])),
            np.array([0.04, 0.09, 0.25]) / 0.38,
        ),
        (lambda key: core.greedy().sample(key, np.array([1.0, 1.0, 0.0])), [0.5, 0.5, 0]),
        (
            lambda key: core.epsilon_greedy(0.3).sample(key, np.array([1.0, 1.0, -np.inf])),
            [0.5, 0.5, 0],
        ),
        (
            lambda key: core.epsilon_greedy(0.3).sample(key, np.array([1.0, 2.0, 0.0])),
            [0.1, 0.8, 0.1],
        ),
        (lambda key: core.categorical_sample(key, np.array([2.0, 3.0, 5.0])), [0.2, 0.3, 0.5]),
    ],
)
def test_samples_have_the_probabilities(sample, probs):
    n = 20_000
    counts = np.bincount(jax.vmap(sample)(jax.random.split(KEY, n)), minlength=3)
    # Within five standard errors.
    np.testing.assert_array_less(
        np.abs(counts / n - probs),
        5 * np.sqrt(np.asarray(probs) * (1 - np.asarray(probs)) / n) + 1e-9,
    )


def test_gaussian_samples_have_the_moments():
    mu, sigma, n = np.array([1.0, -2.0], np.float32), np.array([0.5, 3.0], np.float32), 20_000
    sample = np.asarray(
        jax.vmap(lambda key: core.gaussian_diagonal().sample(key, mu, sigma))(
            jax.random.split(KEY, n)
        )
    )
    np.testing.assert_array_less(np.abs(sample.mean(0) - mu), 5 * sigma / np.sqrt(n))
    np.testing.assert_array_less(np.abs(sample.std(0) / sigma - 1), 5 / np.sqrt(2 * n))
    squashed = jax.vmap(lambda key: SQUASHED.sample(key, MU[0, 0], SIGMA[0, 0], BOX))(
        jax.random.split(KEY, n)
    )
    assert ((squashed >= BOX.minimum) & (squashed <= BOX.maximum)).all()
    # The squashed mean is the median.
    median = BOX.minimum + (BOX.maximum - BOX.minimum) * (np.tanh(np.tanh(MU[0, 0])) + 1) / 2
    np.testing.assert_array_less(np.abs((squashed < median).mean(0) - 0.5), 5 * 0.5 / np.sqrt(n))


def test_the_sample_that_code_written_for_rlax_pins():
    with jax.threefry_partitionable(False):
        assert core.categorical_sample(np.array([1, 2], np.uint32), np.array([0.2, 0.3, 0.5])) == 0


@pytest.mark.parametrize(
    "probs", [(-1, 10, -1), (0, 0, 0), (1, np.inf, 3), (1, 2, -np.inf), (1, 2, np.nan)]
)
def test_invalid_probabilities_sample_minus_one(probs):
    probs = np.array([probs, (0.0, 1.0, 0.0)])
    np.testing.assert_array_equal(core.categorical_sample(KEY, probs), [-1, 1])


def test_logits_that_allow_nothing_sample_minus_one():
    assert core.softmax().sample(KEY, np.full(3, -np.inf)) == -1
    assert core.softmax().sample(KEY, np.array([0.0, np.nan])) == -1
    assert core.epsilon_greedy(0.5).sample(KEY, np.full(3, -np.inf)) == -1


MASKED, MASKED_Q = jnp.array([1.0, -jnp.inf, 0.5, -2.0]), jnp.array([0.0, -jnp.inf, 0.0, -2.0])
LEGAL, LEGAL_Q = log_softmax(np.array([1.0, 0.5, -2.0])), log_softmax(np.array([0.0, 0.0, -2.0]))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (core.softmax().entropy, entropy(np.exp(LEGAL))),
        (core.clipped_entropy_softmax(1.0, 0.9).entropy, entropy(np.exp(LEGAL))),
        (lambda x: core.categorical_kl_divergence(x, MASKED_Q), kl(LEGAL, LEGAL_Q)),
        (lambda x: core.categorical_kl_divergence(MASKED_Q, x), kl(LEGAL_Q, LEGAL)),
        (
            lambda x: core.categorical_cross_entropy(jnp.array([1.0, 0.0, 3.0, 0.0]), x),
            -(LEGAL[0] + 3 * LEGAL[1]) / 4,
        ),
        (lambda x: core.categorical_importance_sampling_ratios(x, jnp.zeros(4), 1), 0.0),
        (lambda x: core.softmax().logprob(2, x), LEGAL[1]),
    ],
)
def test_an_illegal_action_changes_no_value_and_no_gradient(function, expected):
    value, gradient = jax.value_and_grad(function)(MASKED)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all() and gradient[1] == 0


def test_illegal_actions_have_probability_zero():
    for probs in (
        core.softmax(2.0).probs(MASKED),
        core.greedy().probs(MASKED),
        core.epsilon_greedy(0.5).probs(MASKED),
    ):
        assert probs[1] == 0
        np.testing.assert_allclose(probs.sum(), 1, rtol=1e-6)
    assert core.softmax().logprob(1, MASKED) == -np.inf
    assert np.isfinite(core.epsilon_greedy(0.5).entropy(MASKED))
    assert np.isfinite(jax.grad(lambda epsilon: core.epsilon_greedy(epsilon).entropy(MASKED))(0.5))
    assert core.categorical_kl_divergence(np.zeros(4), MASKED) == np.inf


def test_the_squashed_gaussians_entropy_and_kl_are_those_before_squashing():
    mu, sigma = (
        np.array([np.arctanh(0.5)]),
        np.array([100.0]),
    )  # mean 0.5 and standard deviation 1 before squashing
    np.testing.assert_allclose(
        SQUASHED.entropy(mu, sigma), 0.5 * np.log(2 * np.pi * np.e), rtol=1e-6
    )
    np.testing.assert_allclose(SQUASHED.kl_to_standard_normal(mu, sigma), 0.5 * 0.5**2, rtol=1e-5)
    np.testing.assert_allclose(SQUASHED.kl(mu, sigma, -mu, sigma), 0.5, rtol=1e-5)
    assert (
        "base" in core.squashed_gaussian.__doc__
        and "before squashing" in core.squashed_gaussian.__doc__
    )


@pytest.mark.parametrize("sigma_max", [0.0, 2.0])
def test_log_probabilities_of_squashed_actions_are_finite_up_to_the_bounds(sigma_max):
    mu = np.linspace(-20, 20, 41, dtype=np.float32)[:, None]
    sigma = np.linspace(-3, 3, 41, dtype=np.float32)[:, None]
    for low, high in ((-1.0, 1.0), (100.0, 101.0), (-1000.0, 1000.0)):
        spec = SimpleNamespace(minimum=np.float32(low), maximum=np.float32(high))
        squashed = core.squashed_gaussian(sigma_max=sigma_max)
        sampled = squashed.sample(KEY, mu, sigma, spec)
        for action in (
            sampled,
            np.full_like(mu, low),
            np.full_like(mu, high),
            np.nextafter(np.full_like(mu, high), np.float32(0)),
        ):
            values, gradients = jax.value_and_grad(
                lambda *x, f=squashed, s=spec: f.logprob(*x, s).sum(), (0, 1, 2)
            )(action, mu, sigma)
            assert np.isfinite(values) and all(np.isfinite(g).all() for g in gradients)


def test_log_probability_near_a_bound_keeps_the_digits_that_the_action_has():
    high = 1.0
    action = np.array([[0.999999]], np.float32)
    exact = float(np.arctanh(np.float64(action[0, 0])))
    mu, sigma = np.array([[0.5]], np.float32), np.array([[0.0]], np.float32)
    expected = normal_logpdf(exact, np.tanh(0.5), np.exp(-2.0)) - np.log(
        1 - np.float64(action[0, 0]) ** 2
    )
    np.testing.assert_allclose(
        SQUASHED.logprob(action, mu, sigma, SimpleNamespace(minimum=-high, maximum=high)),
        [expected],
        rtol=1e-5,
    )


def test_a_temperature_costs_no_digits_of_large_logits():
    logits = (1e4 + np.arange(A) / 64).astype(
        np.float32
    )  # dividing first would round them to multiples of 1/64
    expected = log_softmax(np.arange(A) / 64 / 0.07)
    np.testing.assert_allclose(
        core.softmax(0.07).logprob(np.arange(A), np.tile(logits, (A, 1))), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        core.softmax(0.07).kl(logits, np.zeros(A)),
        kl(expected, log_softmax(np.zeros(A))),
        rtol=2e-5,
    )
    temperature_slope = jax.grad(lambda temperature: core.softmax(temperature).logprob(0, logits))(
        0.07
    )
    small_slope = jax.grad(
        lambda temperature: core.softmax(temperature).logprob(0, np.arange(A) / 64)
    )(0.07)
    np.testing.assert_allclose(temperature_slope, small_slope, rtol=1e-5)


def test_divergence_of_nearly_equal_gaussians_keeps_its_digits():
    mu = np.linspace(-1000, 1000, 7)[:, None].astype(np.float32)
    for step in (1e-2, 1e-3):
        sigma_1 = np.full_like(mu, 1 + step)
        expected = normal_kl(0, 1, 0, np.float64(sigma_1[0]))
        np.testing.assert_allclose(
            core.multivariate_normal_kl_divergence(mu, 1.0, mu, sigma_1), expected, rtol=1e-3
        )


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 5),
    st.sampled_from([np.float32, np.float16, jnp.bfloat16, np.int32]),
)
def test_shapes_and_dtypes(leading, size, dtype):
    leading, expected = tuple(leading), jnp.float32 if dtype == np.int32 else dtype
    x, actions = jnp.ones((*leading, size), dtype), jnp.zeros(leading, jnp.int32)

    def check(function, shape, dtype=expected):
        result = jax.eval_shape(function)  # traced, not compiled
        assert result.shape == shape and result.dtype == dtype

    for discrete in (
        core.softmax(1),
        core.clipped_entropy_softmax(1, 1),
        core.greedy(),
        core.epsilon_greedy(1),
    ):
        check(lambda f=discrete: f.sample(KEY, x), leading, jnp.int32)
        check(lambda f=discrete: f.probs(x), x.shape)
        check(lambda f=discrete: f.logprob(actions, x), leading)
        check(lambda f=discrete: f.entropy(x), leading)
    box = SimpleNamespace(minimum=-2, maximum=2)
    for continuous, extra in ((core.gaussian_diagonal(), ()), (core.squashed_gaussian(), (box,))):
        check(lambda f=continuous, e=extra: f.sample(KEY, x, x, *e), x.shape)
        check(lambda f=continuous, e=extra: f.logprob(x, x, x, *e), leading)
        check(lambda f=continuous: f.entropy(x, x), leading)
        check(lambda f=continuous: f.kl(x, x, x, x), leading)
    check(lambda: core.categorical_kl_divergence(x, x, 1), leading)
    check(lambda: core.categorical_cross_entropy(x, x), leading)
    check(lambda: core.categorical_importance_sampling_ratios(x, x, actions), leading)
    check(lambda: core.categorical_sample(KEY, x), leading, jnp.int32)


def test_double_precision():
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            SOFTMAX.entropy(LOGITS[0, 0]),
            entropy(np.exp(log_softmax(LOGITS[0, 0] / 0.7))),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            SQUASHED.logprob(IN_BOX[0], MU[0], SIGMA[0], BOX)[0],
            squashed_logpdf(IN_BOX[0, 0], MU[0, 0], SIGMA[0, 0]),
            rtol=1e-9,
        )


def test_parameters_that_are_shared():
    sigma = SIGMA[0, 0]
    np.testing.assert_allclose(
        GAUSSIAN.logprob(VALUE, MU, sigma),
        GAUSSIAN.logprob(VALUE, MU, np.broadcast_to(sigma, MU.shape)),
        rtol=1e-6,
    )
    many = np.stack([VALUE, VALUE + 1])
    np.testing.assert_allclose(
        GAUSSIAN.logprob(many, MU, SIGMA)[1], GAUSSIAN.logprob(VALUE + 1, MU, SIGMA), rtol=1e-6
    )
    np.testing.assert_allclose(
        core.softmax().logprob(np.stack([ACTIONS, 0 * ACTIONS]), LOGITS)[1],
        core.softmax().logprob(0 * ACTIONS, LOGITS),
    )
    temperature = np.exp(LOGITS[..., 0])
    np.testing.assert_allclose(
        core.softmax(temperature).probs(LOGITS)[1, 2],
        core.softmax(temperature[1, 2]).probs(LOGITS[1, 2]),
        rtol=1e-6,
    )
    epsilon = np.linspace(0, 1, 6).reshape(LEADING)
    np.testing.assert_allclose(
        core.epsilon_greedy().probs(TIES, epsilon)[0, 1],
        greedy_probs(TIES[0, 1], epsilon[0, 1]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(core.epsilon_greedy(0.9).probs(TIES, 0.3), EPSILON.probs(TIES))
    np.testing.assert_allclose(
        core.gaussian_diagonal(9.0).entropy(MU, SIGMA), GAUSSIAN.entropy(MU, SIGMA)
    )
    np.testing.assert_allclose(CLIPPED.probs(LOGITS, action_spec=None), SOFTMAX.probs(LOGITS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: core.categorical_cross_entropy(LABELS[..., :2], LOGITS),
            "'logits' must have the shape of 'labels'",
        ),
        (lambda: core.categorical_kl_divergence(LOGITS, OTHER[:1]), "'q_logits'"),
        (
            lambda: core.categorical_importance_sampling_ratios(LOGITS, OTHER[:1], ACTIONS),
            "'mu_logits_t'",
        ),
        (lambda: core.softmax().logprob(ACTIONS[:1], LOGITS), "'sample' must have shape"),
        (lambda: core.softmax(np.ones(3)).probs(LOGITS), "'temperature'"),
        (lambda: core.epsilon_greedy(np.ones(3)).probs(LOGITS), "'epsilon'"),
        (lambda: core.softmax().probs(1.0), "'logits'"),
        (lambda: core.clipped_entropy_softmax(1.0, np.ones(A)).entropy(LOGITS), "'entropy_clip'"),
        (
            lambda: core.squashed_gaussian(np.zeros(D)).entropy(MU, SIGMA),
            "'sigma_min' must be a scalar",
        ),
        (lambda: GAUSSIAN.logprob(VALUE[..., :1], MU, SIGMA), "'sample'"),
        (lambda: GAUSSIAN.entropy(MU, SIGMA[0]), "'sigma'"),
        (
            lambda: core.multivariate_normal_kl_divergence(MU, SIGMA, MU_1, SIGMA[..., :1]),
            "'sigma_1'",
        ),
        (lambda: core.multivariate_normal_kl_divergence(MU, SIGMA, MU_1[:1], SIGMA), "'mu_1'"),
        (
            lambda: SQUASHED.sample(
                KEY, MU, SIGMA, SimpleNamespace(minimum=np.zeros(2), maximum=1.0)
            ),
            "'action_spec.minimum'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_what_is_missing_or_of_the_wrong_kind():
    with pytest.raises(ValueError, match="'epsilon' is missing"):
        core.epsilon_greedy().probs(LOGITS)
    with pytest.raises(ValueError, match="'sigma' is missing"):
        core.gaussian_diagonal().entropy(MU)
    with pytest.raises(TypeError, match="integer action indices"):
        core.softmax().logprob(ACTIONS.astype(float), LOGITS)
    assert np.isnan(core.softmax().logprob(np.array([A, -1]), LOGITS[0, :2])).all()
    assert core.greedy().kl is None and core.epsilon_greedy().kl is None


@pytest.mark.slow
def test_distrax_is_imported_only_by_policies():
    code = """
import importlib, pkgutil, sys
from agentzoo import core
for module in pkgutil.iter_modules(core.__path__):
    if module.name != "policies":
        importlib.import_module(f"agentzoo.core.{module.name}")
assert not {"distrax", "tensorflow_probability", "chex"} & set(sys.modules)
import agentzoo.core.policies
assert "distrax" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
