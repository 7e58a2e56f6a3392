"""SAC in environments with known values, compared with NumPy, and with each option."""

import itertools
import math

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import SAC, ConfigurationError, evaluate_policy
from agentzoo.networks import action_bounds
from agentzoo.replay import make_replay
from agentzoo.types import Clock
from tests import probes

GAMMA = 0.9
FAST = dict(
    learning_rate=3e-3,
    net_arch=(32,),
    learning_starts=50,
    batch_size=32,
    train_freq=8,
    gradient_steps=8,
    tau=0.05,
    buffer_size=2_000,
    gamma=GAMMA,
)
OPTIONS = {
    "plain": {},
    "three-step, prioritised": dict(n_steps=3, prioritized_replay=True),
    "one critic, delayed": dict(n_critics=1, policy_delay=2, target_update_interval=2, tau=0.1),
    "normalised, learned entropy": dict(
        normalize_obs=True, ent_coef="auto_0.01", target_entropy=-3.0
    ),
}


def trained(env, steps=1_500, **hyperparameters):
    return SAC(env, **{"ent_coef": 0.0, **FAST, **hyperparameters}).learn(steps, progress_bar=False)


def column(*values):
    return np.array(values, np.float32)[:, None]


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_of_the_probes(options):
    near = {"atol": 0.2}
    agent = trained(probes.ContinuousDelayed, **options)
    if not str(agent.config.ent_coef).startswith("auto"):  # an entropy bonus is part of the value
        np.testing.assert_allclose(agent.values(column(0, 1), column(0, 0)), [GAMMA, 1], **near)
    agent = trained(probes.ContinuousCue, 2_500, **options)
    np.testing.assert_allclose(agent.values(column(-1, -1, 1), column(0, 2, 2)), [0, -1, 0], **near)
    best, _ = agent.predict(column(-1, 1), deterministic=True)
    np.testing.assert_allclose(best, column(0, 2), atol=0.4)


@pytest.mark.learning
@pytest.mark.parametrize(
    "options",
    [{}, dict(n_steps=3, prioritized_replay=True, policy_delay=2)],
    ids=["plain", "rainbow"],
)
def test_values_of_the_probes_with_discrete_actions(options):
    agent = trained(probes.DelayedReward, ent_coef=1e-3, **options)
    np.testing.assert_allclose(agent.values(column(0, 1)), [[GAMMA, GAMMA], [1, 1]], atol=0.15)
    # Where entropy has a price of 0.5, the policy is softmax(2 q), and is never greedy.
    agent = trained(probes.CueReward, 2_500, ent_coef=0.5, **options)
    np.testing.assert_allclose(agent.values(column(-1, 1)), [[1, -1], [-1, 1]], atol=0.15)
    actions = np.concatenate([agent.predict(np.ones((100, 1)))[0] for _ in range(20)])
    np.testing.assert_allclose(actions.mean(), 1 / (1 + math.exp(-4)), atol=0.015)
    assert agent.predict(column(-1, 1), deterministic=True)[0].tolist() == [0, 1]


@pytest.mark.learning
@pytest.mark.parametrize(("mode", "n_steps"), [(None, 1), (AutoresetMode.NEXT_STEP, 3)], ids=str)
def test_a_time_limit_bootstraps_and_a_termination_does_not(mode, n_steps):
    def env(probe):
        return probe if mode is None else SyncVectorEnv([probe], autoreset_mode=mode)

    agent = trained(env(probes.ContinuousTruncated), 2_500, n_steps=n_steps, gamma=0.5)
    np.testing.assert_allclose(agent.values(column(0), column(0)), 2, atol=0.2)
    agent = trained(env(probes.ContinuousConstant), 800, n_steps=n_steps, gamma=0.5)
    np.testing.assert_allclose(agent.values(column(0), column(0)), 1, atol=0.1)


def test_the_entropy_bonus_is_part_of_the_value():
    # A step of reward 1 for ever, and a uniform policy as entropy is all that counts: of actions in
    # [-1, 1] it has log 2.
    agent = trained(probes.ContinuousTruncated, 4_000, gamma=0.5, ent_coef=1.0)
    value = (1 + 0.5 * math.log(2)) / (1 - 0.5)
    np.testing.assert_allclose(agent.values(column(0), column(1)), value, atol=0.2)
    actions = np.concatenate([agent.predict(np.zeros((100, 1)))[0] for _ in range(10)])
    np.testing.assert_allclose([actions.mean(), actions.std()], [1, 4 / math.sqrt(12)], atol=0.15)


@pytest.mark.learning
def test_the_learned_coefficient_holds_the_entropy():
    agent = trained(probes.ContinuousCue, 4_000, ent_coef="auto", target_entropy=-0.5)
    actions = np.concatenate([agent.predict(np.ones((100, 1)))[0] for _ in range(20)])[:, 0]
    density, edges = np.histogram(actions, 60, (-1, 3), density=True)
    entropy = -np.sum(np.where(density > 0, density * np.log(np.maximum(density, 1e-12)), 0)) * (
        edges[1] - edges[0]
    )
    np.testing.assert_allclose(entropy - math.log(2), -0.5, atol=0.25)  # of actions in [-1, 1]


class Small(probes.Probe):
    """Random observations of two numbers, actions of two dimensions with bounds of their own."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32))
    length = 3

    def observe(self):
        return self.np_random.normal(size=2).astype(np.float32)

    def check(self, action):
        assert self.action_space.contains(action), action
        return action

    def reward(self, action):
        return float(action.sum())


def mlp(params, x, e=None):
    """The layers of a network in float64, of the e-th of an ensemble."""
    layers = [
        {k: np.asarray(v if e is None else v[e], np.float64) for k, v in params[name].items()}
        for name in sorted(params)
    ]
    for layer in layers[:-1]:
        x = np.tanh(x @ layer["w"] + layer["b"])
    return x @ layers[-1]["w"] + layers[-1]["b"]


class Reference:
    """The losses of one gradient step in NumPy with float64.

    They use the same batch and the same noise as the agent.
    """

    def __init__(self, agent):
        state, config = agent.learner_state, agent.config
        self.gamma, self.params, self.target = config.gamma, state.params, state.target_critic
        self.log_ent_coef_loss = config.log_ent_coef_loss
        self.ent_coef = float(np.exp(np.float64(state.log_ent_coef)))
        sample_key, critic_key, actor_key = jax.random.split(jax.random.split(state.key, 2)[1], 3)
        buffer = make_replay(
            agent.spec, config.buffer_size, config.train_freq, config.gamma, config.n_steps
        )
        # One more step is stored before the batch is drawn; where there is no room for it, the
        # oldest goes.
        self.sample = lambda replay: buffer.sample(replay, sample_key, config.batch_size)
        # The target critics that are drawn, and how the critics are combined for the policy.
        self.drawn, self.combine = range(2), np.min if config.actor_q == "min" else np.mean
        if config.n_target_critics is not None:
            key = jax.random.split(jax.random.fold_in(critic_key, 1), 3)[0]
            self.drawn = jax.random.choice(key, 2, (config.n_target_critics,), replace=False)
        self.noise = [
            np.asarray(jax.random.normal(key, (1, config.batch_size, 2)), np.float64)[0]
            for key in (critic_key, actor_key)
        ]

    def use(self, replay):
        self.batch = jax.tree.map(lambda x: np.asarray(x, np.float64), self.sample(replay))
        self.a_tm1 = 2 * (self.batch.a_tm1 - [-1, 0]) / [4, 0.5] - 1

    def policy(self, params, obs, noise):
        mean, log_std = np.split(mlp(params, obs), 2, axis=1)
        u = mean + np.exp(log_std) * noise
        log_prob = (
            -0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - log_std - np.log(1 - np.tanh(u) ** 2)
        )
        return np.tanh(u), log_prob.sum(axis=1)

    def q(self, params, obs, a):
        return np.stack([mlp(params, np.concatenate([obs, a], axis=1), e)[:, 0] for e in range(2)])

    def critic_loss(self, critic):
        a_t, log_prob_t = self.policy(self.params.policy, self.batch.obs_t, self.noise[0])
        q_t = self.q(self.target, self.batch.obs_t, a_t)[np.array(self.drawn)]
        v_t = q_t.min(axis=0) - self.ent_coef * log_prob_t
        target = self.batch.r_t + self.batch.discount_t * v_t
        return (
            0.5
            * ((target - self.q(critic, self.batch.obs_tm1, self.a_tm1)) ** 2).sum(axis=0).mean()
        )

    def actor_loss(self, policy, critic):
        a, log_prob = self.policy(policy, self.batch.obs_tm1, self.noise[1])
        q = self.combine(self.q(critic, self.batch.obs_tm1, a), axis=0)
        return (self.ent_coef * log_prob - q).mean()

    def ent_coef_loss(self, log_ent_coef):
        _, log_prob = self.policy(self.params.policy, self.batch.obs_tm1, self.noise[1])
        return (
            (log_ent_coef if self.log_ent_coef_loss else np.exp(log_ent_coef)) * (-log_prob + 2)
        ).mean()


def slopes(loss, params):
    """The gradient of a loss by central differences."""
    parts, structure = jax.tree.flatten(params)
    flat, ends = (
        np.concatenate([np.ravel(part) for part in parts]).astype(np.float64),
        np.cumsum([np.size(part) for part in parts]),
    )

    def at(vector):
        pieces = [
            piece.reshape(np.shape(part))
            for piece, part in zip(np.split(vector, ends[:-1]), parts, strict=True)
        ]
        return loss(jax.tree.unflatten(structure, pieces))

    steps = 1e-5 * np.eye(len(flat))
    return np.array([(at(flat + step) - at(flat - step)) / 2e-5 for step in steps])


@pytest.mark.parametrize(
    "options",
    [
        dict(log_ent_coef_loss=True),
        dict(log_ent_coef_loss=False),
        dict(actor_q="mean", n_target_critics=1),
    ],
    ids=["log", "paper", "mean"],
)
def test_losses_and_gradients_are_those_of_numpy(options):
    settings = dict(
        net_arch=(5,),
        activation="tanh",
        batch_size=16,
        train_freq=1,
        gradient_steps=1,
        learning_starts=60,
        n_steps=2,
    )
    rate = 1e-3
    settings |= dict(learning_rate=rate, ent_coef="auto_0.2", **options)
    agent = SAC(Small, **{**FAST, **settings}).learn(60, progress_bar=False)
    for _ in range(3):  # as targets and online parameters move apart
        agent.trainer.run = agent.trainer.run._replace(
            learner_state=agent.learner_state._replace(
                opt_state=SAC(Small, **agent.config.__dict__).learner_state.opt_state
            )
        )
        before, reference = jax.device_get(agent.learner_state._replace(key=0)), Reference(agent)
        agent.learn(1, progress_bar=False, reset_num_timesteps=False)
        after, metrics = (
            jax.device_get(agent.learner_state._replace(key=0)),
            jax.device_get(agent.metrics),
        )
        reference.params, reference.target = before.params, before.target_critic
        reference.use(agent.learner_state.replay)
        np.testing.assert_allclose(
            metrics["train/critic_loss"], reference.critic_loss(before.params.critic), rtol=1e-5
        )
        actor_loss = reference.actor_loss(before.params.policy, after.params.critic)
        np.testing.assert_allclose(metrics["train/actor_loss"], actor_loss, rtol=1e-5)
        log_ent_coef = np.float64(before.log_ent_coef)
        np.testing.assert_allclose(
            metrics["train/ent_coef_loss"], reference.ent_coef_loss(log_ent_coef), rtol=1e-5
        )
        np.testing.assert_allclose(metrics["train/ent_coef"], np.exp(after.log_ent_coef), rtol=1e-6)

        # Adam's first step has the size of the learning rate, against the gradient.
        for loss, old, new in [
            (reference.critic_loss, before.params.critic, after.params.critic),
            (
                lambda policy, r=reference, critic=after.params.critic: r.actor_loss(
                    policy, critic
                ),
                before.params.policy,
                after.params.policy,
            ),
            (
                lambda tree, r=reference: r.ent_coef_loss(tree[0]),
                [before.log_ent_coef],
                [after.log_ent_coef],
            ),
        ]:
            slope = slopes(loss, old)
            moved = np.concatenate(
                [(y - x).ravel() for x, y in zip(leaves(old), leaves(new), strict=True)]
            )
            clear = np.abs(slope) > 1e-4
            assert clear.mean() > 0.9
            np.testing.assert_allclose(moved[clear], -rate * np.sign(slope[clear]), rtol=0.01)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 3, (1,), np.float32),
        spaces.Box(-2, 2, (2, 3), np.float32),
        spaces.Box(np.array([-0.1, 5, -1e6]), np.array([0.7, 5.1, 3e6]), dtype=np.float64),
    ],
    ids=str,
)
def test_actions_keep_within_their_bounds_exactly(space):
    class Any(probes.Probe):
        action_space = space

        def check(self, action):
            assert (
                action.shape == space.shape
                and (action >= space.low).all()
                and (action <= space.high).all()
            )
            return 0

    agent = SAC(Any, n_envs=2, **FAST).learn(200, progress_bar=False)
    action, _ = agent.predict(np.zeros(1))
    assert action.shape == space.shape
    # A policy that wants to go beyond the bounds reaches them, to the last digit that lies within.
    policy = agent.params.policy
    for sign, bound in ((1, space.high), (-1, space.low)):
        far = {
            name: {k: jnp.full_like(v, sign * 50.0 if k == "b" else 0.0) for k, v in layer.items()}
            for name, layer in policy.items()
        }
        agent.trainer.run = agent.trainer.run._replace(
            learner_state=agent.learner_state._replace(params=agent.params._replace(policy=far))
        )
        action, _ = agent.predict(np.zeros(1), deterministic=True)
        np.testing.assert_allclose(action, bound, rtol=2e-7)
        assert (action >= space.low).all() and (action <= space.high).all()


def test_scaling_to_the_bounds_and_back():
    bounds = action_bounds(spaces.Box(np.array([[-1, 0]]), np.array([[3, 0.5]]), dtype=np.float64))
    a = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    action = bounds.scale(jnp.asarray(a))
    assert action.shape == (100, 1, 2)
    np.testing.assert_allclose(action[:, 0], [1, 0.25] + a * [2, 0.25], atol=1e-6)
    np.testing.assert_allclose(bounds.unscale(action), a, atol=1e-6)


def test_actions_of_the_warm_up_are_uniform():
    agent = SAC(
        probes.ContinuousConstant,
        n_envs=500,
        **{**FAST, "learning_starts": 10**6, "buffer_size": 50_000},
    )
    agent.learn(500 * 8, progress_bar=False)
    actions = np.sort(np.asarray(agent.learner_state.replay.storage.a_tm1)[:4_000, 0])
    np.testing.assert_allclose(
        actions, np.linspace(-1, 3, 4_000), atol=4 * 1.95 / math.sqrt(4_000)
    )  # Kolmogorov and Smirnov, 0.1 %
    agent = SAC(
        probes.ConstantReward,
        n_envs=500,
        **{**FAST, "learning_starts": 10**6, "buffer_size": 50_000},
    )
    agent.learn(500 * 8, progress_bar=False)
    np.testing.assert_allclose(
        np.asarray(agent.learner_state.replay.storage.a_tm1)[:4_000].mean(), 0.5, atol=0.03
    )


def test_noise_lasts_for_so_many_steps():
    agent = SAC("Pendulum-v1", noise_steps=4, learning_starts=0)
    num, act, obs = 2_000, jax.jit(agent.functions.act), jnp.zeros((2_000, 3))
    noise, clock = (
        agent.functions.initial_memory(num),
        Clock(jnp.int32(1), jnp.int32(0), jnp.int32(10)),
    )
    noises, actions = [], []
    for step in range(30):
        a, noise, _ = act(agent.params, noise, obs, jax.random.key(step), clock)
        noises.append(noise[:, 0])
        actions.append(a[:, 0])
    noises, u = np.array(noises), np.arctanh(np.array(actions, np.float64) / 2)
    mean = np.arctanh(agent.predict(np.zeros(3), deterministic=True)[0] / 2)
    stddev = np.median((u - mean) / noises)
    np.testing.assert_allclose(u, mean + stddev * noises, atol=1e-3)
    assert stddev > 0.1
    np.testing.assert_allclose(noises[0].std(), math.sqrt(1 - 0.75**2), atol=0.05)
    for lag in (0, 1, 4):
        np.testing.assert_allclose((noises[15] * noises[15 + lag]).mean(), 0.75**lag, atol=0.1)


def test_warm_up_ends_and_learning_begins_as_in_sb3():
    agent = SAC(
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
    assert counts == {
        step: max(step - 80, 0) for step in range(8, 113, 8)
    }  # gradient_steps=-1: one for each environment step
    agent = SAC(
        "Pendulum-v1", **{**FAST, "learning_starts": 10, "train_freq": 1, "gradient_steps": 3}
    ).learn(20, progress_bar=False)
    assert agent.learner_state.n_updates == 30
    act = agent.functions.act
    obs, key = jnp.zeros((1000, 3)), jax.random.key(0)
    early, late = (
        act(agent.params, (), obs, key, Clock(jnp.int32(step), jnp.int32(0), jnp.int32(100)))[0]
        for step in (9, 10)
    )
    assert early.std() > 1.05  # 2 / sqrt(3) for a uniform action
    assert early.min() >= -2 and early.max() <= 2 and (early != late).all()


def test_the_target_follows_the_critics():
    settings = {
        **FAST,
        "learning_starts": 0,
        "train_freq": 1,
        "gradient_steps": 1,
        "tau": 0.25,
        "target_update_interval": 3,
    }
    agent = SAC("Pendulum-v1", **settings)
    states = [jax.device_get(agent.learner_state._replace(key=0, replay=0))]
    agent.learn(
        9,
        progress_bar=False,
        callback=lambda a: states.append(jax.device_get(a.learner_state._replace(key=0, replay=0))),
    )
    for i, (old, new) in enumerate(itertools.pairwise(states), start=1):
        for target, next_target, online in zip(
            *map(leaves, (old.target_critic, new.target_critic, new.params.critic)), strict=True
        ):
            expected = 0.75 * target + 0.25 * online if i % 3 == 0 else target
            np.testing.assert_allclose(next_target, expected, rtol=1e-6)
            assert (next_target != online).any()


def test_a_delayed_policy_learns_less_often():
    agent = SAC(
        "Pendulum-v1",
        **{**FAST, "learning_starts": 0, "train_freq": 1, "gradient_steps": 1, "policy_delay": 3},
    )
    states, logs = [jax.device_get(agent.learner_state._replace(key=0, replay=0))], []

    def watch(a):
        states.append(jax.device_get(a.learner_state._replace(key=0, replay=0)))
        logs.append(float(a.metrics.get("train/actor_loss", np.nan)))

    agent.learn(9, progress_bar=False, callback=watch)
    changes = [
        (leaves(old.params.policy)[0] != leaves(new.params.policy)[0]).any()
        for old, new in itertools.pairwise(states)
    ]
    assert changes == [False, False, True] * 3
    assert [
        old.log_ent_coef != new.log_ent_coef for old, new in itertools.pairwise(states)
    ] == changes
    assert np.isfinite(logs).tolist() == changes
    assert all(
        (leaves(old.params.critic)[0] != leaves(new.params.critic)[0]).any()
        for old, new in itertools.pairwise(states)
    )


def test_the_coefficient_moves_towards_the_target_entropy():
    settings = {**FAST, "ent_coef": "auto_0.5", "learning_starts": 0}
    for target, sign in ((-50.0, -1), (50.0, 1)):  # much less, and much more, than the policy has
        agent = SAC("Pendulum-v1", **settings, target_entropy=target)
        np.testing.assert_allclose(np.exp(agent.learner_state.log_ent_coef), 0.5, rtol=1e-6)
        agent.learn(40, progress_bar=False)
        assert sign * (np.exp(agent.learner_state.log_ent_coef) - 0.5) > 0.01
    agent = SAC("Pendulum-v1", **{**FAST, "ent_coef": 0.3}).learn(100, progress_bar=False)
    np.testing.assert_allclose(agent.metrics["train/ent_coef"], 0.3, rtol=1e-6)
    assert "train/ent_coef_loss" not in agent.metrics


def test_observations_are_normalised_by_statistics_of_the_state(tmp_path):
    class Scaled(probes.ContinuousCue):
        observation_space = spaces.Box(-1e4, 1e4, (1,), np.float32)

        def observe(self):
            return np.array([5000 + 3000 * self.cue], np.float32)

    agent = trained(Scaled, 2_500, normalize_obs=True)
    seen = agent.learner_state.replay.storage.obs_tm1[:2_000]
    statistics = agent.params.obs_statistics
    np.testing.assert_allclose(statistics.count, 2_504)
    np.testing.assert_allclose(statistics.mean[0], np.mean(seen), rtol=0.05)
    np.testing.assert_allclose(np.sqrt(statistics.variance[0]), 3000, rtol=0.01)
    best, _ = agent.predict(column(2000, 8000), deterministic=True)
    np.testing.assert_allclose(best, column(0, 2), atol=0.4)
    loaded = SAC.load(agent.save(tmp_path / "agent"))
    np.testing.assert_array_equal(loaded.predict(column(2000, 8000), deterministic=True)[0], best)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.Dict(
            image=spaces.Box(0, 255, (12, 12, 1), np.uint8),
            place=spaces.Discrete(2),
            inner=spaces.Tuple((spaces.Box(0, 1, (2,)), spaces.MultiBinary(2))),
        ),
    ],
    ids=["discrete", "dict"],
)
def test_every_observation_space_can_be_learned_from(space):
    class Spaced(probes.Continuous, probes.Spaced):
        pass

    space.seed(0)
    agent = SAC(lambda: Spaced(space), n_envs=2, **{**FAST, "buffer_size": 200}, normalize_obs=True)
    before = leaves((agent.params.policy, agent.params.critic))
    agent.learn(96, progress_bar=False)
    after = leaves((agent.params.policy, agent.params.critic))
    assert all(
        (x != y).any() for x, y in zip(before, after, strict=True)
    )  # gradients reach every part
    one = space.sample()
    assert agent.spec.action_space.contains(agent.predict(one)[0])
    assert np.shape(agent.values(one, np.zeros(1))) == ()


def state_of(agent):
    return leaves(
        agent.trainer.run._replace(
            key=jax.random.key_data(agent.trainer.run.key),
            learner_state=agent.learner_state._replace(key=()),
        )
    )


def test_saving_loading_and_resuming_is_exact(tmp_path):
    def make(env=probes.ContinuousTruncated, **kwargs):
        return SAC(env, **{**FAST, "train_freq": 5, "gradient_steps": 2, **kwargs})

    whole = make(prioritized_replay=True, normalize_obs=True).learn(200, progress_bar=False)
    half = make(prioritized_replay=True, normalize_obs=True).learn(100, progress_bar=False)
    resumed = agentzoo.load(half.save(tmp_path / "half"), probes.ContinuousTruncated)
    assert type(resumed) is SAC
    for x, y in zip(state_of(half), state_of(resumed), strict=True):
        np.testing.assert_array_equal(x, y)
    resumed.learn(100, progress_bar=False, reset_num_timesteps=False)
    # The share of the run that is left decides how far importance weights correct, and is another
    # in two runs of half the length.
    half.learn(100, progress_bar=False, reset_num_timesteps=False)
    for x, y in zip(state_of(half), state_of(resumed), strict=True):
        np.testing.assert_array_equal(x, y)
    assert len(state_of(whole)) == len(state_of(half))
    whole, parts = (
        make(noise_steps=10).learn(200, progress_bar=False),
        make(noise_steps=10).learn(100, progress_bar=False),
    )
    parts.learn(100, progress_bar=False, reset_num_timesteps=False)
    for x, y in zip(state_of(whole), state_of(parts), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others():
    def params(seed):
        return leaves(SAC("Pendulum-v1", seed=seed, **FAST).learn(200, progress_bar=False).params)

    for x, y in zip(params(3), params(3), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(params(3), params(4), strict=True))


def test_tags(tmp_path):
    agent = SAC("Pendulum-v1", log_dir=tmp_path, **FAST).learn(
        200, progress_bar=False, log_interval=100
    )
    tags = {"actor_loss", "critic_loss", "ent_coef", "ent_coef_loss", "learning_rate", "n_updates"}
    assert {f"train/{tag}" for tag in tags} <= set(
        (agent.run_dir / "progress.csv").read_text().splitlines()[0].split(",")
    )
    assert agent.logger.values["train/n_updates"] == agent.learner_state.n_updates == 152


class Unbounded(probes.ContinuousConstant):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Whole(probes.ContinuousConstant):
    action_space = spaces.Box(0, 3, (1,), np.int32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAC(Unbounded), "need finite bounds.*RescaleAction"),
        (lambda: SAC(Whole), "are integers"),
        (
            lambda: SAC(lambda: gym.make("Pendulum-v1"), ent_coef="automatic"),
            "ent_coef='automatic'",
        ),
        (lambda: SAC("Pendulum-v1", ent_coef="auto_0"), "ent_coef='auto_0'"),
        (lambda: SAC("Pendulum-v1", ent_coef=-0.1), "ent_coef=-0.1"),
        (lambda: SAC("Pendulum-v1", target_entropy="low"), "target_entropy='low'"),
        (lambda: SAC("Pendulum-v1", gradient_steps=0), "gradient_steps=0"),
        (lambda: SAC("Pendulum-v1", tau=0.0), "tau=0.0"),
        (lambda: SAC("Pendulum-v1", n_critics=0), "n_critics=0"),
        (lambda: SAC("CartPole-v1", noise_steps=2), "noise_steps=2 is for Box"),
        (lambda: SAC("Pendulum-v1", activation="softplus"), "Choose 'relu'"),
        (lambda: SAC("Pendulum-v1", buffer_size=3, train_freq=4), "buffer_size=3"),
        (lambda: SAC("Pendulum-v1").values(np.zeros(3)), r"values\(observation, action\)"),
        (lambda: SAC("CartPole-v1").values(np.zeros(4), 1), r"values\(observation\), without"),
        (lambda: SAC("Pendulum-v1").values(np.zeros(3), np.zeros(2)), "shape"),
    ],
)
def test_bad_input_is_refused_before_training(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.learning
def test_it_learns_to_swing_up_a_pendulum():
    settings = dict(
        learning_rate=3e-3, net_arch=(64, 64), batch_size=64, tau=0.01, buffer_size=10_000
    )
    agent = SAC("Pendulum-v1", seed=1, **settings).learn(4_000, progress_bar=False)
    assert evaluate_policy(agent, "Pendulum-v1", 10, seed=0)[0] > -400  # a random policy has -1200


@pytest.mark.learning
def test_it_learns_cartpole_with_discrete_actions():
    settings = dict(
        learning_rate=2e-3,
        net_arch=(64, 64),
        batch_size=64,
        train_freq=4,
        gradient_steps=2,
        tau=0.01,
        buffer_size=20_000,
    )
    agent = SAC("CartPole-v1", seed=1, **settings).learn(8_000, progress_bar=False)
    assert evaluate_policy(agent, "CartPole-v1", 10, seed=0)[0] > 150  # a random policy has 22
