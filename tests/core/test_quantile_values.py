import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import quantile_values as qv
from agentzoo.core._operator import ShapeError
from tests.core.stepwise import every_way

B, A = 4, 3  # steps, actions
N, M, S = 3, 5, 2  # quantiles at the source, at the destination, of the selector


def quantile_loss(src, tau, target, kappa=0.0, normalize=False):
    """Compute the loss in plain loops."""
    loss = 0.0
    for quantile, level in zip(src, tau, strict=True):
        for z in target:
            delta = z - quantile
            huber = 0.5 * delta**2 if abs(delta) <= kappa else kappa * (abs(delta) - 0.5 * kappa)
            huber = abs(delta) if kappa == 0 else huber / kappa if normalize else huber
            loss += abs(level - (delta < 0)) * huber / len(target)
    return loss


def q_loss(dist_tm1, tau, a, r, discount, selector, dist_t, kappa=0.0, normalize=False):
    a_t = int(np.argmax(selector.mean(0)))
    return quantile_loss(dist_tm1[:, a], tau, r + discount * dist_t[:, a_t], kappa, normalize)


def sarsa_loss(dist_tm1, tau, a, r, discount, dist_t, probs, kappa=0.0, normalize=False):
    return sum(
        p * quantile_loss(dist_tm1[:, a], tau, r + discount * dist_t[:, i], kappa, normalize)
        for i, p in enumerate(probs)
    )


def batch(seed=0, shape=(B,)):
    """Return arguments of `quantile_q_learning`."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(*shape, N, A)),
        np.sort(rng.uniform(size=(*shape, N))),
        rng.integers(A, size=shape),
        rng.normal(size=shape),
        rng.uniform(0, 1, shape),
        rng.normal(size=(*shape, S, A)),
        rng.normal(size=(*shape, M, A)),
    )


def sarsa_batch(seed=0, shape=(B,)):
    *arguments, _, dist_t = batch(seed, shape)
    return (*arguments, dist_t, np.random.default_rng(seed).dirichlet(np.ones(A), size=shape))


OPERATORS = [
    (qv.quantile_q_learning, q_loss, batch),
    (qv.quantile_expected_sarsa, sarsa_loss, sarsa_batch),
]
OPERATOR_IDS = ["q_learning", "expected_sarsa"]


def test_loss_by_hand():
    # delta is [[-2, 5, 3], [-6, 1, -1]]
    src, tau, target = np.array([-1.0, 3.0]), np.array([0.2, 0.7]), np.array([-3.0, 4.0, 2.0])
    absolute = (0.8 * 2 + 0.2 * 5 + 0.2 * 3 + 0.3 * 6 + 0.7 * 1 + 0.3 * 1) / 3
    huber = (0.8 * 2 + 0.2 * 8 + 0.2 * 4 + 0.3 * 10 + 0.7 * 0.5 + 0.3 * 0.5) / 3
    np.testing.assert_allclose(qv.quantile_regression_loss(src, tau, target), absolute, rtol=1e-6)
    np.testing.assert_allclose(qv.quantile_regression_loss(src, tau, target, 2.0), huber, rtol=1e-6)
    np.testing.assert_allclose(
        qv.quantile_regression_loss(src, tau, target, 2.0, normalize=True), huber / 2, rtol=1e-6
    )


@pytest.mark.parametrize(("kappa", "normalize"), [(0.0, False), (0.7, False), (0.7, True)])
@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_losses_against_loops(operator, oracle, of, kappa, normalize):
    arguments = of()
    expected = [oracle(*(x[b] for x in arguments), kappa, normalize) for b in range(B)]
    for how, found in every_way(
        lambda x: operator(*x, huber_param=kappa, normalize=normalize), arguments, axes=1
    ).items():
        np.testing.assert_allclose(found, expected, rtol=2e-6, err_msg=how)


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from([(), (2,), (2, 3)]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_regression_of_any_shape(leading, n, m, shared, seed):
    rng = np.random.default_rng(seed)
    src, target = rng.normal(size=(*leading, n)), rng.normal(size=(*leading, m))
    tau = rng.uniform(size=(n,) if shared else (*leading, n))
    found = qv.quantile_regression_loss(src, tau, target, 0.5)
    assert found.shape == leading
    for i in np.ndindex(*leading):
        np.testing.assert_allclose(
            found[i], quantile_loss(src[i], tau if shared else tau[i], target[i], 0.5), rtol=2e-5
        )


@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_levels_that_all_steps_share_and_any_leading_axes(operator, oracle, of):
    arguments = list(of(1, (2, 3)))
    arguments[1] = arguments[1][0, 0]
    found = operator(*arguments)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(
            found[i], oracle(*(x if j == 1 else x[i] for j, x in enumerate(arguments))), rtol=2e-5
        )
    assert operator(*(x if j == 1 else x[0, 0] for j, x in enumerate(arguments))).shape == ()


def test_normalized_loss_goes_to_the_absolute_one_with_its_parameter():
    src, tau, target = np.zeros(1), np.array([0.05]), np.array([-10.0])
    plain = [
        float(qv.quantile_regression_loss(src, tau, target, kappa))
        for kappa in (0.0, 0.01, 0.1, 1.0)
    ]
    # The loss jumps at 0, as in RLax.
    np.testing.assert_allclose(plain, [9.5, 0.095, 0.945, 9.025], rtol=1e-3)
    normalized = [
        float(qv.quantile_regression_loss(src, tau, target, kappa, normalize=True))
        for kappa in (0.0, 1e-30, 1e-4, 0.01, 1.0)
    ]
    np.testing.assert_allclose(normalized, [9.5, 9.5, 9.5, 9.5, 9.025], rtol=1e-3)


def test_huber_parameter_may_be_traced_and_gradients_stay_finite():
    src, tau, target = np.array([1.0, 2.0]), np.array([0.3, 0.6]), np.array([0.0, 1.0, 3.0])
    for normalize in (False, True):

        @jax.jit
        def loss(src, kappa, normalize=normalize):
            return qv.quantile_regression_loss(src, tau, target, kappa, normalize=normalize)

        for kappa in (0.0, 0.5):
            np.testing.assert_allclose(
                loss(src, kappa), quantile_loss(src, tau, target, kappa, normalize), rtol=1e-6
            )
            assert all(np.isfinite(g).all() for g in jax.grad(loss, (0, 1))(jnp.array(src), kappa))
    assert jax.vmap(lambda kappa: qv.quantile_regression_loss(src, tau, target, kappa))(
        jnp.array([0.0, 1.0])
    ).shape == (2,)


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_gradient_of_quantiles_against_finite_differences(kappa):
    arguments = batch()
    found = jax.jit(
        jax.grad(lambda q: qv.quantile_q_learning(q, *arguments[1:], huber_param=kappa).sum())
    )(arguments[0])
    step, expected = 1e-6, np.zeros((B, N, A))
    for b, n, a in np.ndindex(B, N, A):
        losses = []
        for sign in (1, -1):
            shifted = [x[b].copy() for x in arguments]
            shifted[0][n, a] += sign * step
            losses.append(q_loss(*shifted, kappa))
        expected[b, n, a] = (losses[0] - losses[1]) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_gradient_reaches_the_target_only_if_asked(operator, oracle, of, stop):
    arguments = of()
    found = jax.jit(
        jax.grad(
            lambda r: operator(*arguments[:3], r, *arguments[4:], stop_target_gradients=stop).sum()
        )
    )(arguments[3])
    shifted = [
        [x[0] + sign * 1e-5 if i == 3 else x[0] for i, x in enumerate(arguments)]
        for sign in (1, -1)
    ]
    difference = (oracle(*shifted[0]) - oracle(*shifted[1])) / 2e-5
    np.testing.assert_allclose(found[0], 0 if stop else difference, rtol=1e-3)
    if operator is qv.quantile_expected_sarsa:
        probs = jax.jit(
            jax.grad(lambda p: operator(*arguments[:-1], p, stop_target_gradients=stop).sum())
        )(arguments[-1])
        assert np.any(probs != 0) != stop


def test_minimum_is_at_the_quantiles():
    target = np.random.default_rng(0).exponential(size=2001)
    tau = np.array([0.1, 0.5, 0.9])
    slopes = jax.grad(lambda q: qv.quantile_regression_loss(q, tau, target))(
        jnp.quantile(target, tau)
    )
    np.testing.assert_allclose(slopes, np.zeros(3), atol=1e-3)


def test_expected_sarsa_of_a_sure_action_is_the_loss_towards_it():
    *arguments, selector, dist_t = batch()
    greedy = np.eye(A)[selector.mean(1).argmax(-1)]
    np.testing.assert_allclose(
        qv.quantile_expected_sarsa(*arguments, dist_t, greedy),
        qv.quantile_q_learning(*batch()),
        rtol=1e-6,
    )


def test_iqn_is_the_normalized_loss_with_constant_levels():
    arguments = batch()
    expected = qv.quantile_q_learning(*arguments, huber_param=0.4, normalize=True)
    np.testing.assert_allclose(qv.iqn_loss(*arguments, huber_param=0.4), expected, rtol=1e-6)
    by_default = [q_loss(*(x[b] for x in arguments), 1.0, True) for b in range(B)]
    np.testing.assert_allclose(jax.jit(qv.iqn_loss)(*arguments), by_default, rtol=2e-6)
    of_levels = jax.jit(jax.grad(lambda tau: qv.iqn_loss(arguments[0], tau, *arguments[2:]).sum()))(
        arguments[1]
    )
    np.testing.assert_array_equal(of_levels, np.zeros((B, N)))


def test_actions_out_of_range_are_nan():
    for operator, _, of in OPERATORS:
        for action in (-1, A):
            assert np.isnan(operator(*(action if i == 2 else x[0] for i, x in enumerate(of()))))


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [
        (0, np.zeros(N), "dist_q_tm1"),
        (1, np.zeros(N + 1), "tau_q_tm1"),
        (1, 0.5, "tau_q_tm1"),
        (2, np.zeros(1, int), "a_tm1"),
        (3, np.zeros(1), "r_t"),
        (4, np.zeros((B, 1)), "discount_t"),
        (5, np.zeros((B, S, A + 1)), "dist_q_t_selector"),
        (6, np.zeros((1, M, A)), "dist_q_t"),
        (7, np.ones(B), "huber_param"),
    ],
)
def test_shapes_that_do_not_fit_are_named(place, value, name):
    arguments = [*batch(), 1.0]
    arguments[place] = value
    for operator in (qv.quantile_q_learning, qv.iqn_loss):
        with pytest.raises(ShapeError, match=f"{operator.__name__}: '{name}'"):
            operator(*arguments)


def test_other_operators_name_what_does_not_fit():
    arguments = sarsa_batch()
    with pytest.raises(ShapeError, match="'probs_a_t'"):
        qv.quantile_expected_sarsa(*arguments[:-1], np.ones((B, 1)))
    with pytest.raises(ShapeError, match="'tau_src'"):
        qv.quantile_regression_loss(np.zeros((B, N)), np.zeros((1, N)), np.zeros((B, M)))
    with pytest.raises(ShapeError, match="'dist_target'"):
        qv.quantile_regression_loss(np.zeros((B, N)), np.zeros(N), np.zeros(M))
    with pytest.raises(ShapeError, match="'dist_at_tau'"):
        qv.fqf_fraction_loss(np.zeros(4), np.zeros(4), np.zeros(3))
    with pytest.raises(ShapeError, match="'dist_at_midpoints'"):
        qv.fqf_fraction_loss(np.zeros((B, 4)), np.zeros((B, 2)), np.zeros((B, 2)))
    with pytest.raises(ShapeError, match="'alpha'"):
        qv.quantile_cvar(np.zeros((B, N, A)), np.zeros((B, 1)))
    with pytest.raises(ShapeError, match="'probs'"):
        qv.quantile_cvar(np.zeros((B, N, A)), 0.5, np.ones(N + 1))
    with pytest.raises(TypeError, match="'a_tm1'"):
        qv.quantile_q_learning(*(x.astype(float) if i == 2 else x for i, x in enumerate(batch())))


def test_dtypes():
    for operator, _, of in OPERATORS:
        arguments = of()
        wide = operator(*arguments)
        assert wide.dtype == jnp.float32
        narrow = operator(
            *(jnp.asarray(x, jnp.bfloat16) if x.dtype == float else x for x in arguments),
            huber_param=0.0,
        )
        assert narrow.dtype == jnp.bfloat16
        np.testing.assert_allclose(narrow.astype(float), wide, rtol=0.1)
    assert (
        qv.quantile_regression_loss(np.array([1, 2]), np.array([0.5, 0.5]), np.array([3])).dtype
        == jnp.float32
    )
    assert qv.quantile_cvar(jnp.zeros((N, A), jnp.bfloat16), 0.5).dtype == jnp.bfloat16


# Fraction proposals.


def wasserstein(tau, quantile, points=400_000):
    """Return the distance of a quantile function from its values at midpoints of fractions."""
    levels = (np.arange(points) + 0.5) / points
    pieces = np.clip(np.searchsorted(tau, levels) - 1, 0, len(tau) - 2)
    return np.abs(quantile(levels) - quantile((tau[1:] + tau[:-1]) / 2)[pieces]).mean()


def test_fraction_gradient_is_that_of_the_wasserstein_distance():
    def quantile(level):
        return np.tan(1.4 * level) + level  # an increasing function

    tau = np.array([[0.0, 0.2, 0.5, 0.7, 1.0], [0.0, 0.1, 0.15, 0.8, 1.0]])
    at_tau, at_midpoints = quantile(tau[:, 1:-1]), quantile((tau[:, 1:] + tau[:, :-1]) / 2)

    def loss(x):
        return qv.fqf_fraction_loss(*x), jax.grad(lambda x: qv.fqf_fraction_loss(*x).sum())(x)

    for how, (_, gradients) in every_way(loss, (tau, at_tau, at_midpoints), axes=1).items():
        for b, i in np.ndindex(2, 3):
            up, down = (tau[b] + sign * 1e-3 * np.eye(5)[i + 1] for sign in (1, -1))
            difference = (wasserstein(up, quantile) - wasserstein(down, quantile)) / 2e-3
            np.testing.assert_allclose(gradients[0][b, i + 1], difference, rtol=0.01, err_msg=how)
        np.testing.assert_array_equal(gradients[0][:, np.array([0, -1])], np.zeros((2, 2)))
        assert not any(np.any(g) for g in gradients[1:])


# Risk.


def cvar(quantiles, probs, alpha):
    """Return the mean of the worst outcomes, summed quantile by quantile."""
    total, left = 0.0, alpha
    for z, p in sorted(zip(quantiles, probs, strict=True)):
        total += z * min(p, left)
        left -= min(p, left)
    return total / alpha


def test_cvar_against_loops():
    rng = np.random.default_rng(0)
    dist, alpha = rng.normal(size=(B, 4, A)), np.array([0.1, 0.25, 0.6, 1.0])
    probs = rng.dirichlet(np.ones(4), size=B)
    ways = every_way(
        lambda x: (qv.quantile_cvar(*x[:2]), qv.quantile_cvar(*x)), (dist, alpha, probs), axes=1
    )
    for how, (equal, weighted) in ways.items():
        for b, a in np.ndindex(B, A):
            np.testing.assert_allclose(
                equal[b, a], cvar(dist[b, :, a], np.full(4, 0.25), alpha[b]), rtol=2e-5, err_msg=how
            )
            np.testing.assert_allclose(
                weighted[b, a], cvar(dist[b, :, a], probs[b], alpha[b]), rtol=2e-5, err_msg=how
            )


def test_cvar_at_its_limits_and_its_gradient():
    dist = np.array([[3.0, 1.0], [-2.0, 5.0], [7.0, 0.0]])
    np.testing.assert_allclose(qv.quantile_cvar(dist, 1.0), dist.mean(0), rtol=1e-6)
    np.testing.assert_allclose(qv.quantile_cvar(dist, 0.0), dist.min(0))
    np.testing.assert_allclose(
        qv.quantile_cvar(dist, 0.5), [(-2 + 3 * 0.5) / 1.5, (0 + 1 * 0.5) / 1.5], rtol=1e-6
    )
    gradient = jax.grad(lambda q: qv.quantile_cvar(q, 0.5)[0])(dist)
    np.testing.assert_allclose(gradient, [[1 / 3, 0], [2 / 3, 0], [0, 0]], rtol=1e-6)


def test_cvar_can_choose_actions_in_the_loss():
    arguments = list(batch())
    values = qv.quantile_cvar(arguments[5], 0.3)
    expected = [
        q_loss(*(x[b] for x in arguments[:5]), np.asarray(values)[b][None], arguments[6][b])
        for b in range(B)
    ]
    arguments[5] = values[..., None, :]
    np.testing.assert_allclose(qv.quantile_q_learning(*arguments), expected, rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("probs", [None, np.array([0.1, 0.2, 0.3, 0.4])])
def test_cvar_of_a_traced_fraction_of_one_is_the_mean(probs):
    dist = np.random.default_rng(0).normal(size=(B, 4, A)).astype(np.float32)
    cvar_of = jax.jit(lambda dist, alpha: qv.quantile_cvar(dist, alpha, probs))
    mean = jax.jit(lambda dist: dist.mean(-2) if probs is None else probs @ dist)(dist)
    # Exactly the mean for equal probabilities, so an agent may use it for every alpha.
    same = np.testing.assert_array_equal if probs is None else np.testing.assert_allclose
    for ones in (1.0, np.float32(1), np.ones(B)):
        same(cvar_of(dist, ones), mean)
    same(jax.vmap(cvar_of, (None, 0))(dist, np.array([0.5, 1.0]))[1], mean)
    same(qv.quantile_cvar(dist, 1.0, probs), mean)
    almost = cvar_of(dist, np.nextafter(np.float32(1), 0))
    np.testing.assert_allclose(almost, mean, rtol=1e-5, atol=1e-6)
    slopes = jax.jit(jax.grad(lambda dist, alpha: cvar_of(dist, alpha)[0, 0]))(dist, 1.0)
    np.testing.assert_allclose(slopes[0, :, 0], 0.25 if probs is None else probs, rtol=1e-6)
