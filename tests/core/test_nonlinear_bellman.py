import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import nonlinear_bellman as nb
from agentzoo.core import returns, transforms
from agentzoo.core._operator import ShapeError

T, B, A = 6, 3, 2
PAIRS = [nb.IDENTITY_PAIR, nb.SIGNED_LOGP1_PAIR, nb.SIGNED_HYPERBOLIC_PAIR, nb.HYPERBOLIC_SIN_PAIR]
PAIR_IDS = ["identity", "logp1", "hyperbolic", "sinh"]
EPS = 1e-3
EXACT = [  # the same in NumPy
    (lambda x: x, lambda x: x),
    (lambda x: np.sign(x) * np.log1p(np.abs(x)), lambda x: np.sign(x) * np.expm1(np.abs(x))),
    (
        lambda x: np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + EPS * x,
        lambda x: (
            np.sign(x) * (((np.sqrt(1 + 4 * EPS * (np.abs(x) + 1 + EPS)) - 1) / (2 * EPS)) ** 2 - 1)
        ),
    ),
    (np.arcsinh, np.sinh),
]
BOTH = pytest.mark.parametrize(
    ("pair", "exact"), list(zip(PAIRS, EXACT, strict=True)), ids=PAIR_IDS
)
HOW = [lambda f: f, jax.jit, lambda f: jax.vmap(f, 1, 1)]


def data(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "q_tm1": rng.normal(size=(T, B, A)),
        "a_tm1": rng.integers(A, size=(T, B)),
        "r_t": rng.normal(size=(T, B)),
        "discount_t": 0.9 * (rng.random((T, B)) < 0.8),
        "q_t": rng.normal(size=(T, B, A)),
        "a_t": rng.integers(A, size=(T, B)),
        "pi_t": rng.dirichlet(np.ones(A), size=(T, B)),
        "mu_t": rng.uniform(0.1, 1, (T, B)),
    }


def pick(values, index):
    return np.take_along_axis(values, index[..., None], -1)[..., 0]


def lambda_returns(r, discount, v, lam):
    g, result = v[-1], np.zeros_like(r)
    for t in reversed(range(T)):
        result[t] = g = r[t] + discount[t] * ((1 - lam) * v[t] + lam * g)
    return result


def n_step_returns(r, discount, v, n):
    result = np.zeros_like(r)
    for t in range(T):
        end = min(t + n, T)
        result[t] = v[end - 1]
        for k in reversed(range(t, end)):
            result[t] = r[k] + discount[k] * result[t]
    return result


def off_policy_returns(q, a, r, discount, c, pi):
    v, result = (pi * q).sum(-1), np.zeros_like(r)
    result[-1] = r[-1] + discount[-1] * v[-1]
    for t in reversed(range(T - 1)):
        result[t] = r[t] + discount[t] * (v[t] + c[t] * (result[t + 1] - pick(q, a)[t]))
    return result


@BOTH
def test_pairs_invert_each_other(pair, exact):
    x = np.linspace(-9, 9, 37, dtype=np.float32)
    np.testing.assert_allclose(pair.apply(x), exact[0](x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pair.apply_inv(pair.apply(x)), x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pair.apply(pair.apply_inv(x)), x, rtol=1e-5, atol=1e-6)


def test_discounts():
    discount = np.array([0.0, 1e-30, 1e-4, 0.5, 0.99], np.float32)
    there = nb.DISCOUNT_TRANSFORM_PAIR.apply(discount)
    np.testing.assert_allclose(there, -np.log1p(-discount.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(nb.DISCOUNT_TRANSFORM_PAIR.apply_inv(there), discount, rtol=1e-6)
    assert nb.DISCOUNT_TRANSFORM_PAIR.apply(0).dtype == jnp.float32


def test_composed_pairs_apply_in_order_and_invert_in_reverse():
    double = nb.TxPair(lambda x: 2 * x, lambda x: x / 2)
    add = nb.TxPair(lambda x: x + 1, lambda x: x - 1)
    pair = nb.compose_tx(double, add)
    assert pair.apply(3.0) == 7
    assert pair.apply_inv(7.0) == 3
    assert nb.compose_tx().apply(3.0) == 3


def test_muzero_pair_encodes_the_squashed_value():
    pair = nb.muzero_pair(-30, 30, 61, nb.SIGNED_HYPERBOLIC_PAIR)
    x = np.array([1.03, -500.0, 0.0], np.float32)
    probs = pair.apply(x)
    np.testing.assert_allclose(probs @ np.linspace(-30, 30, 61), EXACT[2][0](x), atol=1e-5)
    np.testing.assert_allclose(pair.apply_inv(probs), x, rtol=2e-6, atol=1e-6)


def test_unbiased_pair_takes_the_mean_of_the_values_themselves():
    pair = nb.unbiased_transform_pair(-30, 30, 61, nb.SIGNED_HYPERBOLIC_PAIR)
    x = np.array([1.03, -500.0, 0.0, 1e9], np.float32)
    probs = pair.apply(x)
    assert np.all(np.count_nonzero(probs, axis=-1) <= 2)
    np.testing.assert_allclose(pair.apply_inv(probs)[:3], x[:3], rtol=2e-6, atol=1e-6)
    atoms = EXACT[2][1](np.linspace(-30, 30, 61))
    np.testing.assert_allclose(pair.apply_inv(probs)[3], atoms[-1], rtol=1e-6)
    # Half of the weight is at 0 and half at the last atom. A mean in the squashed space would be
    # far less than half of the last atom.
    half = np.zeros(61, np.float32)
    half[[30, 60]] = 0.5
    np.testing.assert_allclose(pair.apply_inv(half), atoms[-1] / 2, rtol=1e-6)
    biased = nb.muzero_pair(-30, 30, 61, nb.SIGNED_HYPERBOLIC_PAIR)
    np.testing.assert_allclose(biased.apply_inv(half), EXACT[2][1](15.0), rtol=1e-6)


@pytest.mark.parametrize(
    "pair",
    [
        nb.twohot_pair(-2, 2, 11),
        nb.hl_gauss_pair(-2, 2, 11),
        nb.muzero_pair(-2, 2, 11, nb.SIGNED_LOGP1_PAIR),
        nb.unbiased_transform_pair(-2, 2, 11, nb.SIGNED_LOGP1_PAIR),
    ],
    ids=["twohot", "hl_gauss", "muzero", "unbiased"],
)
def test_encoding_pairs_keep_the_rank(pair):
    for shape in [(), (2,), (2, 3)]:
        probs = pair.apply(np.full(shape, 0.3))
        assert probs.shape == (*shape, 11)
        np.testing.assert_allclose(probs.sum(-1), np.ones(shape), rtol=1e-6)
        np.testing.assert_allclose(pair.apply_inv(probs), np.full(shape, 0.3), rtol=2e-3)
    assert jax.jit(pair.apply)(0.3).shape == (11,)
    assert pair.apply(jnp.bfloat16(0.3)).dtype == jnp.bfloat16
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda x: pair.apply_inv(pair.apply(x))))(0.31), 1, rtol=0.05
    )


def test_hl_gauss_pair_is_the_transform():
    expected = transforms.transform_to_hl_gauss(0.3, -1, 1, 7, 0.4)
    np.testing.assert_array_equal(nb.hl_gauss_pair(-1, 1, 7, sigma_ratio=0.4).apply(0.3), expected)


@pytest.mark.parametrize(
    ("pair", "exact", "how"),
    [
        *((pair, exact, HOW[0]) for pair, exact in zip(PAIRS, EXACT, strict=True)),
        *((PAIRS[2], EXACT[2], how) for how in HOW[1:]),
    ],
    ids=[*PAIR_IDS, "jit", "vmap"],
)
def test_errors_against_loops(pair, exact, how):
    x = data()
    apply, invert = exact
    q_tm1, value = pick(x["q_tm1"], x["a_tm1"]), invert(x["q_t"])

    found = how(lambda *a: nb.transformed_q_lambda(*a, 0.7, tx_pair=pair))(
        *(x[k] for k in ("q_tm1", "a_tm1", "r_t", "discount_t", "q_t"))
    )
    expected = apply(lambda_returns(x["r_t"], x["discount_t"], value.max(-1), 0.7)) - q_tm1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    arguments = [x[k] for k in ("q_tm1", "a_tm1", "q_t", "a_t", "r_t", "discount_t")]
    found = how(lambda *a: nb.transformed_n_step_q_learning(*a, 3, tx_pair=pair))(*arguments)
    expected = apply(n_step_returns(x["r_t"], x["discount_t"], pick(value, x["a_t"]), 3)) - q_tm1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    arguments = [
        x[k] for k in ("q_tm1", "q_t", "a_tm1", "a_t", "r_t", "discount_t", "pi_t", "mu_t")
    ]
    found = how(lambda *a: nb.transformed_retrace(*a, 0.8, tx_pair=pair))(*arguments)
    c_t = 0.8 * np.minimum(1, pick(x["pi_t"], x["a_t"]) / x["mu_t"])
    expected = (
        apply(off_policy_returns(value, x["a_t"], x["r_t"], x["discount_t"], c_t, x["pi_t"]))
        - q_tm1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_transformed_returns_take_values_by_place_and_by_name():
    x = data()
    r_t, discount_t, v_t = x["r_t"], x["discount_t"], x["mu_t"]
    expected = EXACT[1][0](lambda_returns(r_t, discount_t, EXACT[1][1](v_t), 0.7))
    pair = nb.SIGNED_LOGP1_PAIR
    np.testing.assert_allclose(
        nb.transformed_lambda_returns(pair, r_t, discount_t, v_t, 0.7), expected, rtol=1e-5
    )
    by_name = nb.transformed_lambda_returns(
        pair, lambda_=0.7, v_t=v_t, r_t=r_t, discount_t=discount_t
    )
    np.testing.assert_allclose(by_name, expected, rtol=1e-5)
    expected = EXACT[1][0](n_step_returns(r_t, discount_t, EXACT[1][1](v_t), 2))
    np.testing.assert_allclose(
        nb.transformed_n_step_returns(pair, r_t, discount_t, v_t, n=2), expected, rtol=1e-5
    )
    c_t = np.full((T, B), 0.5)
    found = nb.transformed_general_off_policy_returns_from_action_values(
        pair, x["q_t"], x["a_t"], r_t, discount_t, c_t, x["pi_t"]
    )
    expected = EXACT[1][0](
        off_policy_returns(EXACT[1][1](x["q_t"]), x["a_t"], r_t, discount_t, c_t, x["pi_t"])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_any_function_of_values_can_be_transformed():
    def sums(first, second, third=0.0):
        return first + second + third

    transformed = nb.transform_values(sums, 0, 2)
    pair = nb.TxPair(lambda x: 10 * x, lambda x: x / 10)
    assert transformed(pair, 1.0, 2.0, third=3.0) == pytest.approx(10 * (0.1 + 2 + 0.3))
    assert list(inspect.signature(transformed).parameters) == [
        "tx_pair",
        "first",
        "second",
        "third",
    ]
    assert transformed.__name__ == "transformed_sums"
    assert "tx_pair.apply_inv(first)" in transformed.__doc__


def test_identity_gives_the_plain_returns():
    x = data()
    arguments = x["r_t"], x["discount_t"], x["mu_t"], 0.3
    np.testing.assert_array_equal(
        nb.transformed_lambda_returns(nb.IDENTITY_PAIR, *arguments),
        returns.lambda_returns(*arguments),
    )


@pytest.mark.parametrize("stop", [True, False])
def test_gradient_reaches_the_target_only_if_asked(stop):
    x = {name: value[:, 0] for name, value in data().items()}
    pair, (apply, invert) = nb.SIGNED_HYPERBOLIC_PAIR, EXACT[2]

    def q_lambda(q_t):
        return nb.transformed_q_lambda(
            x["q_tm1"], x["a_tm1"], x["r_t"], x["discount_t"], q_t, 0.7, stop, pair
        ).sum()

    def oracle(q_t):
        return apply(lambda_returns(x["r_t"], x["discount_t"], invert(q_t).max(-1), 0.7)).sum()

    found = jax.jit(jax.grad(q_lambda))(x["q_t"])
    for place in np.ndindex(T, A):
        step = 1e-5 * np.eye(T * A).reshape(T, A, T, A)[place]
        difference = (oracle(x["q_t"] + step) - oracle(x["q_t"] - step)) / 2e-5
        np.testing.assert_allclose(found[place], 0 if stop else difference, rtol=1e-3, atol=1e-5)

    def n_step(q_t):
        return nb.transformed_n_step_q_learning(
            x["q_tm1"], x["a_tm1"], q_t, x["a_t"], x["r_t"], x["discount_t"], 2, stop, pair
        ).sum()

    def retrace(q_t):
        rest = (x[k] for k in ("a_tm1", "a_t", "r_t", "discount_t", "pi_t", "mu_t"))
        return nb.transformed_retrace(
            x["q_tm1"], q_t, *rest, 0.9, stop_target_gradients=stop, tx_pair=pair
        ).sum()

    for loss in (n_step, retrace):
        assert np.any(jax.jit(jax.grad(loss))(x["q_t"]) != 0) != stop


def test_transformed_returns_are_constants_by_default():
    x = data()

    def total(v_t, **options):
        return nb.transformed_lambda_returns(
            PAIRS[1], x["r_t"], x["discount_t"], v_t, 0.5, **options
        ).sum()

    np.testing.assert_array_equal(jax.grad(total)(x["mu_t"]), np.zeros((T, B)))
    assert np.any(jax.grad(lambda v_t: total(v_t, stop_target_gradients=False))(x["mu_t"]) != 0)


def test_bad_arguments_are_named():
    x = data()
    q_lambda = [x[k] for k in ("q_tm1", "a_tm1", "r_t", "discount_t", "q_t")]
    for place, value, name in [
        (0, np.zeros((T, B, 1)), "q_t"),
        (1, x["a_tm1"][:1], "a_tm1"),
        (2, np.zeros((T, 1)), "r_t"),
    ]:
        with pytest.raises(ShapeError, match=f"transformed_q_lambda: '{name}'"):
            nb.transformed_q_lambda(
                *(value if i == place else v for i, v in enumerate(q_lambda)), 0.5
            )
    with pytest.raises(ShapeError, match="'lambda_'"):
        nb.transformed_q_lambda(*q_lambda, np.zeros(T))
    with pytest.raises(TypeError, match="'a_t'"):
        nb.transformed_n_step_q_learning(
            x["q_tm1"], x["a_tm1"], x["q_t"], x["mu_t"], x["r_t"], x["discount_t"], 2
        )
    with pytest.raises(ValueError, match="'n'"):
        nb.transformed_n_step_q_learning(
            x["q_tm1"], x["a_tm1"], x["q_t"], x["a_t"], x["r_t"], x["discount_t"], 0
        )
    with pytest.raises(ShapeError, match="'mu_t'"):
        nb.transformed_retrace(
            x["q_tm1"],
            x["q_t"],
            x["a_tm1"],
            x["a_t"],
            x["r_t"],
            x["discount_t"],
            x["pi_t"],
            np.ones(T),
            0.5,
        )
    assert np.isnan(nb.transformed_q_lambda(x["q_tm1"], x["a_tm1"] + A, *q_lambda[2:], 0.5)).all()


def test_dtypes():
    x = {k: jnp.asarray(v, jnp.bfloat16) if v.dtype == float else v for k, v in data().items()}
    arguments = [x[k] for k in ("q_tm1", "a_tm1", "r_t", "discount_t", "q_t")]
    assert (
        nb.transformed_q_lambda(*arguments, 1, tx_pair=nb.SIGNED_LOGP1_PAIR).dtype == jnp.bfloat16
    )
    arguments[2] = arguments[2].astype(jnp.float32)
    assert nb.transformed_q_lambda(*arguments, 1).dtype == jnp.float32
    assert nb.transformed_q_lambda(*arguments[:2], 1, 1, arguments[-1], 1).shape == (T, B)
