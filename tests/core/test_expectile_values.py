import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import expectile_values as ev
from agentzoo.core._operator import ShapeError
from tests.core.stepwise import every_way

B, K, A = 4, 5, 3
TAU = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def expectile_loss(src, tau, target):
    """Compute the loss in plain loops."""
    return sum(
        abs(t - (z < e)) * (z - e) ** 2 / len(target)
        for e, t in zip(src, tau, strict=True)
        for z in target
    )


def expectiles(samples, tau):
    """Return the expectiles of equally likely samples `[..., N]`, by bisection."""
    low, high = (np.repeat(f(samples, -1, keepdims=True), len(tau), -1) for f in (np.min, np.max))
    for _ in range(60):
        middle = (low + high) / 2
        delta = samples[..., None, :] - middle[..., :, None]
        above = (np.where(delta > 0, tau[:, None], 1 - tau[:, None]) * delta).sum(-1) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def distributions(count=60, size=30):
    """Return samples of normal, skewed, two-valued and bimodal distributions of many scales."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(count, size))
    shapes = [
        normal,
        np.exp(normal),
        np.sign(normal + 0.5),
        normal + 8 * (rng.random((count, size)) < 0.4),
    ]
    scale, shift = 10 ** rng.uniform(-3, 3, (4 * count, 1)), 10 * rng.normal(size=(4 * count, 1))
    return np.concatenate(shapes) * scale + shift


def test_regression_by_hand():
    # delta is [[-2, 4], [-3, 3]]
    src, tau, target = np.array([1.0, 2.0]), np.array([0.2, 0.5]), np.array([-1.0, 5.0])
    expected = (0.8 * 4 + 0.2 * 16 + 0.5 * 9 + 0.5 * 9) / 2
    np.testing.assert_allclose(ev.expectile_regression_loss(src, tau, target), expected, rtol=1e-6)


def test_regression_against_loops():
    rng = np.random.default_rng(0)
    src, tau, target = rng.normal(size=(B, K)), rng.uniform(size=(B, K)), rng.normal(size=(B, 7))
    expected = [expectile_loss(*x) for x in zip(src, tau, target, strict=True)]
    for how, found in every_way(
        lambda x: ev.expectile_regression_loss(*x), (src, tau, target), axes=1
    ).items():
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=how)
    gradients = jax.jit(jax.grad(lambda *x: ev.expectile_regression_loss(*x).sum(), (0, 2)))(
        src, tau, target
    )
    delta = target[:, None] - src[:, :, None]
    np.testing.assert_allclose(
        gradients[0],
        -2 * (np.abs(tau[..., None] - (delta < 0)) * delta).mean(-1),
        rtol=1e-4,
        atol=1e-6,
    )
    np.testing.assert_array_equal(gradients[1], np.zeros((B, 7)))


def test_minimum_is_at_the_expectiles():
    samples = np.random.default_rng(0).exponential(size=(2, 301))
    slopes = jax.grad(lambda e: ev.expectile_regression_loss(e, TAU, samples).sum())(
        jnp.asarray(expectiles(samples, TAU))
    )
    np.testing.assert_allclose(slopes, np.zeros((2, K)), atol=1e-5)


def test_imputed_samples_have_the_expectiles():
    samples, tau = distributions(), np.linspace(0.01, 0.99, 11)
    wanted = expectiles(samples, tau)
    imputed = np.asarray(ev.impute_expectiles(wanted, tau), np.float64)
    spread = np.ptp(wanted, axis=-1, keepdims=True)
    # As many samples as expectiles cannot match all expectiles. The naive alternative uses the
    # expectiles as samples.
    error, naive = (np.abs(expectiles(x, tau) - wanted) / spread for x in (imputed, wanted))
    assert np.median(error.max(-1)) < 0.02
    assert np.quantile(error.max(-1), 0.9) < 0.1
    assert np.median(naive.max(-1)) > 4 * np.median(error.max(-1))


def test_imputed_samples_move_and_stretch_with_the_expectiles():
    wanted = expectiles(distributions(), TAU)
    # Scaling by a power of two does not round.
    np.testing.assert_allclose(
        ev.impute_expectiles(1024 * wanted, TAU) / 1024,
        ev.impute_expectiles(wanted, TAU),
        rtol=1e-6,
    )
    # A distribution with a single value keeps it.
    np.testing.assert_allclose(ev.impute_expectiles(np.full(K, 3.0), TAU), np.full(K, 3.0))
    np.testing.assert_array_equal(ev.impute_expectiles(np.array([2.0]), np.array([0.5])), [2.0])


def test_expectiles_out_of_order_are_put_in_it():
    wanted = np.random.default_rng(0).normal(size=(100, K))
    imputed = np.asarray(ev.impute_expectiles(wanted, TAU))
    np.testing.assert_array_equal(imputed, ev.impute_expectiles(np.sort(wanted), TAU))
    np.testing.assert_array_equal(imputed, ev.impute_expectiles(wanted[:, ::-1], TAU[::-1]))
    assert np.abs(imputed).max() < 5 * np.abs(wanted).max()


def test_gradient_of_imputed_samples():
    wanted = expectiles(distributions(2, 9)[:2], TAU)
    jacobian = jax.jit(jax.jacobian(lambda e: ev.impute_expectiles(e, TAU)))(jnp.asarray(wanted[0]))
    scale = np.ptp(wanted[0])
    for k in range(K):
        step = 1e-3 * scale * np.eye(K)[k]
        up, down = ev.impute_expectiles(np.stack([wanted[0] + step, wanted[0] - step]), TAU)
        difference = (up - down) / (2e-3 * scale)
        np.testing.assert_allclose(jacobian[:, k], difference, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(jacobian.sum(-1), np.ones(K), rtol=0.02)


def batch(seed=0, shape=(B,)):
    """Return arguments of `expectile_q_learning`."""
    rng = np.random.default_rng(seed)
    return (
        np.sort(rng.normal(size=(*shape, K, A)), -2),
        TAU,
        rng.integers(A, size=shape),
        rng.normal(size=shape),
        rng.uniform(0, 1, shape),
        rng.normal(size=(*shape, A)),
        np.sort(rng.normal(size=(*shape, K, A)), -2),
    )


@pytest.mark.slow
def test_bellman_losses_regress_towards_imputed_samples():
    dist_tm1, tau, a_tm1, r_t, discount_t, selector, dist_t = batch()
    expected_q, expected_td = [], []
    for b in range(B):
        samples = np.asarray(ev.impute_expectiles(dist_t[b].T, tau), np.float64)
        targets = r_t[b] + discount_t[b] * samples
        expected_q.append(
            expectile_loss(dist_tm1[b, :, a_tm1[b]], tau, targets[selector[b].argmax()])
        )
        expected_td.append(expectile_loss(dist_tm1[b, :, 0], tau, targets[0]))

    def losses(x):
        q, *rest, td = x
        return ev.expectile_q_learning(q, tau, *rest), ev.expectile_td_learning(td[0], tau, *td[1:])

    td = (dist_tm1[..., 0], r_t, discount_t, dist_t[..., 0])
    for how, found in every_way(
        losses, (dist_tm1, a_tm1, r_t, discount_t, selector, dist_t, td), axes=1
    ).items():
        np.testing.assert_allclose(found[0], expected_q, rtol=1e-4, err_msg=how)
        np.testing.assert_allclose(found[1], expected_td, rtol=1e-4, err_msg=how)


def test_terminal_transitions_teach_the_reward():
    dist_tm1, tau, a_tm1, r_t, _, selector, dist_t = batch()
    found = ev.expectile_q_learning(dist_tm1, tau, a_tm1, r_t, 0.0, selector, dist_t)
    np.testing.assert_allclose(
        found,
        [expectile_loss(dist_tm1[b, :, a_tm1[b]], tau, r_t[b : b + 1]) for b in range(B)],
        rtol=1e-5,
    )


def test_iterated_backups_learn_the_distribution_and_not_its_mean_alone():
    # A state pays +1 or -1 and terminates with probability 0.2. The estimates approach the fixed
    # point of exact expectile backups.
    tau = np.linspace(0.05, 0.95, 11)
    rewards, weight = np.array([-1.0, 1.0]), 0.8
    estimate = np.zeros(11)
    for _ in range(40):
        samples = np.asarray(ev.impute_expectiles(estimate, tau), np.float64)
        mixture = np.concatenate(
            [np.repeat(rewards, 11), np.repeat((rewards[:, None] + samples).ravel(), 4)]
        )
        estimate = expectiles(mixture, tau)
    rng = np.random.default_rng(0)
    returns = np.array(
        [rng.choice(rewards, size=rng.geometric(1 - weight)).sum() for _ in range(20_000)]
    )
    truth = expectiles(returns, tau)
    assert np.abs(estimate - truth).max() < 0.25 * returns.std()
    assert np.abs(estimate[5]) < 0.05


@pytest.mark.parametrize("stop", [True, False])
def test_gradient_reaches_the_target_only_if_asked(stop):
    arguments = batch()
    gradients = jax.jit(
        jax.grad(
            lambda r, q: ev.expectile_q_learning(
                *arguments[:3], r, *arguments[4:6], q, stop_target_gradients=stop
            ).sum(),
            (0, 1),
        )
    )(arguments[3], arguments[6])
    assert all(np.isfinite(g).all() for g in gradients)
    assert all(np.any(g != 0) != stop for g in gradients)


def test_bad_arguments_are_named():
    arguments = batch()
    for place, value, name in [
        (0, np.zeros(K), "dist_q_tm1"),
        (1, np.zeros(K + 1), "tau_q"),
        (2, np.zeros(1, int), "a_tm1"),
        (3, np.zeros(1), "r_t"),
        (4, np.zeros((B, 1)), "discount_t"),
        (5, np.zeros((B, 1)), "q_t_selector"),
        (6, np.zeros((B, K + 1, A)), "dist_q_t"),
    ]:
        with pytest.raises(ShapeError, match=f"'{name}'"):
            ev.expectile_q_learning(*(value if i == place else x for i, x in enumerate(arguments)))
    with pytest.raises(ShapeError, match="'dist_v_t'"):
        ev.expectile_td_learning(np.zeros((B, K)), TAU, 0.0, 1.0, np.zeros((B, K + 1)))
    with pytest.raises(ShapeError, match="'tau'"):
        ev.impute_expectiles(np.zeros((B, K)), np.zeros((1, K)))
    with pytest.raises(ShapeError, match="'dist_target'"):
        ev.expectile_regression_loss(np.zeros((B, K)), TAU, np.zeros(K))
    assert np.isnan(
        ev.expectile_q_learning(
            *(A if i == 2 else x if i == 1 else x[0] for i, x in enumerate(arguments))
        )
    )


def test_dtypes():
    arguments = [jnp.asarray(x, jnp.bfloat16) if x.dtype == float else x for x in batch()]
    assert jax.eval_shape(ev.expectile_q_learning, *arguments).dtype == jnp.bfloat16
    assert jax.eval_shape(ev.impute_expectiles, np.arange(5), TAU).dtype == jnp.float32
