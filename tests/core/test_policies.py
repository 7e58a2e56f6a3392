import math

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import ShapeError, policies
from agentzoo.core import distributions as d

RNG = np.random.default_rng(0)
LOGITS, OTHER = RNG.normal(size=(2, 6, 4))
PREFERENCES = np.round(LOGITS)
MASK = np.array([[True, False, True, True]] * 6)
MEAN, MEAN_1 = RNG.normal(size=(2, 6, 3))
HIGH = np.array([1.0, 2.0, 3.0])
STD, STD_1 = np.exp(0.5 * RNG.normal(size=(2, 6, 3)))
KEY = jax.random.key(0)

MAKE = {
    "Categorical": lambda: policies.Categorical(LOGITS),
    "Categorical, masked": lambda: policies.Categorical(LOGITS, MASK),
    "Softmax": lambda: policies.Softmax(LOGITS, 0.5, MASK),
    "ClippedEntropySoftmax": lambda: policies.ClippedEntropySoftmax(LOGITS, 0.5, 0.9, MASK),
    "EpsilonGreedy": lambda: policies.EpsilonGreedy(PREFERENCES, 0.3, MASK),
    "Greedy": lambda: policies.Greedy(PREFERENCES),
    "MultiCategorical": lambda: policies.MultiCategorical(LOGITS, [1, 3], MASK),
    "Bernoulli": lambda: policies.Bernoulli(LOGITS, MASK),
    "DiagonalGaussian": lambda: policies.DiagonalGaussian(MEAN, STD),
    "TanhGaussian": lambda: policies.TanhGaussian(
        0.5 * MEAN, 0.3 * STD, -2.0, HIGH
    ),  # away from the bounds
}
EVENTS = {
    "MultiCategorical": (2,),
    "Bernoulli": (4,),
    "DiagonalGaussian": (3,),
    "TanhGaussian": (3,),
}


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


@pytest.mark.parametrize("name", MAKE)
@jax.numpy_rank_promotion("raise")
def test_interface(name):
    """Every policy has the right shapes and consistent methods, and is a pytree."""
    policy, event = MAKE[name](), EVENTS.get(name, ())
    assert isinstance(policy, distrax.Distribution)
    assert policy.event_shape == event and policy.batch_shape == (6,)

    @jax.jit
    def use(policy):
        sample, log_prob = policy.sample_and_log_prob(seed=KEY, sample_shape=(500,))
        again = policy.log_prob(sample), jnp.log(policy.prob(sample)), MAKE[name]().log_prob(sample)
        return (
            sample,
            log_prob,
            again,
            policy.mode(),
            policy.entropy(),
            policy.kl_divergence(policy),
            policy,
        )

    sample, log_prob, again, mode, entropy, kl, returned = use(policy)
    one = jax.eval_shape(lambda: policy.sample(seed=KEY))
    assert (
        sample.shape == (500, 6, *event)
        and log_prob.shape == (500, 6)
        and sample.dtype == policy.dtype
    )
    assert one.shape == mode.shape == (6, *event) and entropy.shape == kl.shape == (6,)
    for other in again:
        np.testing.assert_allclose(other, log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kl, np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(returned.mode(), mode, rtol=1e-6, atol=1e-6)
    if name != "ClippedEntropySoftmax":
        standard_error = np.std(log_prob, axis=0) / math.sqrt(500)
        np.testing.assert_array_less(
            np.abs(-np.mean(log_prob, axis=0) - entropy), 5 * standard_error + 1e-5
        )


def test_a_temperature_costs_no_digits_of_large_logits():
    logits, scaled = np.float32([1e4, 1e4 + 1 / 64, 3e4]), np.array([0, 1 / 64]) / 0.07
    policy = policies.Softmax(logits, 0.07, mask=np.array([True, True, False]))
    np.testing.assert_allclose(policy.probs[:2], np.exp(scaled) / np.exp(scaled).sum(), rtol=1e-6)


@pytest.mark.slow
def test_they_are_what_the_functions_say():
    masked = np.where(MASK, LOGITS, -np.inf)
    preferences = np.where(MASK, PREFERENCES, -np.inf)
    pairs = [
        (policies.Categorical(LOGITS, MASK), d.softmax(), masked),
        (policies.Softmax(LOGITS, 0.5, MASK), d.softmax(0.5), masked),
        (
            policies.ClippedEntropySoftmax(LOGITS, 0.5, 0.7),
            d.clipped_entropy_softmax(0.5, 0.7),
            LOGITS,
        ),
        (policies.Greedy(PREFERENCES, MASK), d.greedy(), preferences),
        (policies.EpsilonGreedy(PREFERENCES, 0.3, MASK), d.epsilon_greedy(0.3), preferences),
    ]
    for policy, functions, x in pairs:
        np.testing.assert_allclose(policy.probs, functions.probs(x), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(policy.entropy(), functions.entropy(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(policy.sample(seed=KEY), functions.sample(KEY, x))
    gaussian = policies.DiagonalGaussian(MEAN, STD)
    np.testing.assert_allclose(
        gaussian.log_prob(MEAN_1), d.gaussian_diagonal().logprob(MEAN_1, MEAN, STD), rtol=1e-5
    )
    np.testing.assert_allclose(
        gaussian.entropy(), d.gaussian_diagonal().entropy(MEAN, STD), rtol=1e-5
    )


def test_they_work_with_distrax():
    ours, theirs = policies.Categorical(LOGITS), distrax.Categorical(logits=OTHER)
    expected = np.sum(
        np.exp(log_softmax(LOGITS)) * (log_softmax(LOGITS) - log_softmax(OTHER)), axis=-1
    )
    np.testing.assert_allclose(ours.kl_divergence(theirs), expected, rtol=1e-5)
    gaussian = policies.DiagonalGaussian(MEAN, STD)
    np.testing.assert_allclose(
        gaussian.kl_divergence(distrax.Independent(distrax.Normal(MEAN, STD), 1)),
        np.zeros(6),
        atol=1e-6,
    )
    both = distrax.Joint((ours, gaussian))
    assert jax.eval_shape(lambda: both.log_prob(both.sample(seed=KEY))).shape == (6,)
    with pytest.raises(NotImplementedError):
        policies.TanhGaussian(MEAN, STD).kl_divergence(gaussian)


def test_clipped_entropy_is_relative_to_the_legal_actions():
    policy = policies.ClippedEntropySoftmax(
        np.zeros((2, 4)), entropy_clip=0.5, mask=np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    )
    np.testing.assert_allclose(policy.entropy(), 0.5 * np.log([4, 2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "illegal"),
    [
        (policies.Categorical, 1),
        (lambda x, mask=None: policies.Softmax(x, 0.5, mask), 1),
        (lambda x, mask=None: policies.ClippedEntropySoftmax(x, 1.0, 0.99, mask), 1),
        (lambda x, mask=None: policies.EpsilonGreedy(x, 0.5, mask), 1),
        (policies.Greedy, 1),
        (lambda x, mask=None: policies.MultiCategorical(x, [2, 3], mask), np.array([1, 0])),
        (policies.Bernoulli, np.array([0, 1, 0, 0, 0])),
    ],
    ids=[
        "Categorical",
        "Softmax",
        "ClippedEntropySoftmax",
        "EpsilonGreedy",
        "Greedy",
        "MultiCategorical",
        "Bernoulli",
    ],
)
def test_illegal_actions(make, illegal):
    mask = np.array([True, False, True, True, True])
    logits = jnp.array([0.3, 5.0, -1.0, 0.2, 0.0])

    def policy(x):
        return make(x, mask)

    @jax.jit
    def use(x):
        other = policy(-logits)
        samples = policy(x).sample(seed=KEY, sample_shape=300)
        functions = {
            "entropy": lambda x: policy(x).entropy(),
            "log_prob": lambda x: policy(x).log_prob(samples[0]),
            "kl of itself": lambda x: policy(x).kl_divergence(policy(x)),
            # Greedy policies with different preferences share no action.
            "kl": lambda x: (
                0.0 * x[0]
                if make is policies.Greedy
                else policy(x).kl_divergence(other) + other.kl_divergence(policy(x))
            ),
        }
        results = {name: jax.value_and_grad(function)(x) for name, function in functions.items()}
        raw = make(jnp.where(mask, x, -jnp.inf)).log_prob(samples)
        return (
            samples,
            policy(x).log_prob(samples),
            raw,
            policy(x).log_prob(illegal),
            policy(x).mode(),
            results,
        )

    samples, log_probs, raw, of_illegal, mode, results = use(logits)
    np.testing.assert_array_equal(log_probs, raw)
    assert of_illegal == -np.inf
    assert not (samples == illegal).reshape(300, -1).all(-1).any()
    assert np.isfinite(log_probs).all()
    assert not np.all(mode == illegal)
    for name, (value, gradient) in results.items():
        assert np.isfinite(value) and np.isfinite(gradient).all() and gradient[1] == 0, name


def test_gradients_through_raw_infinite_logits_are_finite():
    logits = jnp.array([0.3, -jnp.inf, -1.0])
    for make in (
        policies.Categorical,
        policies.Bernoulli,
        lambda x: policies.MultiCategorical(x, [3]),
    ):
        for function in (lambda p: p.entropy(), lambda p, make=make: p.kl_divergence(make(logits))):
            assert np.isfinite(
                jax.jit(jax.grad(lambda x, f=function, m=make: f(m(x))))(logits)
            ).all()


def test_multi_categorical_is_a_product_of_choices():
    policy = policies.MultiCategorical(np.concatenate([LOGITS, OTHER[:, :2]], axis=-1), [4, 2])
    first, second = log_softmax(LOGITS), log_softmax(OTHER[:, :2])
    actions = np.stack([np.arange(6) % 4, np.arange(6) % 2], axis=-1)
    expected = first[np.arange(6), actions[:, 0]] + second[np.arange(6), actions[:, 1]]
    np.testing.assert_allclose(policy.log_prob(actions), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        policy.mode(), np.stack([LOGITS.argmax(-1), OTHER[:, :2].argmax(-1)], axis=-1)
    )
    np.testing.assert_allclose(
        policy.entropy(),
        -(np.exp(first) * first).sum(-1) - (np.exp(second) * second).sum(-1),
        rtol=1e-5,
    )


def test_bernoulli_is_independent_bits():
    policy, p = policies.Bernoulli(LOGITS), 1 / (1 + np.exp(-LOGITS))
    bits = LOGITS > OTHER
    np.testing.assert_allclose(
        policy.log_prob(bits.astype(int)), np.log(np.where(bits, p, 1 - p)).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        policy.entropy(), -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1), rtol=1e-5
    )
    np.testing.assert_array_equal(policy.mode(), LOGITS > 0)


def test_divergence_of_nearly_equal_gaussians_keeps_its_digits():
    mean = np.array([[1000.0, -3.0]], np.float32)
    expected = 2 * (np.log(1.001) + 1 / (2 * 1.001**2) - 0.5)
    kl = policies.DiagonalGaussian(mean, 1.0).kl_divergence(
        policies.DiagonalGaussian(mean, np.float32(1.001))
    )
    np.testing.assert_allclose(kl, [expected], rtol=2e-3)


# The tanh Gaussian, against float64.

BOUNDS = [(-1.0, 1.0), (100.0, 101.0), (-1000.0, 1000.0)]


def tanh_log_prob(u, mean, std, low, high):
    """Return the log-density for a value before the tanh, in float64."""
    u, mean, std = (np.asarray(x, np.float64) for x in (u, mean, std))
    log_slope = np.log((high - low) / 2) + 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    return np.sum(
        -(((u - mean) / std) ** 2) / 2 - np.log(std * np.sqrt(2 * np.pi)) - log_slope, axis=-1
    )


def tanh_entropy(mean, std, low=-1.0, high=1.0):
    """Return the entropy by the midpoint rule, in float64."""
    z = (np.arange(20_000) + 0.5) / 20_000 * 24 - 12
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * 24 / 20_000
    u = mean + std * z
    return (
        np.log(std * np.sqrt(2 * np.pi * np.e))
        + np.log((high - low) / 2)
        + np.sum(density * 2 * (np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u)))))
    )


@pytest.mark.parametrize(("low", "high"), BOUNDS)
@pytest.mark.parametrize("log_std", [(-4, 0), (-4, 2), (-20, 2)])
def test_tanh_gaussian_log_prob_of_its_own_samples_is_exact(low, high, log_std):
    n = 100_000
    rng = np.random.default_rng(1)
    mean = (3 * rng.normal(size=(n, 1))).astype(np.float32)
    std = np.exp(rng.uniform(*log_std, size=(n, 1))).astype(np.float32)
    policy = policies.TanhGaussian(mean, std, low, high)
    action, log_prob = policy.sample_and_log_prob(seed=KEY)
    noise = np.asarray(jax.random.normal(KEY, (1, n, 1))[0], np.float64)
    expected = tanh_log_prob(mean + std * noise, mean, std, low, high)
    assert np.max(np.abs(log_prob - expected)) < 1e-5
    assert ((action >= np.float32(low)) & (action <= np.float32(high))).all()
    assert np.isfinite(policy.log_prob(action)).all()


@pytest.mark.slow
def test_tanh_gaussian_log_prob_of_actions_away_from_the_bounds():
    u = np.linspace(-3, 3, 61)[:, None]
    for low, high in ((-1.0, 1.0), (-1000.0, 1000.0)):
        policy = policies.TanhGaussian(np.full_like(u, 0.3), 0.8, low, high)
        action = np.float32(low + (high - low) * (np.tanh(u) + 1) / 2)
        exact_u = np.arctanh(2 * (np.float64(action) - low) / (high - low) - 1)
        np.testing.assert_allclose(
            policy.log_prob(action), tanh_log_prob(exact_u, 0.3, 0.8, low, high), atol=3e-5
        )
        np.testing.assert_allclose(
            policy.log_prob_pre_tanh(u), tanh_log_prob(u, 0.3, 0.8, low, high), atol=1e-5
        )
        np.testing.assert_allclose(
            policy.squash(u), low + (high - low) * (np.tanh(u) + 1) / 2, rtol=1e-5, atol=1e-3
        )


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_tanh_gaussian_never_returns_what_is_not_finite(low, high):
    mean, log_std = (
        x.astype(np.float32)[:, None]
        for x in (RNG.uniform(-50, 50, 2000), RNG.uniform(-20, 5, 2000))
    )
    edges = [
        low,
        high,
        low - 1,
        high + 1,
        *np.nextafter(np.array([low, high], np.float32), np.float32([high, low])),
    ]
    actions = np.concatenate([edges, RNG.uniform(low, high, 1994)])[:, None].astype(np.float32)

    def own(mean, log_std):
        action, log_prob = policies.TanhGaussian(
            mean, jnp.exp(log_std), low, high
        ).sample_and_log_prob(seed=KEY)
        return action.sum() + log_prob.sum()

    def foreign(mean, log_std, actions):
        return policies.TanhGaussian(mean, jnp.exp(log_std), low, high).log_prob(actions).sum()

    def entropy(mean, log_std):
        return policies.TanhGaussian(mean, jnp.exp(log_std), low, high).entropy().sum()

    for function, arguments in (
        (own, (mean, log_std)),
        (foreign, (mean, log_std, actions)),
        (entropy, (mean, log_std)),
    ):
        value, gradients = jax.jit(jax.value_and_grad(function, tuple(range(len(arguments)))))(
            *arguments
        )
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients), (
            function.__name__
        )


@pytest.mark.slow
def test_tanh_gaussian_entropy_is_that_of_the_squashed_action():
    np.testing.assert_allclose(
        policies.TanhGaussian(np.ones(1), 1.0).entropy(), 0.0926, atol=1e-4
    )  # before the tanh it is 1.419
    means = np.array([0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 9.0, 30.0])
    stds = np.array([1e-6, 1e-2, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 20.0, 100.0])
    expected = np.array([[tanh_entropy(mean, std, -1000, 1000) for std in stds] for mean in means])
    mean, std = np.broadcast_arrays(means[:, None, None], stds[:, None])
    entropy = jax.jit(lambda mean: policies.TanhGaussian(mean, std, -1000, 1000).entropy())
    np.testing.assert_allclose(entropy(mean), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(entropy(-mean), expected, rtol=2e-6, atol=2e-6)


def test_tanh_gaussian_entropy_gradients():
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: policies.TanhGaussian(x[:1], x[1:]).entropy())))
    points = np.array([(0.5, 1.0), (2.0, 0.3), (0.0, 5.0), (3.0, 3.0), (-1.0, 0.01)])
    step = 1e-5
    expected = [
        [
            (tanh_entropy(m + step, s) - tanh_entropy(m - step, s)) / (2 * step),
            (tanh_entropy(m, s + step) - tanh_entropy(m, s - step)) / (2 * step),
        ]
        for m, s in points
    ]
    np.testing.assert_allclose(gradient(points.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


def test_tanh_gaussian_divergence_is_invariant_and_needs_the_same_bounds():
    one, other = (
        policies.TanhGaussian(MEAN, STD, -2, 3),
        policies.TanhGaussian(MEAN_1, STD_1, -2, 3),
    )
    expected = np.sum(
        np.log(STD_1 / STD) + (STD**2 + (MEAN - MEAN_1) ** 2) / (2 * STD_1**2) - 0.5, axis=-1
    )
    np.testing.assert_allclose(one.kl_divergence(other), expected, rtol=1e-4)
    assert np.isnan(one.kl_divergence(policies.TanhGaussian(MEAN, STD, -2, 4))).all()
    # The KL is the mean difference of the log-probabilities.
    u = MEAN + STD * RNG.normal(size=(20_000, 6, 3))
    difference = one.log_prob_pre_tanh(u) - other.log_prob_pre_tanh(u)
    np.testing.assert_array_less(
        np.abs(np.mean(difference, axis=0) - expected),
        5 * np.std(difference, axis=0) / math.sqrt(20_000),
    )


def test_tanh_gaussian_reaches_its_bounds():
    policy = policies.TanhGaussian(
        np.array([4.0, -4.0]), 0.1, low=np.array([-1.0, 10.0]), high=np.array([2.0, 20.0])
    )
    np.testing.assert_allclose(policy.mode(), [2.0, 10.0], atol=0.01)
    # RLax's squashed Gaussian stops at tanh(1) = 0.76 of the way.


def test_tanh_gaussian_reparametrised_gradient():
    """Gradients of samples and log-probabilities agree with finite differences in float64."""
    mean, std = np.array([0.3, -1.2]), np.array([0.5, 1.5])
    noise = np.asarray(jax.random.normal(KEY, (1, 2))[0], np.float64)

    def oracle(mean, std):
        u = mean + std * noise
        return np.sum(np.tanh(u)) + tanh_log_prob(u, mean, std, -1.0, 1.0)

    def ours(mean, std):
        action, log_prob = policies.TanhGaussian(mean, std).sample_and_log_prob(seed=KEY)
        return action.sum() + log_prob

    np.testing.assert_allclose(ours(mean, std), oracle(mean, std), rtol=1e-5)
    gradients = jax.jit(jax.grad(ours, (0, 1)))(mean.astype(np.float32), std.astype(np.float32))
    for i, step in enumerate(1e-6 * np.eye(2)):
        np.testing.assert_allclose(
            gradients[0][i],
            (oracle(mean + step, std) - oracle(mean - step, std)) / 2e-6,
            rtol=1e-3,
            atol=1e-4,
        )
        np.testing.assert_allclose(
            gradients[1][i],
            (oracle(mean, std + step) - oracle(mean, std - step)) / 2e-6,
            rtol=1e-3,
            atol=1e-4,
        )


def test_returned_by_vmap_and_carried_by_scan():
    made = jax.vmap(lambda mean: policies.TanhGaussian(mean, 0.5, -2.0, HIGH))(jnp.asarray(MEAN))
    np.testing.assert_allclose(
        made.mode(), policies.TanhGaussian(MEAN, 0.5, -2.0, HIGH).mode(), rtol=1e-6, atol=1e-6
    )
    entropies = jax.lax.scan(
        lambda carry, x: (carry, policies.DiagonalGaussian(x, carry).entropy()),
        jnp.float32(0.5),
        MEAN,
    )[1]
    np.testing.assert_allclose(entropies, policies.DiagonalGaussian(MEAN, 0.5).entropy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: policies.Categorical(LOGITS, MASK[:, :2]), ShapeError, "Categorical: 'mask'"),
        (lambda: policies.Softmax(LOGITS, np.ones(2)), ShapeError, "Softmax: 'temperature'"),
        (lambda: policies.EpsilonGreedy(LOGITS, np.ones(2)), ShapeError, "'epsilon'"),
        (
            lambda: policies.MultiCategorical(LOGITS, [2, 3]),
            ShapeError,
            "'logits' must have 5 values",
        ),
        (
            lambda: policies.DiagonalGaussian(MEAN, STD[:, :1]),
            ShapeError,
            "DiagonalGaussian: 'std'",
        ),
        (lambda: policies.TanhGaussian(MEAN, STD, low=np.zeros(2)), ShapeError, "'low'"),
        (lambda: policies.TanhGaussian(MEAN, STD, 0.0, np.inf), ValueError, "both finite"),
        (
            lambda: jax.jit(lambda: policies.TanhGaussian(MEAN, STD, 1.0, 1.0))(),
            ValueError,
            "'low' must be below 'high'",
        ),
        (lambda: policies.TanhGaussian(1.0, 1.0), ShapeError, "'mean'"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
