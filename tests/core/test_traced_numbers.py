"""Hyperparameters that are numbers may be traced: the same program then serves all their values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import core

T, A, K = 5, 3, 4  # steps, actions, quantiles or atoms

rng = np.random.default_rng(0)
r_t, v_tm1, v_t, rho_tm1 = rng.normal(size=(4, T))
values, log_rhos = rng.normal(size=T + 1), rng.normal(size=T - 1)
q_tm1, q_t, q_target_tm1 = rng.normal(size=(3, T, A))
a_tm1, a_t = rng.integers(A, size=(2, T))
pi_t, mu_t = rng.dirichlet(np.ones(A), size=T), rng.uniform(0.1, 1, T)
last_t = np.array([0, 0, 1, 0, 0])
tau, dist = np.linspace(0.1, 0.9, K), rng.normal(size=(T, K))
dist_q_tm1, dist_q_t = rng.normal(size=(2, T, K, A))
logits = rng.normal(size=(T, K))
TREE = {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}


def bandit_after_one_pull(make, *numbers):
    bandit = make(A, *numbers)
    state = bandit.update(bandit.init(), 1, 0.5)
    key = jax.random.key(0)
    return state, bandit.act(key, state), bandit.probabilities and bandit.probabilities(state)


def moving_average(decay):
    init, update = core.create_ema(decay)
    return update(TREE, update(TREE, init(TREE))[1])


def normalized_observations(clip, epsilon):
    statistics = core.RunningMeanStd.init(v_t[0]).update(v_t)
    return statistics.normalize(values, clip, epsilon)


def normalized_rewards(gamma, clip, epsilon):
    normalizer = core.RewardNormalizer.init().update(r_t, last_t, gamma)
    return normalizer.normalize(r_t, clip, epsilon)


def pop_art(step_size, scale_lb, scale_ub):
    layer = core.PopArt.init(jax.random.key(0), 2)
    return layer.update(v_t, 0, step_size, scale_lb, scale_ub)


def encoded_and_decoded(make_pair):
    """A pair of transforms that closes over numbers, used as a static argument."""

    def targets(*numbers):
        return core.transformed_q_lambda(
            make_pair(*numbers).apply(q_tm1), a_tm1, r_t, 0.9, q_t, 0.8, tx_pair=make_pair(*numbers)
        )

    return targets


# Each case: the operator as a function of its numbers alone, and values of the numbers. Where a
# value has a meaning of its own, such as a Huber parameter of 0, there is a case with that value.
CASES = {
    "quantile_regression_loss": (
        lambda kappa: core.quantile_regression_loss(dist, tau, dist, kappa, normalize=True),
        [(0.7,), (0.0,)],
    ),
    "quantile_q_learning": (
        lambda gamma, kappa: core.quantile_q_learning(
            dist_q_tm1, tau, a_tm1, r_t, gamma, dist_q_t, dist_q_t, huber_param=kappa
        ),
        [(0.9, 1.0), (1.0, 0.0)],
    ),
    "iqn_loss": (
        lambda kappa: core.iqn_loss(dist_q_tm1, tau, a_tm1, r_t, 0.9, dist_q_t, dist_q_t, kappa),
        [(1.0,), (0.0,)],
    ),
    "quantile_expected_sarsa": (
        lambda kappa: core.quantile_expected_sarsa(
            dist_q_tm1, tau, a_tm1, r_t, 0.9, dist_q_t, pi_t, kappa
        ),
        [(1.0,), (0.0,)],
    ),
    "quantile_cvar": (lambda alpha: core.quantile_cvar(dist_q_t, alpha), [(0.3,), (1.0,), (0.0,)]),
    "expectile_td_learning": (
        lambda gamma: core.expectile_td_learning(dist, tau, r_t, gamma, dist),
        [(0.9,)],
    ),
    "categorical_td_learning": (
        lambda low, high, gamma: core.categorical_td_learning(
            jnp.linspace(low, high, K), logits, r_t, gamma, jnp.linspace(low, high, K), logits
        ),
        [(-2.0, 2.0, 0.9)],
    ),
    "two_hot_loss": (
        lambda low, high: core.two_hot_loss(logits, v_t, low, high),
        [(-2.0, 2.0)],
    ),
    "hl_gauss_loss": (
        lambda low, high, ratio: core.hl_gauss_loss(logits, v_t, low, high, ratio),
        [(-2.0, 2.0, 0.75)],
    ),
    "persistent_q_learning": (
        lambda gamma, scale: core.persistent_q_learning(q_tm1, a_tm1, r_t, gamma, q_t, scale),
        [(0.9, 0.2), (0.9, 0.0)],
    ),
    "munchausen_q_learning": (
        lambda gamma, *numbers: core.munchausen_q_learning(
            q_tm1, a_tm1, r_t, gamma, q_t, q_target_tm1, *numbers
        ),
        [(0.9, 0.9, 0.03, -1.0)],
    ),
    "expectile_td_loss": (
        lambda gamma, level: core.expectile_td_loss(v_tm1, r_t, gamma, v_t, level),
        [(0.9, 0.7), (0.9, 0.5)],
    ),
    "lambda_returns": (
        lambda gamma, lambda_: core.lambda_returns(r_t, gamma, v_t, lambda_, last_t=last_t),
        [(0.9, 0.8), (1.0, 1.0), (0.9, 0.0)],
    ),
    "n_step_bootstrapped_returns": (
        lambda gamma, lambda_: core.n_step_bootstrapped_returns(r_t, gamma, v_t, 3, lambda_),
        [(0.9, 0.8), (1.0, 1.0)],
    ),
    "n_step_transitions": (lambda gamma: core.n_step_transitions(r_t, gamma, q_t, 3), [(0.9,)]),
    "generalized_advantage_estimation": (
        lambda gamma, lambda_: core.generalized_advantage_estimation(
            r_t, gamma, v_tm1, v_t, last_t, lambda_
        ),
        [(0.9, 0.8), (1.0, 1.0), (0.9, 0.0)],
    ),
    "truncated_generalized_advantage_estimation": (
        lambda gamma, lambda_: core.truncated_generalized_advantage_estimation(
            r_t, gamma, lambda_, values
        ),
        [(0.9, 0.8)],
    ),
    "importance_corrected_td_errors": (
        lambda gamma, lambda_: core.importance_corrected_td_errors(
            r_t, gamma, rho_tm1, lambda_, values
        ),
        [(0.9, 0.8)],
    ),
    "td_lambda": (
        lambda gamma, lambda_: core.td_lambda(v_tm1, r_t, gamma, v_t, lambda_),
        [(0.9, 0.8)],
    ),
    "sarsa_lambda": (
        lambda gamma, lambda_: core.sarsa_lambda(q_tm1, a_tm1, r_t, gamma, q_t, a_t, lambda_),
        [(0.9, 0.8)],
    ),
    "watkins_lambda": (lambda lambda_: core.watkins_lambda(q_t, a_t, lambda_), [(0.8,)]),
    "retrace": (
        lambda gamma, lambda_, eps: core.retrace(
            q_tm1, q_t, a_tm1, a_t, r_t, gamma, pi_t, mu_t, lambda_, eps
        ),
        [(0.9, 0.8, 1e-8)],
    ),
    "transformed_retrace": (
        lambda gamma, lambda_, eps: core.transformed_retrace(
            q_tm1, q_t, a_tm1, a_t, r_t, gamma, pi_t, mu_t, lambda_, eps
        ),
        [(0.9, 0.8, 1e-8)],
    ),
    "retrace_continuous": (
        lambda gamma, lambda_: core.retrace_continuous(
            v_tm1, v_t[:-1], v_t, r_t, gamma, log_rhos, lambda_
        ),
        [(0.9, 0.8)],
    ),
    "eligibility_trace": (
        lambda gamma, lambda_: core.eligibility_trace(TREE, TREE, gamma, lambda_),
        [(0.9, 0.8)],
    ),
    "signed_hyperbolic": (lambda eps: core.signed_hyperbolic(values, eps), [(1e-3,), (0.0,)]),
    "signed_parabolic": (lambda eps: core.signed_parabolic(values, eps), [(1e-3,), (0.0,)]),
    "power": (lambda p: core.power(values, p), [(0.5,), (1.0,)]),
    "twohot_pair": (
        lambda low, high: core.twohot_pair(low, high, K).apply(values),
        [(-2.0, 2.0)],
    ),
    "hl_gauss_pair": (
        lambda low, high, ratio: core.hl_gauss_pair(low, high, K, ratio).apply(values),
        [(-2.0, 2.0, 0.75)],
    ),
    "unbiased_transform_pair": (
        lambda low, high: core.unbiased_transform_pair(
            low, high, K, core.SIGNED_HYPERBOLIC_PAIR
        ).apply(values),
        [(-2.0, 2.0)],
    ),
    "tx_pair_with_numbers": (
        encoded_and_decoded(
            lambda eps: core.TxPair(
                lambda x: core.signed_hyperbolic(x, eps), lambda x: core.signed_parabolic(x, eps)
            )
        ),
        [(1e-3,), (0.0,)],
    ),
    "create_ema": (moving_average, [(0.99,), (0.0,)]),
    "RunningMeanStd": (normalized_observations, [(10.0, 1e-8), (np.inf, 0.0)]),
    "RewardNormalizer": (normalized_rewards, [(0.99, 10.0, 1e-8), (1.0, np.inf, 0.0)]),
    "PopArt": (pop_art, [(3e-4, 1e-4, 1e6), (1.0, 1e-4, 1e6)]),
    "periodic_update": (
        lambda period: core.periodic_update({"w": v_t}, {"w": v_tm1}, 6, period),
        [(3,), (4,)],
    ),
    "feature_control_rewards": (
        lambda gamma: core.feature_control_rewards(q_t, "potential", gamma),
        [(0.9,)],
    ),
    "epsilon_greedy_bandit": (
        lambda epsilon: bandit_after_one_pull(core.epsilon_greedy_bandit, epsilon),
        [(0.1,), (0.0,), (1.0,)],
    ),
    "ucb_bandit": (lambda width: bandit_after_one_pull(core.ucb_bandit, width), [(2.0,), (0.0,)]),
    "thompson_bernoulli_bandit": (
        lambda *priors: bandit_after_one_pull(core.thompson_bernoulli_bandit, *priors),
        [(1.0, 2.0)],
    ),
    "thompson_gaussian_bandit": (
        lambda *numbers: bandit_after_one_pull(core.thompson_gaussian_bandit, *numbers),
        [(1.0, 0.5, 2.0)],
    ),
    "exp3_bandit": (lambda gamma: bandit_after_one_pull(core.exp3_bandit, gamma), [(0.1,), (1.0,)]),
    "gradient_bandit": (
        lambda size: bandit_after_one_pull(core.gradient_bandit, size),
        [(0.1,), (0.0,)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_traced_numbers_give_what_python_numbers_give(name):
    function, settings = CASES[name]
    compiled = jax.jit(function)
    for numbers in settings:
        expected, found = function(*numbers), compiled(*numbers)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        # Up to rounding: the arrays are constants of the compiled program, which XLA may fold.
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6, err_msg=f"{name}{numbers}")
    assert compiled._cache_size() == 1  # no number is a constant of the program
