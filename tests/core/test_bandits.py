import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import bandits
from agentzoo.envs.functional.bandit import BanditState, MultiArmedBandit

KEY = jax.random.key(0)
A = 3
ALL = {
    "epsilon-greedy": bandits.epsilon_greedy_bandit(A, 0.1),
    "epsilon-greedy, falling": bandits.epsilon_greedy_bandit(A, lambda t: 5 / t),
    "UCB": bandits.ucb_bandit(A),
    "Thompson, Bernoulli": bandits.thompson_bernoulli_bandit(A),
    "Thompson, Gaussian": bandits.thompson_gaussian_bandit(A),
    "EXP3": bandits.exp3_bandit(A, 0.1),
    "gradient": bandits.gradient_bandit(A, 0.2),
}
PULLS = [(0, 1.0), (1, 0.0), (0, 0.0), (2, 1.0), (2, 0.5), (2, 0.0)]


def after(bandit, pulls=PULLS):
    state = bandit.init()
    for arm, reward in pulls:
        state = bandit.update(state, arm, reward)
    return state


@pytest.mark.parametrize("name", [name for name in bandits.__all__ if name.endswith("_bandit")])
def test_the_number_of_arms_is_known(name):
    needed = {
        "epsilon_greedy_bandit": {"epsilon": 0.1},
        "exp3_bandit": {"gamma": 0.1},
        "gradient_bandit": {"step_size": 0.1},
    }
    make = functools.partial(getattr(bandits, name), **needed.get(name, {}))
    for wrong in (0, 2.0, "3"):
        with pytest.raises(TypeError, match=f"{name}: 'num_arms' is "):
            make(wrong)
    with pytest.raises(TypeError, match="is a JAX array"):
        jax.jit(lambda n: make(n).init())(3)
    assert jax.tree.leaves(make(np.int64(3)).init())[0].shape == (3,)


def test_sample_means():
    for name in ("epsilon-greedy", "UCB"):
        state = after(ALL[name])
        np.testing.assert_array_equal(state.count, [2, 1, 3])
        np.testing.assert_allclose(state.mean, [0.5, 0, 0.5], rtol=1e-6)


def test_epsilon_greedy_probabilities():
    np.testing.assert_allclose(
        ALL["epsilon-greedy"].probabilities(after(ALL["epsilon-greedy"])),
        [0.45 + 0.1 / 3, 0.1 / 3, 0.45 + 0.1 / 3],
        rtol=1e-5,
    )
    falling = ALL["epsilon-greedy, falling"]
    # At the first pull epsilon is 5 / 1, which counts as 1.
    np.testing.assert_allclose(falling.probabilities(falling.init()), [1 / 3] * 3, rtol=1e-5)
    np.testing.assert_allclose(falling.probabilities(after(falling))[1], 5 / 7 / 3, rtol=1e-5)


def test_ucb_index():
    ucb = ALL["UCB"]
    np.testing.assert_allclose(ucb.probabilities(ucb.init()), [1 / 3] * 3, rtol=1e-5)
    # Each arm is pulled once first.
    np.testing.assert_allclose(ucb.probabilities(after(ucb, [(1, 1.0)])), [0.5, 0, 0.5])
    index = np.array([0.5, 0, 0.5]) + np.sqrt(2 * np.log(6) / np.array([2, 1, 3]))
    np.testing.assert_array_equal(ucb.probabilities(after(ucb)), index == index.max())
    narrow = bandits.ucb_bandit(A, exploration=0.01)
    np.testing.assert_array_equal(narrow.probabilities(after(narrow)), [1, 0, 0])


def test_thompson_posteriors():
    state = after(bandits.thompson_bernoulli_bandit(A, 2.0, np.array([1.0, 1.0, 3.0])))
    np.testing.assert_allclose(state.alpha, [3, 2, 3.5])
    np.testing.assert_allclose(state.beta, [2, 2, 4.5])
    # The expected values come from the batch formula for a Gaussian mean with known noise.
    state = after(bandits.thompson_gaussian_bandit(A, noise_std=0.5, prior_mean=1.0, prior_std=2.0))
    count, total = np.array([2, 1, 3]), np.array([1.0, 0, 1.5])
    precision = 1 / 4 + count / 0.25
    np.testing.assert_allclose(state.precision, precision)
    np.testing.assert_allclose(state.mean, (1 / 4 + total / 0.25) / precision, rtol=1e-5)


@pytest.mark.slow
def test_thompson_pulls_an_arm_as_often_as_it_is_the_best():
    n = 20_000
    for bandit, state, draw in (
        (
            ALL["Thompson, Bernoulli"],
            after(ALL["Thompson, Bernoulli"]),
            lambda rng, s: rng.beta(s.alpha, s.beta, (n, A)),
        ),
        (
            ALL["Thompson, Gaussian"],
            after(ALL["Thompson, Gaussian"]),
            lambda rng, s: rng.normal(s.mean, 1 / np.sqrt(s.precision), (n, A)),
        ),
    ):
        arms = jax.vmap(bandit.act, (0, None))(jax.random.split(KEY, n), state)
        expected = (
            np.bincount(
                draw(np.random.default_rng(0), jax.tree.map(np.asarray, state)).argmax(-1),
                minlength=A,
            )
            / n
        )
        np.testing.assert_allclose(
            np.bincount(arms, minlength=A) / n, expected, atol=5 * math.sqrt(0.5 / n)
        )


def test_exp3_against_its_formulas():
    gamma, weights = 0.1, np.ones(A)
    for arm, reward in PULLS:
        p = (1 - gamma) * weights / weights.sum() + gamma / A
        weights[arm] *= np.exp(gamma * reward / p[arm] / A)
    state = after(ALL["EXP3"])
    np.testing.assert_allclose(np.exp(state.log_weight), weights / weights.max(), rtol=1e-5)
    np.testing.assert_allclose(
        ALL["EXP3"].probabilities(state),
        (1 - gamma) * weights / weights.sum() + gamma / A,
        rtol=1e-5,
    )


def test_exp3_weights_stay_finite():
    bandit = bandits.exp3_bandit(A, 1e-3)
    state = jax.lax.fori_loop(
        0, 200_000, lambda _, state: bandit.update(state, 1, 1.0), bandit.init()
    )
    assert np.isfinite(state.log_weight).all() and state.log_weight[1] == 0
    np.testing.assert_allclose(
        bandit.probabilities(state), [1e-3 / 3, 1 - 2e-3 / 3, 1e-3 / 3], rtol=1e-4
    )


def test_gradient_bandit_against_its_formulas():
    preference, rewards = np.zeros(A), []
    for arm, reward in PULLS:
        policy = np.exp(preference) / np.exp(preference).sum()
        baseline = np.mean(rewards) if rewards else reward
        preference += 0.2 * (reward - baseline) * (np.eye(A)[arm] - policy)
        rewards.append(reward)
    state = after(ALL["gradient"])
    np.testing.assert_allclose(state.preference, preference, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(state.baseline, np.mean(rewards), rtol=1e-6)


def test_gradient_bandit_ascends_the_expected_reward():
    """The average update is `step_size` times the gradient of the expected reward."""
    bandit, means = bandits.gradient_bandit(A, 1.0), jnp.array([0.2, 0.5, 0.9])
    state = bandits.Preferences(jnp.array([0.3, -0.2, 0.1]), jnp.float32(0.4), jnp.float32(10))
    mean_update = sum(
        p * (bandit.update(state, arm, means[arm]).preference - state.preference)
        for arm, p in enumerate(bandit.probabilities(state))
    )
    np.testing.assert_allclose(
        mean_update, jax.grad(lambda h: jax.nn.softmax(h) @ means)(state.preference), rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_interface(name):
    """Check what all bandits share.

    `act` pulls arms with `probabilities`, `jit` changes nothing, a state keeps its shapes and
    dtypes, and an arm that does not exist turns it to NaN.
    """
    bandit = ALL[name]
    state = after(bandit)
    n = 5_000
    arms = jax.vmap(bandit.act, (0, None))(jax.random.split(KEY, n), state)
    assert ((arms >= 0) & (arms < A)).all()
    if bandit.probabilities:
        p = np.asarray(bandit.probabilities(state))
        np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
        np.testing.assert_allclose(
            np.bincount(arms, minlength=A) / n, p, atol=5 * math.sqrt(0.25 / n)
        )
    compiled = jax.jit(lambda state: bandit.update(state, 1, 1))(state)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5),
        compiled,
        bandit.update(state, 1, 1),
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), compiled) == jax.tree.map(
        lambda x: (x.shape, x.dtype), bandit.init()
    )
    for arm in (-1, A):
        assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(bandit.update(state, arm, 1.0)))


def test_hyperparameters_may_be_mapped_over():
    def first_preference(step_size):
        bandit = bandits.gradient_bandit(A, step_size)
        return bandit.update(bandit.update(bandit.init(), 0, 1.0), 1, 0.0).preference[1]

    steps = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(
        jax.vmap(first_preference)(steps), [first_preference(0.1), first_preference(0.2)], rtol=1e-6
    )


# Regret, compared with the theory.

PULLED, SEEDS = 2_000, 100
BERNOULLI = MultiArmedBandit((0.1, 0.3, 0.5, 0.7, 0.9))
GAUSSIAN = MultiArmedBandit((-1.0, -0.5, 0.0, 0.5, 1.0), std=1.0)


PLAYS = {
    "epsilon-greedy": (bandits.epsilon_greedy_bandit(5, 0.1), BERNOULLI),
    "epsilon-greedy, falling": (bandits.epsilon_greedy_bandit(5, lambda t: 50 / t), BERNOULLI),
    "UCB1": (bandits.ucb_bandit(5), BERNOULLI),
    "UCB, Gaussian": (bandits.ucb_bandit(5, exploration=8.0), GAUSSIAN),
    "Thompson, Bernoulli": (bandits.thompson_bernoulli_bandit(5), BERNOULLI),
    "Thompson, Gaussian": (bandits.thompson_gaussian_bandit(5), GAUSSIAN),
    "EXP3": (
        bandits.exp3_bandit(5, math.sqrt(5 * math.log(5) / ((math.e - 1) * PULLED))),
        BERNOULLI,
    ),
    "gradient": (bandits.gradient_bandit(5, 0.1), GAUSSIAN),
}


@functools.cache
def regrets(name):
    """Return the cumulative regret `[SEEDS, PULLED]`."""
    bandit, env = PLAYS[name]
    arms = BanditState(jnp.array(env.means))

    def pull(state, key):
        act_key, step_key = jax.random.split(key)
        arm = bandit.act(act_key, state)
        reward = env.step(arms, arm, step_key)[1].reward
        return bandit.update(state, arm, reward), env.regret(arms, arm)

    def play(key):
        return jnp.cumsum(jax.lax.scan(pull, bandit.init(), jax.random.split(key, PULLED))[1])

    return np.asarray(jax.jit(jax.vmap(play))(jax.random.split(KEY, SEEDS)))


def gaps(env):
    return np.array([max(env.means) - mean for mean in env.means if mean < max(env.means)])


def lai_robbins(env):
    """Return the asymptotic lower bound of the regret of consistent algorithms, per log(t)."""
    best = max(env.means)

    def divergence(p):
        return (
            p * np.log(p / best) + (1 - p) * np.log((1 - p) / (1 - best))
            if env.std is None
            else (p - best) ** 2 / (2 * env.std**2)
        )

    return sum((best - mean) / divergence(mean) for mean in env.means if mean < best)


@pytest.mark.slow
def test_ucb1_regret_is_logarithmic_and_within_its_bound():
    regret = regrets("UCB1")
    t = np.arange(1, PULLED + 1)
    bound = sum(8 * np.log(t) / gap + (1 + math.pi**2 / 3) * gap for gap in gaps(BERNOULLI))
    mean = regret.mean(0)
    assert (mean[5:] < bound[5:]).all()
    # UCB1 is known to be above the lower bound.
    assert mean[-1] > lai_robbins(BERNOULLI) * np.log(PULLED)
    # With logarithmic regret, each doubling of the pulls adds about the same regret.
    assert mean[1999] - mean[999] < 1.3 * (mean[999] - mean[499])
    assert mean[1999] < 1.4 * mean[999]
    assert regret[:, -1].max() < bound[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["Thompson, Bernoulli", "Thompson, Gaussian", "UCB, Gaussian", "epsilon-greedy, falling"],
)
def test_regret_is_of_the_order_of_log_t(name):
    mean = regrets(name).mean(0)
    order = lai_robbins(PLAYS[name][1]) * np.log(PULLED)
    assert 0.3 * order < mean[-1] < 10 * order
    assert mean[1999] < 1.4 * mean[999]


@pytest.mark.slow
def test_thompson_sampling_beats_ucb1():
    assert 3 * regrets("Thompson, Bernoulli")[:, -1].mean() < regrets("UCB1")[:, -1].mean()


def test_constant_epsilon_pays_for_ever():
    regret = regrets("epsilon-greedy")
    slope = (regret[:, -1] - regret[:, 999]) / (PULLED - 1000)
    uniform = 0.1 * np.mean([0, *gaps(BERNOULLI)])  # the cost of exploration per pull
    assert uniform < slope.mean() < 1.5 * uniform


def test_exp3_regret_is_within_its_bound_and_sublinear():
    mean = regrets("EXP3").mean(0)
    assert (
        0.1 * 2.63 * math.sqrt(PULLED * 5 * math.log(5))
        < mean[-1]
        < 2.63 * math.sqrt(PULLED * 5 * math.log(5))
    )
    assert mean[1999] < 1.5 * mean[999]


def test_exp3_withstands_an_adversary():
    """Regret to the best single arm stays within the bound, even if the arms change halfway."""
    pulled, gamma = 4_000, math.sqrt(2 * math.log(2) / ((math.e - 1) * 4_000))
    bandit = bandits.exp3_bandit(2, gamma)
    rewards = np.where(np.arange(pulled)[:, None] < pulled // 2, [0.2, 0.8], [1.0, 0.0]).astype(
        np.float32
    )

    def pull(state, x):
        key, reward = x
        arm = bandit.act(key, state)
        return bandit.update(state, arm, reward[arm]), reward[arm]

    def play(key):
        return jax.lax.scan(pull, bandit.init(), (jax.random.split(key, pulled), rewards))[1].sum()

    gained = jax.jit(jax.vmap(play))(jax.random.split(KEY, 50))
    assert rewards.sum(0).max() - gained.mean() < 2.63 * math.sqrt(pulled * 2 * math.log(2))


def test_the_gradient_bandit_finds_the_best_arm():
    regret = regrets("gradient")
    random_regret = np.mean([0, *gaps(GAUSSIAN)]) * PULLED
    assert regret[:, -1].mean() < 0.15 * random_regret
    assert regret[:, -1].mean() < 1.3 * regret[:, 999].mean()
