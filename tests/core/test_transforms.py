import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import transforms
from agentzoo.core._operator import ShapeError

HOW = [lambda f: f, jax.jit, jax.vmap]
HOW_IDS = ["plain", "jit", "vmap"]
INVERSES = [
    (transforms.identity, transforms.identity),
    (transforms.signed_logp1, transforms.signed_expm1),
    (transforms.signed_hyperbolic, transforms.signed_parabolic),
    (lambda x: transforms.signed_hyperbolic(x, 0), lambda x: transforms.signed_parabolic(x, 0)),
    (transforms.hyperbolic_arcsin, transforms.hyperbolic_sin),
    (lambda x: transforms.power(x, 0.5), lambda x: transforms.power(x, 2)),
    (lambda x: transforms.power(x, 0.3), lambda x: transforms.power(x, 1 / 0.3)),
]


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
def test_values_by_hand(how):
    x = np.array([-3.0, 0.0, 8.0], np.float32)
    np.testing.assert_allclose(how(transforms.identity)(x), x)
    np.testing.assert_allclose(how(transforms.signed_hyperbolic)(x), [-1.003, 0, 2.008], rtol=1e-6)
    np.testing.assert_allclose(
        how(transforms.signed_parabolic)(np.array([-1.003, 0.0, 2.008], np.float32)), x, rtol=1e-6
    )
    np.testing.assert_allclose(how(lambda x: transforms.signed_parabolic(x, 0))(x), [-15, 0, 80])
    np.testing.assert_allclose(
        how(transforms.signed_logp1)(x), [-np.log(4), 0, np.log(9)], rtol=1e-6
    )
    np.testing.assert_allclose(
        how(transforms.signed_expm1)(x), [1 - np.e**3, 0, np.e**8 - 1], rtol=1e-6
    )
    np.testing.assert_allclose(
        how(lambda x: transforms.power(x, 4))(x),
        [-0.5 * (2.5**4 - 1), 0, 0.5 * (5**4 - 1)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(how(transforms.sigmoid)(x), [0.04742587, 0.5, 0.99966465], rtol=1e-6)
    np.testing.assert_allclose(
        how(transforms.logit)(np.array([0.25, 0.5, 0.75], np.float32)),
        [-np.log(3), 0, np.log(3)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        how(transforms.hyperbolic_sin)(x), [-10.017875, 0, 1490.4789], rtol=1e-6
    )
    np.testing.assert_allclose(
        how(transforms.hyperbolic_arcsin)(x), [-1.8184465, 0, 2.776472], rtol=1e-6
    )


@pytest.mark.parametrize(("there", "back"), INVERSES)
def test_round_trips_of_every_magnitude(there, back):
    x = np.geomspace(1e-30, 1e12, 1001).astype(np.float32)
    x = np.concatenate([-x, [0], x]).astype(np.float32)
    # The inverse multiplies the rounding error of a squashed value by at most the logarithm of x.
    np.testing.assert_allclose(back(there(x)), x, rtol=1e-5)


def test_small_values_survive_the_hyperbolic_round_trip():
    x = np.array([1e-3, 1e-2, 1e-20], np.float32)  # RLax has errors of 2.3e-2, 2.6e-3, 1
    np.testing.assert_allclose(
        transforms.signed_parabolic(transforms.signed_hyperbolic(x)), x, rtol=5e-7
    )


@pytest.mark.parametrize(("there", "back"), INVERSES)
def test_slopes_at_zero_are_those_beside_it(there, back):
    for f in (there, back):
        at_zero, beside = jax.vmap(jax.grad(f))(jnp.array([0.0, 1e-6]))
        np.testing.assert_allclose(at_zero, beside, rtol=1e-4)
        assert at_zero > 0.4


@pytest.mark.parametrize(
    "name", ["sigmoid", "logit", "hyperbolic_sin", "hyperbolic_arcsin", "signed_parabolic", "power"]
)
def test_gradients_of_all_arguments_are_those_of_finite_differences(name):
    f = getattr(transforms, name)
    x = np.array([0.1, 0.4, 0.9])
    arguments = {"signed_parabolic": (x, 0.2), "power": (x, 0.7)}.get(name, (x,))
    for i in range(len(arguments)):
        found = jax.grad(lambda *a: f(*a).sum(), argnums=i)(
            *(jnp.asarray(a, jnp.float32) for a in arguments)
        )
        shifted = [
            [a + (sign * 1e-2 if i == j else 0) for j, a in enumerate(arguments)]
            for sign in (1, -1)
        ]
        difference = (np.asarray(f(*shifted[0])) - np.asarray(f(*shifted[1]))) / 2e-2
        np.testing.assert_allclose(found, difference if i == 0 else difference.sum(), rtol=5e-3)


def test_higher_derivatives():
    second = jax.vmap(jax.grad(jax.grad(transforms.hyperbolic_sin)))(jnp.array([-0.5, 2.0]))
    np.testing.assert_allclose(second, np.sinh([-0.5, 2.0]), rtol=1e-5)
    second = jax.vmap(jax.grad(jax.grad(transforms.hyperbolic_arcsin)))(jnp.array([-0.5, 2.0]))
    np.testing.assert_allclose(second, [0.5 / 1.25**1.5, -2 / 5**1.5], rtol=1e-5)
    second = jax.grad(jax.grad(transforms.signed_parabolic))(3.0)
    slope = jax.grad(transforms.signed_parabolic)
    np.testing.assert_allclose(second, (slope(3.01) - slope(2.99)) / 0.02, rtol=1e-3)


def test_outside_the_domain_is_nan_and_at_its_ends_infinite():
    np.testing.assert_array_equal(
        transforms.logit(np.array([-0.1, 0.0, 1.0, 1.5])), [np.nan, -np.inf, np.inf, np.nan]
    )
    np.testing.assert_array_equal(
        jax.vmap(jax.grad(transforms.logit))(jnp.array([0.0, 1.0])), [np.inf, np.inf]
    )
    for f in (
        transforms.signed_logp1,
        transforms.signed_hyperbolic,
        transforms.signed_parabolic,
        transforms.sigmoid,
    ):
        assert np.isnan(f(np.nan))


def test_integers_promote_and_narrow_floats_stay():
    assert transforms.signed_logp1(3).dtype == jnp.float32
    assert transforms.identity(np.array([1, 2])).dtype == jnp.float32
    for f in (
        transforms.sigmoid,
        transforms.signed_hyperbolic,
        transforms.hyperbolic_sin,
        transforms.hyperbolic_arcsin,
    ):
        assert f(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
        assert jax.jit(jax.grad(f))(jnp.bfloat16(1)).dtype == jnp.bfloat16
    assert transforms.transform_to_2hot(jnp.bfloat16(0.3), -1, 1, 601).dtype == jnp.bfloat16
    assert transforms.power(jnp.ones(2, jnp.bfloat16), 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "f", [transforms.signed_hyperbolic, transforms.signed_parabolic, transforms.power]
)
def test_parameters_broadcast_only_as_scalars(f):
    x = np.array([1.0, 4.0])
    np.testing.assert_allclose(f(x, np.array([0.5, 0.25])), [f(1.0, 0.5), f(4.0, 0.25)], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(f)(x, 0.5), f(x, 0.5), rtol=1e-6)
    with pytest.raises(ShapeError, match=r"'eps'|'p'"):
        f(x, np.ones(1))


# Encodings.

ENCODINGS = [
    (transforms.transform_to_2hot, transforms.transform_from_2hot),
    (transforms.transform_to_hl_gauss, transforms.transform_from_hl_gauss),
]


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
def test_two_hot_by_hand(how):
    x = np.array([-5.0, -1.0, -0.4, 0.0, 0.3, 1.0, 9.0], np.float32)
    expected = [
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0.8, 0.2, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0.4, 0.6, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(
        how(lambda x: transforms.transform_to_2hot(x, -1, 1, 5))(x), expected, atol=1e-6
    )
    decoded = how(lambda p: transforms.transform_from_2hot(p, -1, 1, 5))(
        np.array(expected, np.float32)
    )
    np.testing.assert_allclose(decoded, np.clip(x, -1, 1), atol=1e-6)


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
def test_hl_gauss_against_the_error_function(how):
    from scipy.special import erf

    x = np.array([-9.0, -0.8, 0.1, 1.0], np.float32)
    edges = np.linspace(-1, 1, 7)
    cdf = erf((edges - np.clip(x, -1, 1)[:, None]) / (np.sqrt(2) * 0.5 * (edges[1] - edges[0])))
    expected = np.diff(cdf) / (cdf[:, -1:] - cdf[:, :1])
    np.testing.assert_allclose(
        how(lambda x: transforms.transform_to_hl_gauss(x, -1, 1, 6, 0.5))(x), expected, atol=3e-7
    )


@pytest.mark.parametrize(
    ("low", "high", "bins"), [(-0.01, 0.01, 601), (-1, 1, 601), (-300, 300, 601), (0, 1, 2)]
)
def test_two_hot_loses_nothing_of_narrow_bins(low, high, bins):
    x = np.linspace(low, high, 3001, dtype=np.float32)
    decoded = transforms.transform_from_2hot(
        transforms.transform_to_2hot(x, low, high, bins), low, high, bins
    )
    np.testing.assert_allclose(decoded, x, rtol=3e-7, atol=1e-7 * (high - low) / (bins - 1))


@pytest.mark.parametrize(("encode", "decode"), ENCODINGS)
@settings(deadline=None, max_examples=8)
@given(st.floats(-3, 3), st.sampled_from([1, 2, 7]), st.sampled_from([(), (2,), (2, 3)]))
def test_encodings_are_distributions_of_any_shape(encode, decode, value, bins, shape):
    probs = encode(jnp.full(shape, value), -2.0, 2.0, bins)
    assert probs.shape == (*shape, bins)
    assert np.all(np.asarray(probs) >= 0)
    np.testing.assert_allclose(probs.sum(-1), np.ones(shape), atol=1e-6)
    assert decode(probs, -2.0, 2.0, bins).shape == shape  # a scalar stays a scalar


def test_hl_gauss_means_its_scalar_away_from_the_ends():
    x = np.linspace(-8, 8, 101, dtype=np.float32)
    decoded = transforms.transform_from_hl_gauss(
        transforms.transform_to_hl_gauss(x, -10, 10, 51), -10, 10, 51
    )
    np.testing.assert_allclose(decoded, x, atol=2e-3)
    x = np.array([-np.inf, -1e30, 1e30, np.inf], np.float32)
    assert np.isfinite(transforms.transform_to_hl_gauss(x, -10, 10, 51)).all()


@pytest.mark.parametrize(("encode", "decode"), ENCODINGS)
def test_gradients_through_encodings(encode, decode):
    # None of these is an atom, because the slope of two-hot changes there.
    x = np.array([-1.7, -0.5, 0.01, 1.2], np.float32)

    @jax.jit
    def mean(x):
        return decode(encode(x, -2, 2, 9), -2, 2, 9)

    slopes = jax.jit(jax.vmap(jax.grad(mean)))
    np.testing.assert_allclose(slopes(x), (mean(x + 1e-2) - mean(x - 1e-2)) / 2e-2, rtol=2e-3)
    np.testing.assert_array_equal(slopes(np.array([-3, -9, 3, 9], np.float32)), np.zeros(4))


def test_encodings_of_narrow_floats_tell_hundreds_of_bins_apart():
    probs = transforms.transform_to_2hot(jnp.bfloat16(0.5), -1, 1, 601)
    assert np.count_nonzero(probs) <= 2
    np.testing.assert_allclose(transforms.transform_from_2hot(probs, -1, 1, 601), 0.5, rtol=1e-2)


@pytest.mark.parametrize(("encode", "decode"), ENCODINGS)
def test_bad_bins(encode, decode):
    with pytest.raises(ValueError, match="'num_bins' is 0"):
        encode(0.0, -1, 1, 0)
    with pytest.raises(ShapeError, match="'max_value' must be a scalar"):
        encode(np.zeros(2), -1, np.ones(2), 4)
    with pytest.raises(ShapeError, match="'min_value' must be a scalar"):
        decode(np.ones((2, 4)), np.zeros(2), 1, 4)
    with pytest.raises(ShapeError, match="'num_bins' 4"):
        decode(np.ones(3), -1, 1, 4)
    with pytest.raises(ShapeError, match="'probs'"):
        decode(1.0, -1, 1, 4)
    with pytest.raises(TypeError, match="'num_bins' must be a Python value"):
        jax.jit(lambda n: encode(0.0, -1, 1, n))(4)
    bounds_are_traced = jax.jit(encode, static_argnums=3)
    assert bounds_are_traced(0.0, -1.0, 1.0, 4).shape == (4,)


# Bounds of the errors of values and gradients in the accuracy benchmark, in units of one rounding
# to float32. A well-conditioned number takes about ten operations, and each operation rounds once.

ROUNDING, WELL = 2.0**-24, 16
BOUNDS = {
    # The slope of the mean is a sum in which centres up to 300 widths from 0 cancel. Their sizes
    # add up to 1200 times the smallest slope. The mean itself is a sum over 601 bins, which the
    # compiler of the tests adds one after another.
    "hl_gauss_pair": (4 * WELL, 4 * 1200),
    # The slope is the difference of two products with neighbouring atoms, up to 300 widths from 0.
    "muzero_pair": (WELL, 4 * 300),
    # A slope is 1 / temperature = 10 times a probability, which has the error of its logarithm.
    "softmax(0.1).logprob": (WELL, 4 * 10),
    "clipped_entropy_softmax(0.1).logprob": (WELL, 4 * 10),
    "Softmax(_": (WELL, 4 * 10),
    "ClippedEntropySoftmax(_": (WELL, 4 * 10),
    # The policy is stored as logarithms down to -85. Their rounding errors count 85 times in the
    # probabilities from which a slope is computed.
    "EpsilonGreedy.log_prob": (WELL, 85 + WELL),
    # Three logarithms of up to 42 may cancel against a square of that size.
    "gaussian_diagonal().logprob": (4 * 125, WELL),
    "DiagonalGaussian.log_prob": (4 * 125, WELL),
    # As above, with logarithms of the slope of tanh, -2 |u|. Three of them add up to about 40.
    # `sample_and_log_prob` also has `tanh(u)` of a sum in which 16 may cancel.
    "TanhGaussian.log_prob_pre_tanh": (4 * 40, WELL),
    "TanhGaussian.sample_and_log_prob": (4 * 40, 4 * 16),
    # A rounding error of u = atanh(action), up to 9, counts 1 / std times, which is 100, or e^4 in
    # `squashed_gaussian`.
    "TanhGaussian.log_prob": (4 * 900, 4 * 900),
    "squashed_gaussian().logprob": (4 * 500, 4 * 500),
}


def _accuracy():
    spec = importlib.util.spec_from_file_location(
        "accuracy", Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_accuracy_over_the_whole_domain():
    rows = list(_accuracy().rows(20_000))
    assert len(rows) > 45
    for row in rows:
        bound, slope_bound = BOUNDS.get(row.name.split(",")[0], (WELL, WELL))
        assert row.error <= bound * ROUNDING, row
        assert row.slope_error <= slope_bound * ROUNDING, row
        assert row.not_finite == row.slopes_not_finite == 0, row
