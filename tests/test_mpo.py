"""MPO in environments with known values, compared with NumPy, and with each option."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import MPO, ConfigurationError, evaluate_policy
from agentzoo.algos import mpo
from agentzoo.replay import make_replay
from agentzoo.types import Clock
from tests import probes
from tests.test_sac import Small, Unbounded, column, leaves, slopes, state_of
from tests.test_sac import mlp as layers_of

GAMMA = 0.9
FAST = dict(
    learning_rate=3e-3,
    net_arch=(32,),
    learning_starts=50,
    batch_size=32,
    train_freq=8,
    gradient_steps=8,
    target_update_interval=10,
    buffer_size=2_000,
    gamma=GAMMA,
    n_steps=1,
    num_samples=10,
    epsilon_mean=0.1,
    epsilon_stddev=1e-2,
    epsilon_kl=0.1,
)
OPTIONS = {
    "plain": {},
    "three-step, normalised, no penalty": dict(n_steps=3, normalize_obs=True, action_penalty=False),
    "retrace": dict(retrace=True, n_steps=4),
}


def trained(env, steps=1_500, **hyperparameters):
    return MPO(env, **{**FAST, **hyperparameters}).learn(steps, progress_bar=False)


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_of_the_probes(options):
    agent = trained(probes.ContinuousDelayed, **options)
    np.testing.assert_allclose(agent.values(column(0, 1), column(0, 0)), [GAMMA, 1], atol=0.15)
    agent = trained(probes.ContinuousCue, 4_000, **options)
    np.testing.assert_allclose(
        agent.values(column(-1, -1, 1), column(0, 2, 2)), [0, -1, 0], atol=0.25
    )
    np.testing.assert_allclose(
        agent.predict(column(-1, 1), deterministic=True)[0], column(0, 2), atol=0.4
    )


@pytest.mark.learning
@pytest.mark.parametrize(
    "options", [{}, dict(retrace=True, n_steps=4)], ids=["one-step", "retrace"]
)
def test_values_of_the_probes_with_discrete_actions(options):
    agent = trained(probes.DelayedReward, **options)
    np.testing.assert_allclose(agent.values(column(0, 1)), [[GAMMA, GAMMA], [1, 1]], atol=0.15)
    agent = trained(probes.CueReward, 2_500, **options)
    np.testing.assert_allclose(agent.values(column(-1, 1)), [[1, -1], [-1, 1]], atol=0.2)
    assert agent.predict(column(-1, 1), deterministic=True)[0].tolist() == [0, 1]
    assert np.concatenate([agent.predict(np.ones((100, 1)))[0] for _ in range(10)]).mean() > 0.9


@pytest.mark.learning
@pytest.mark.parametrize(
    "options",
    [dict(n_steps=3), dict(retrace=True, n_steps=4, retrace_lambda=1.0)],
    ids=["three-step", "retrace"],
)
@pytest.mark.parametrize("mode", [None, AutoresetMode.NEXT_STEP], ids=str)
def test_a_time_limit_bootstraps_and_a_termination_does_not(mode, options):
    def env(probe):
        return probe if mode is None else SyncVectorEnv([probe], autoreset_mode=mode)

    agent = trained(env(probes.ContinuousTruncated), 2_500, gamma=0.5, **options)
    np.testing.assert_allclose(agent.values(column(0), column(0)), 2, atol=0.2)
    agent = trained(env(probes.ContinuousConstant), 800, gamma=0.5, **options)
    np.testing.assert_allclose(agent.values(column(0), column(0)), 1, atol=0.1)


def test_retrace_forgets_what_the_policy_would_not_have_done():
    """The value of the first of two steps follows the policy, not the replayed actions.

    The reward of the second step depends on its action alone.
    """

    class Second(probes.Continuous, probes.Probe):
        length = 2

        def observe(self):
            return np.array([float(self.t)], np.float32)

        def reward(self, action):
            return float(action) if self.t == 1 else 0.0

    # All that is replayed are uniform actions, whose mean reward is 1; the policy takes those near
    # 3.
    settings = dict(
        learning_starts=400, train_freq=400, gradient_steps=1_500, n_steps=2, net_arch=(32, 32)
    )
    agent = trained(Second, 800, **settings, retrace=True, retrace_lambda=1.0)
    assert agent.predict(column(1), deterministic=True)[0] > 2.7
    first = agent.values(column(0, 0), column(0, 2))
    np.testing.assert_allclose(first, 2.7 * np.ones(2), atol=0.35)


class Reference:
    """The losses of one gradient step in NumPy with float64.

    They use the same batch and the same noise as the agent.
    """

    def __init__(self, agent):
        state, self.config = agent.learner_state, agent.config
        self.target, self.duals = jax.device_get(state.target), jax.device_get(state.duals)
        self.sample_key, noise_key = jax.random.split(jax.random.split(state.key, 2)[1])
        numbers = (self.config.num_samples, self.config.num_value_samples)
        self.noise = [
            np.asarray(jax.random.normal(key, (number, self.config.batch_size, 2)), np.float64)
            for key, number in zip(jax.random.split(noise_key), numbers, strict=True)
        ]
        self.buffer = make_replay(
            agent.spec, self.config.buffer_size, self.config.train_freq, GAMMA, self.config.n_steps
        )

    def use(self, replay):
        batch = self.buffer.sample(replay, self.sample_key, self.config.batch_size)
        self.batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
        self.a_tm1 = 2 * (self.batch.a_tm1 - [-1, 0]) / [4, 0.5] - 1
        self.mean, self.stddev = self.policy(self.target.policy, self.batch.obs_tm1)
        self.a, self.q_tm1 = self.sampled(self.batch.obs_tm1, self.noise[0])
        self.v_t = self.sampled(self.batch.obs_t, self.noise[1])[1].mean(axis=0)

    def sampled(self, obs, noise):
        mean, stddev = self.policy(self.target.policy, obs)
        actions = mean + stddev * noise
        return actions, np.stack(
            [self.q(self.target.critic, obs, np.clip(a, -1, 1)) for a in actions]
        )

    def policy(self, params, obs):
        mean, scale = np.split(layers_of(params, obs), 2, axis=1)
        return mean, 0.5 * np.log1p(np.exp(scale)) / math.log(2) + 1e-6

    def q(self, params, obs, a):
        return layers_of(params, np.concatenate([obs, a], axis=1))[:, 0]

    def e_step(self, q, temperature):
        weights = np.exp(q / temperature) / np.exp(q / temperature).sum(axis=0)
        return weights, np.log(np.exp(q / temperature).mean(axis=0))

    def kls(self, mean, stddev):
        ratio = self.stddev / stddev
        return 0.5 * ((mean - self.mean) / self.stddev) ** 2, 0.5 * (ratio**2 - 1) - np.log(ratio)

    def log_prob(self, mean, stddev):
        return (
            -0.5 * ((self.a - mean) / stddev) ** 2 - np.log(stddev) - 0.5 * math.log(2 * math.pi)
        ).sum(axis=-1)

    def critic_loss(self, critic):
        target = self.batch.r_t + self.batch.discount_t * self.v_t
        return 0.5 * ((target - self.q(critic, self.batch.obs_tm1, self.a_tm1)) ** 2).mean()

    def policy_loss(self, policy, duals):
        """All of which the policy's gradient is made."""
        mean, stddev = self.policy(policy, self.batch.obs_tm1)
        distance = np.linalg.norm(self.a - np.clip(self.a, -1, 1), axis=-1)
        weights = self.e_step(self.q_tm1, np.exp(duals.temperature))[0]
        weights = weights + self.e_step(-distance, np.exp(duals.penalty_temperature))[0]
        fit = -(
            weights * (self.log_prob(mean, self.stddev) + self.log_prob(self.mean, stddev))
        ).sum(axis=0)
        penalties = [
            (np.exp(a) * kl).sum(axis=-1)
            for a, kl in zip(duals[1:3], self.kls(mean, stddev), strict=True)
        ]
        return (fit + sum(penalties)).mean()

    def dual_loss(self, duals, policy):
        """All of which the duals' gradient is made."""
        distance = np.linalg.norm(self.a - np.clip(self.a, -1, 1), axis=-1)
        temperature, penalty = np.exp(duals.temperature), np.exp(duals.penalty_temperature)
        loss = temperature * (self.config.epsilon + self.e_step(self.q_tm1, temperature)[1])
        loss = loss + penalty * (self.config.epsilon_penalty + self.e_step(-distance, penalty)[1])
        for alpha, epsilon, kl in zip(
            duals[1:3],
            (self.config.epsilon_mean, self.config.epsilon_stddev),
            self.kls(*self.policy(policy, self.batch.obs_tm1)),
            strict=True,
        ):
            loss = loss + (np.exp(alpha) * (epsilon - kl)).sum(axis=-1)
        return loss.mean()


def test_losses_and_gradients_are_those_of_numpy():
    rate = 1e-3
    settings = dict(
        net_arch=(5,),
        activation="tanh",
        batch_size=16,
        train_freq=1,
        gradient_steps=1,
        learning_starts=60,
        n_steps=2,
    )
    rates = dict(
        learning_rate=rate, dual_learning_rate=rate, max_grad_norm=1e9, target_update_interval=3
    )
    agent = MPO(Small, **{**FAST, **settings, **rates}).learn(60, progress_bar=False)
    for i in range(3):
        fresh = MPO(Small, **agent.config.__dict__).learner_state.opt_state
        agent.trainer.run = agent.trainer.run._replace(
            learner_state=agent.learner_state._replace(opt_state=fresh)
        )
        before, reference = jax.device_get(agent.learner_state._replace(key=0)), Reference(agent)
        agent.learn(1, progress_bar=False, reset_num_timesteps=False)
        after, metrics = (
            jax.device_get(agent.learner_state._replace(key=0)),
            jax.device_get(agent.metrics),
        )
        reference.use(agent.learner_state.replay)
        online, policy = before.params.online, before.params.online.policy
        np.testing.assert_allclose(
            metrics["train/critic_loss"], reference.critic_loss(online.critic), rtol=1e-5
        )
        kl_mean, kl_stddev = (
            kl.mean(axis=0).max()
            for kl in reference.kls(*reference.policy(policy, reference.batch.obs_tm1))
        )
        np.testing.assert_allclose(
            [metrics["train/kl_mean"], metrics["train/kl_stddev"]],
            [kl_mean, kl_stddev],
            rtol=2e-3,
            atol=1e-12,
        )
        assert (kl_mean == 0) == (i == 0)  # the target is refreshed after three gradient steps
        assert (metrics["train/epsilon_mean"], metrics["train/epsilon_stddev"]) == (
            np.float32(0.1),
            np.float32(0.01),
        )
        temperature_and_alphas = metrics["train/temperature_loss"] + metrics["train/alpha_loss"]
        np.testing.assert_allclose(
            temperature_and_alphas, reference.dual_loss(before.duals, policy), rtol=1e-4
        )
        np.testing.assert_allclose(
            metrics["train/policy_loss"] + metrics["train/kl_loss"],
            reference.policy_loss(policy, before.duals),
            rtol=1e-5,
        )
        for loss, old, new in [
            (reference.critic_loss, online.critic, after.params.online.critic),
            (
                lambda tree, r=reference, duals=before.duals: r.policy_loss(tree, duals),
                policy,
                after.params.online.policy,
            ),
            (
                lambda tree, r=reference, policy=policy: r.dual_loss(tree, policy),
                before.duals,
                after.duals,
            ),
        ]:
            slope = slopes(loss, old)
            moved = np.concatenate(
                [(y - x).ravel() for x, y in zip(leaves(old), leaves(new), strict=True)]
            )
            clear = np.abs(slope) > 1e-4
            assert clear.mean() > 0.7
            np.testing.assert_allclose(moved[clear], -rate * np.sign(slope[clear]), rtol=0.01)


def test_the_target_is_refreshed_after_so_many_gradient_steps():
    settings = {
        **FAST,
        "learning_starts": 0,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 4,
    }
    agent = MPO("Pendulum-v1", **settings)
    states = []
    agent.learn(
        12,
        progress_bar=False,
        callback=lambda a: states.append(jax.device_get(a.learner_state._replace(key=0, replay=0))),
    )
    for i, state in enumerate(states, start=1):
        same = all(
            (x == y).all()
            for x, y in zip(leaves(state.target), leaves(state.params.online), strict=True)
        )
        assert same == (i % 4 == 0)


def test_kls_settle_at_their_bounds():
    kls, bounds = [], (0.02, 1e-4)
    settings = dict(
        epsilon_mean=bounds[0],
        epsilon_stddev=bounds[1],
        target_update_interval=20,
        learning_rate=3e-4,
        dual_learning_rate=3e-2,
    )

    def watch(a):
        if a.learner_state.n_updates > 2_000:
            kls.append(
                [
                    float(a.metrics[f"train/{name}"])
                    for name in ("kl_mean", "kl_stddev", "kl_improved")
                ]
            )

    agent = MPO(probes.ContinuousCue, **{**FAST, **settings})
    agent.learn(4_000, progress_bar=False, callback=watch)
    kl_mean, kl_stddev, kl_improved = np.mean(kls, axis=0)
    assert 0 < kl_mean <= 1.1 * bounds[0] and 0 < kl_stddev <= 1.1 * bounds[1]
    assert 0 < kl_improved <= 1.1 * agent.config.epsilon


def test_duals_come_back_from_the_least_that_they_can_be():
    agent = MPO(
        probes.ContinuousCue,
        **{**FAST, "epsilon_mean": 1e-4, "epsilon_stddev": 1e-6, "epsilon": 1e-2},
    )
    state = agent.learner_state
    least = {name: mpo.MINIMUM[name] for name in ("temperature", "alpha_mean", "alpha_stddev")}
    duals = state.duals._replace(
        **{
            name: jnp.full_like(getattr(state.duals, name), np.log(value))
            for name, value in least.items()
        }
    )
    agent.trainer.run = agent.trainer.run._replace(learner_state=state._replace(duals=duals))
    agent.learn(1_000, progress_bar=False)
    for name, value in least.items():
        assert float(agent.metrics[f"train/{name}"]) > 2 * value
    # And they stay positive where nothing is to be held.
    agent = MPO(
        probes.ContinuousConstant,
        **{**FAST, "epsilon": 10.0, "epsilon_mean": 10.0, "dual_learning_rate": 1.0},
    )
    agent.learn(1_000, progress_bar=False)
    assert all(np.isfinite(leaf).all() for leaf in leaves(agent.learner_state.duals))
    np.testing.assert_allclose(
        min(leaves(agent.learner_state.duals.alpha_mean)),
        np.log(mpo.MINIMUM["alpha_mean"]),
        rtol=1e-6,
    )


def test_an_alpha_does_not_run_away_where_steps_are_too_large_for_its_bound():
    alphas = []
    agent = MPO(
        probes.ContinuousCue,
        **{**FAST, "learning_rate": agentzoo.Linear(3e-2), "epsilon_stddev": 1e-5},
    )
    agent.learn(
        3_000,
        progress_bar=False,
        callback=lambda a: alphas.append(a.metrics.get("train/alpha_stddev", 0.0)),
    )
    np.testing.assert_allclose(
        np.nanmax(alphas), mpo.MAXIMUM * 100.0, rtol=1e-5
    )  # sqrt(epsilon / epsilon_stddev) is 100
    assert alphas[-1] < alphas[len(alphas) // 2]  # it comes back as soon as steps are small


def test_without_a_penalty_the_mean_may_leave_the_bounds():
    class Edge(probes.Continuous, probes.Probe):
        def reward(self, action):
            return float(action)

    def mean(agent):
        action, _ = agent.functions.predict(
            agent.params, (), jnp.zeros((1, 1)), jax.random.key(0), True
        )
        outputs = agent.learner_state.params.online.policy
        hidden = np.maximum(outputs["linear"]["b"], 0)
        return float((hidden @ outputs["linear_1"]["w"] + outputs["linear_1"]["b"])[0]), float(
            action[0, 0]
        )

    with_penalty, action = mean(trained(Edge, 4_000))
    assert abs(action - 3) < 0.15 and with_penalty < 1.3
    without, action = mean(trained(Edge, 4_000, action_penalty=False))
    assert action == 3 and without > with_penalty


def test_warm_up_and_gradient_steps_are_counted_as_in_sb3():
    agent = MPO(
        "Pendulum-v1",
        **{**FAST, "learning_starts": 80, "train_freq": 4, "gradient_steps": -1},
        n_envs=2,
    )
    counts = {}
    agent.learn(
        112,
        progress_bar=False,
        callback=lambda a: counts.update({a.num_timesteps: int(a.learner_state.n_updates)}),
    )
    assert counts == {step: max(step - 80, 0) for step in range(8, 113, 8)}
    agent = MPO(
        "Pendulum-v1",
        n_envs=400,
        **{**FAST, "learning_starts": 10**6, "buffer_size": 40_000},
        retrace=True,
    )
    agent.learn(400 * 8, progress_bar=False)
    stored = agent.learner_state.replay.storage
    actions = np.sort(np.asarray(stored.a_tm1)[:3_200, 0])
    np.testing.assert_allclose(actions, np.linspace(-2, 2, 3_200), atol=4 * 1.95 / math.sqrt(3_200))
    np.testing.assert_allclose(stored.extras["log_prob"][:3_200], -math.log(2), rtol=1e-6)
    np.testing.assert_allclose(
        2 * stored.extras["a"][:3_200], stored.a_tm1[:3_200], rtol=1e-5, atol=1e-6
    )


def test_stored_log_probabilities_are_those_of_the_policy_that_acted():
    agent = MPO(
        Small, **{**FAST, "learning_starts": 0, "train_freq": 64, "gradient_steps": 1}, retrace=True
    )
    policy = jax.device_get(agent.params.online.policy)
    agent.learn(64, progress_bar=False)
    stored = jax.device_get(agent.learner_state.replay.storage)
    hidden = np.maximum(
        stored.obs_tm1[:64] @ policy["linear"]["w"] + policy["linear"]["b"], 0
    ).astype(np.float64)
    mean, scale = np.split(hidden @ policy["linear_1"]["w"] + policy["linear_1"]["b"], 2, axis=1)
    stddev = 0.5 * np.log1p(np.exp(scale)) / math.log(2)
    a = stored.extras["a"][:64]
    log_prob = (
        -0.5 * ((a - mean) / stddev) ** 2 - np.log(stddev) - 0.5 * math.log(2 * math.pi)
    ).sum(axis=1)
    np.testing.assert_allclose(stored.extras["log_prob"][:64], log_prob, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        stored.a_tm1[:64], [1, 0.25] + np.clip(a, -1, 1) * [2, 0.25], rtol=1e-5, atol=1e-6
    )
    assert (np.abs(a) > 1).any()


def test_log_probabilities_of_noise_that_lasts_are_given_the_noise_before():
    agent = MPO("Pendulum-v1", noise_steps=4, learning_starts=0, retrace=True)
    num, act, obs = 2_000, jax.jit(agent.functions.act), jnp.zeros((2_000, 3))
    noise, clock, keep = (
        agent.functions.initial_memory(num),
        Clock(jnp.int32(1), jnp.int32(0), jnp.int32(10)),
        0.75,
    )
    mean, stddev = (
        agent.predict(np.zeros(3), deterministic=True)[0] / 2,
        0.5,
    )  # that of a first policy is `init_stddev`
    for step in range(20):
        before = noise
        _, noise, extras = act(agent.params, before, obs, jax.random.key(step), clock)
        a, rest = extras["a"], stddev * math.sqrt(1 - keep**2)
        np.testing.assert_allclose(a, mean + stddev * noise, atol=1e-3)
        z = (a - mean - keep * stddev * before)[:, 0] / rest
        np.testing.assert_allclose(
            extras["log_prob"], -0.5 * z**2 - math.log(rest * math.sqrt(2 * math.pi)), atol=0.02
        )
        np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=0.1)
    np.testing.assert_allclose((noise * before).mean(), keep, atol=0.1)
    np.testing.assert_allclose(noise.std(), 1, atol=0.1)


def test_saving_loading_and_resuming_is_exact(tmp_path):
    def make(**kwargs):
        return MPO(
            probes.ContinuousTruncated, **{**FAST, "train_freq": 5, "gradient_steps": 2, **kwargs}
        )

    options = dict(normalize_obs=True, retrace=True, n_steps=5, noise_steps=10)
    whole, half = (
        make(**options).learn(200, progress_bar=False),
        make(**options).learn(100, progress_bar=False),
    )
    resumed = agentzoo.load(half.save(tmp_path / "half"), probes.ContinuousTruncated)
    assert type(resumed) is MPO
    resumed.learn(100, progress_bar=False, reset_num_timesteps=False)
    for x, y in zip(state_of(whole), state_of(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others():
    def params(seed):
        return leaves(
            MPO(probes.ContinuousCue, seed=seed, **FAST).learn(200, progress_bar=False).params
        )

    for x, y in zip(params(3), params(3), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in itertools.chain(zip(params(3), params(4), strict=True)))


def test_tags(tmp_path):
    agent = trained(probes.ContinuousCue, 200)
    tags = {
        "critic_loss",
        "policy_loss",
        "temperature_loss",
        "alpha_loss",
        "kl_loss",
        "temperature",
        "alpha_mean",
        "alpha_stddev",
        "penalty_temperature",
        "kl_improved",
        "epsilon",
        "kl_mean",
        "epsilon_mean",
        "kl_stddev",
        "epsilon_stddev",
        "kl_penalty",
        "epsilon_penalty",
        "learning_rate",
        "n_updates",
    }
    assert {f"train/{tag}" for tag in tags} <= set(agent.logger.values)
    agent = trained(probes.CueReward, 200)
    assert {
        f"train/{tag}"
        for tag in ("kl", "epsilon_kl", "alpha", "temperature", "kl_improved", "epsilon")
    } <= set(agent.logger.values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MPO(Unbounded), "need finite bounds"),
        (lambda: MPO("Pendulum-v1", gradient_steps=0), "gradient_steps=0"),
        (lambda: MPO("Pendulum-v1", num_samples=1), "num_samples=1"),
        (lambda: MPO("CartPole-v1", noise_steps=2), "noise_steps=2 is for Box"),
        (lambda: MPO("Pendulum-v1", epsilon_mean=0.0), "epsilon_mean=0.0"),
        (
            lambda: MPO("Pendulum-v1", retrace=True, n_steps=20, batch_size=10),
            "is smaller than a sequence of n_steps=20",
        ),
        (lambda: MPO(lambda: probes.Spaced(spaces.Discrete(3)), cnn="big"), "cnn='big'"),
    ],
)
def test_bad_input_is_refused_before_training(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.learning
def test_it_learns_to_swing_up_a_pendulum():
    settings = dict(
        learning_rate=2e-3,
        net_arch=(64, 64),
        batch_size=64,
        buffer_size=10_000,
        learning_starts=500,
        num_samples=10,
    )
    agent = MPO("Pendulum-v1", seed=1, **settings, target_update_interval=50).learn(
        6_000, progress_bar=False
    )
    assert evaluate_policy(agent, "Pendulum-v1", 10, seed=0)[0] > -500  # a random policy has -1200


@pytest.mark.learning
def test_it_learns_cartpole_with_discrete_actions():
    settings = dict(
        learning_rate=2e-3,
        net_arch=(64, 64),
        batch_size=64,
        train_freq=8,
        gradient_steps=4,
        buffer_size=20_000,
    )
    agent = MPO("CartPole-v1", seed=1, **settings, target_update_interval=50).learn(
        10_000, progress_bar=False
    )
    assert evaluate_policy(agent, "CartPole-v1", 10, seed=0)[0] > 150  # a random policy has 22
