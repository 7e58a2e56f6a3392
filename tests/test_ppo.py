"""PPO in environments with known values, compared with NumPy, and with each option."""

import functools

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from jax.flatten_util import ravel_pytree

from agentzoo import IMPALA, PPO, ConfigurationError, Linear, checkpoint, evaluate_policy
from agentzoo.algos import impala, ppo
from agentzoo.algos.ppo import PPOConfig, make_agent
from agentzoo.networks.actor_critic import make_actor_critic
from agentzoo.types import Clock, EnvSpec, Trajectory
from tests import probes

FAST = dict(
    n_steps=64,
    batch_size=32,
    n_epochs=8,
    learning_rate=5e-3,
    net_arch=(16,),
    gamma=0.9,
    ortho_init=False,
)
OPTIONS = {
    "plain": dict(ortho_init=True),
    "shared": dict(share_layers=True, clip_range_vf=0.5, target_kl=0.5),
    "lstm": dict(recurrent="lstm", recurrent_size=8, sequence_length=8),
    "gru": dict(recurrent="gru", recurrent_size=8, sequence_length=16, share_layers=True),
}
NORMALISED = dict(normalize_obs=True, normalize_reward=True)
GAMMA = 0.9


def trained(env, steps=2_000, **hyperparameters):
    return PPO(env, **{**FAST, **hyperparameters}).learn(steps, progress_bar=False)


def obs(value):
    return np.array([value], np.float32)


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_and_actions_of_the_probes(options):
    near = {"atol": 0.15}
    np.testing.assert_allclose(
        trained(probes.ConstantReward, 1_000, **options).value(obs(0)), 1, **near
    )
    agent = trained(probes.ObservationReward, **options)
    np.testing.assert_allclose(agent.value(np.array([[-1.0], [1.0]])), [-1, 1], **near)
    agent = trained(probes.ActionReward, **options)
    assert agent.predict(obs(0), deterministic=True)[0] == 1 and agent.value(obs(0)) > 0.7
    agent = trained(probes.CueReward, 4_000, **options)
    assert [int(agent.predict(obs(cue), deterministic=True)[0]) for cue in (-1, 1)] == [0, 1]
    np.testing.assert_allclose(agent.value(np.array([[-1.0], [1.0]])), [1, 1], atol=0.3)


def test_values_over_two_steps():
    agent = trained(probes.DelayedReward)
    np.testing.assert_allclose(agent.value(np.array([[0.0], [1.0]])), [GAMMA, 1], atol=0.1)


@pytest.mark.learning
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_a_time_limit_bootstraps_from_the_true_last_observation(mode):
    def env(probe):
        return probe if mode is None else SyncVectorEnv([probe], autoreset_mode=mode)

    # The state never changes and every step is rewarded with 1, so that the value is that of going
    # on for ever.
    np.testing.assert_allclose(
        trained(env(probes.Truncated), 3_000, gamma=0.5).value(obs(0)), 2, atol=0.2
    )
    np.testing.assert_allclose(
        trained(env(probes.ConstantReward), 1_500).value(obs(0)), 1, atol=0.1
    )


@pytest.mark.learning
def test_a_time_limit_bootstraps_at_the_last_observation_and_not_at_the_next_first():
    class OneStep(gym.Wrapper):
        """Starts at 0 or at -1, and is cut off after a step to -1.

        Reward 1 from 0, and 0 from -1.
        """

        def reset(self, **kwargs):
            super().reset(**kwargs)
            self.position = -1.0 if self.unwrapped.cue < 0 else 0.0
            return obs(self.position), {}

        def step(self, action):
            reward, self.position = float(self.position == 0), -1.0
            return obs(-1.0), reward, False, True, {}

    # With memory, the observation that an episode of one step ends with would be one of a kind that
    # is never acted on.
    agent = trained(lambda: OneStep(probes.ConstantReward()), 2_000)
    np.testing.assert_allclose(agent.value(np.array([[-1.0], [0.0]])), [0, 1], atol=0.15)


# the arithmetic


def rollout(spec, agent, state, length, seed=0, dummies=()):
    """Return a trajectory of random numbers in which episodes terminate and are truncated.

    The recurrent state changes as in a runner.
    """
    rng, shape = np.random.default_rng(seed), (length, spec.num_envs)
    obs_tm1 = rng.normal(size=(*shape, *spec.observation_space.shape)).astype(np.float32)
    obs_t = np.concatenate([obs_tm1[1:], obs_tm1[:1]])
    last_t = rng.random(shape) < 0.3
    discount_t = 1.0 - (last_t & (rng.random(shape) < 0.5)).astype(np.float32)
    obs_t[last_t] = rng.normal(size=obs_t[last_t].shape)
    first_tm1 = np.concatenate([np.ones((1, spec.num_envs), bool), last_t[:-1]])
    mask = np.ones(shape, bool)
    for t, n in dummies:
        mask[t, n] = False
    memory, rows, act = agent.initial_memory(spec.num_envs), [], jax.jit(agent.act)
    first_memory = memory
    for t in range(length):
        initial = agent.initial_memory(spec.num_envs)
        memory = jax.tree.map(lambda i, m: jnp.where(first_tm1[t][:, None], i, m), initial, memory)  # noqa: B023
        a_tm1, memory, extras = act(
            state.params, memory, obs_tm1[t], jax.random.key(100 * seed + t), Clock(*jnp.zeros(3))
        )
        rows.append((a_tm1, extras))
    a_tm1, extras = jax.tree.map(lambda *xs: np.stack(xs), *rows)
    r_t = rng.normal(size=shape).astype(np.float32)
    return Trajectory(
        obs_tm1, a_tm1, r_t, discount_t, obs_t, last_t, first_tm1, mask, extras, first_memory
    )


SPEC = EnvSpec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3), 2)
BOX = SPEC._replace(action_space=spaces.Box(-1, 1, (2,)))
CLOCK = Clock(jnp.float32(50), jnp.float32(10), jnp.float32(100))


def numpy_policy_and_value(params, data, spec):
    """Return log-probabilities, entropies, and the values of `obs_tm1` and `obs_t`.

    The networks have one hidden layer.
    """

    def layers(name, x, head):
        x = np.tanh(x @ params[f"{name}/linear"]["w"] + params[f"{name}/linear"]["b"])
        return x @ params[head]["w"] + params[head]["b"]

    obs_tm1, obs_t = data.obs_tm1.astype(float), data.obs_t.astype(float)
    outputs, v_tm1, v_t = (
        layers("policy", obs_tm1, "policy_head"),
        *(layers("value", x, "value_head")[..., 0] for x in (obs_tm1, obs_t)),
    )
    if isinstance(spec.action_space, spaces.Box):
        log_std = params["~"]["log_std"]
        z = (data.extras["a_tm1"] - outputs) / np.exp(log_std)
        entropy = np.full(v_t.shape, (0.5 * np.log(2 * np.pi * np.e) + log_std).sum())
        return (-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_std).sum(axis=-1), entropy, v_tm1, v_t
    log_probs = outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=-1)
    return np.take_along_axis(log_probs, data.a_tm1[..., None], -1)[..., 0], entropy, v_tm1, v_t


def numpy_advantages(params, data, config, spec):
    _, _, v_tm1, v_t = numpy_policy_and_value(params, data, spec)
    adv, following = np.zeros(v_t.shape), np.zeros(v_t.shape[1])
    for t in reversed(range(len(adv))):
        delta = data.r_t[t] + config.gamma * data.discount_t[t] * v_t[t] - v_tm1[t]
        following = (
            delta
            + config.gamma
            * config.gae_lambda
            * data.discount_t[t]
            * (1 - data.last_t[t])
            * following
        )
        following = adv[t] = np.where(data.mask[t], following, 0)
    return v_tm1, adv


def numpy_loss(params, data, config, spec, v_tm1, adv):
    """PPO's loss of a whole trajectory, given the values and advantages before the first pass."""
    weight = data.mask / data.mask.sum()
    log_prob, entropy, v, _ = numpy_policy_and_value(params, data, spec)
    normal = adv - (weight * adv).sum()
    normal = normal / (np.sqrt((weight * normal**2).sum()) + 1e-8)
    ratio = np.exp(log_prob - data.extras["log_prob_tm1"])
    policy_loss = -(
        weight
        * np.minimum(
            ratio * normal, np.clip(ratio, 1 - config.clip_range, 1 + config.clip_range) * normal
        )
    ).sum()
    target, clipped = (
        adv + v_tm1,
        v_tm1 + np.clip(v - v_tm1, -config.clip_range_vf, config.clip_range_vf),
    )
    value_loss = (weight * np.maximum((v - target) ** 2, (clipped - target) ** 2)).sum()
    return policy_loss + config.vf_coef * value_loss - config.ent_coef * (weight * entropy).sum()


@pytest.mark.parametrize("spec", [SPEC, BOX], ids=["Discrete", "Box"])
def test_two_gradient_steps_against_numpy(spec):
    config = PPOConfig(
        n_steps=6,
        batch_size=12,
        n_epochs=2,
        net_arch=(3,),
        learning_rate=1e5,
        adam_eps=1e5,
        max_grad_norm=0.3,
        ent_coef=0.1,
        clip_range_vf=0.01,
        gamma=0.9,
        gae_lambda=0.8,
        ortho_init=False,
    )
    agent = make_agent(config, spec)
    state = jax.jit(agent.init)(jax.random.key(3))
    data = rollout(spec, agent, state, 6, seed=1, dummies=[(2, 0), (4, 1)])
    shift = (
        np.random.default_rng(5).normal(size=(6, 2)).astype(np.float32) * 0.3
    )  # as if another policy had acted
    data.extras["log_prob_tm1"] += shift
    params = jax.tree.map(lambda x: np.asarray(x, float), state.params.network)
    before = numpy_advantages(params, data, config, spec)
    leaves = jax.tree.leaves(params)
    first, second = [np.zeros(x.shape) for x in leaves], [np.zeros(x.shape) for x in leaves]
    for i in (1, 2):
        grads = [np.zeros(x.shape) for x in leaves]
        for x, grad in zip(
            leaves, grads, strict=True
        ):  # the leaves are those of `params`, which change with them
            for index in np.ndindex(x.shape):
                value, results = x[index], []
                for moved in (value + 1e-5, value - 1e-5):
                    x[index] = moved
                    results.append(numpy_loss(params, data, config, spec, *before))
                x[index] = value
                grad[index] = (results[0] - results[1]) / 2e-5
        scale = min(1, config.max_grad_norm / np.sqrt(sum((grad**2).sum() for grad in grads)))
        for k, (x, grad) in enumerate(zip(leaves, grads, strict=True)):  # Adam
            first[k], second[k] = (
                0.9 * first[k] + 0.1 * scale * grad,
                0.999 * second[k] + 0.001 * (scale * grad) ** 2,
            )
            x -= 1e5 * first[k] / (1 - 0.9**i) / (np.sqrt(second[k] / (1 - 0.999**i)) + 1e5)
    learned, metrics = jax.jit(agent.learn)(state, data, CLOCK)
    assert metrics["train/clip_fraction"] > 0.1 and metrics["train/n_updates"] == 2
    changed = jax.tree.map(
        lambda new, start: np.abs(new - start).max(), params, jax.device_get(state.params.network)
    )
    assert min(jax.tree.leaves(changed)) > 1e-4
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6),
        jax.device_get(learned.params.network),
        params,
    )


@pytest.mark.parametrize(
    "options", [{}, NORMALISED, OPTIONS["lstm"]], ids=["plain", "normalised", "lstm"]
)
def test_what_dummy_steps_hold_does_not_matter(options):
    config = PPOConfig(**{**FAST, "n_steps": 16, "batch_size": 16, **options})
    agent = make_agent(config, BOX)
    state = jax.jit(agent.init)(jax.random.key(0))
    data = rollout(BOX, agent, state, 16, dummies=[(3, 0), (8, 1)])
    # After a dummy step an episode begins.
    first, last = data.first_tm1.copy(), data.last_t.copy()
    first[4, 0] = first[9, 1] = last[2, 0] = last[7, 1] = True
    last[3, 0] = last[8, 1] = False
    data = data._replace(first_tm1=first, last_t=last)

    def garbage(x):
        return np.where(data.mask.reshape(data.mask.shape + (1,) * (x.ndim - 2)), x, 77).astype(
            x.dtype
        )

    other = data._replace(
        obs_tm1=garbage(data.obs_tm1),
        r_t=garbage(data.r_t),
        obs_t=garbage(data.obs_t),
        a_tm1=garbage(data.a_tm1),
        discount_t=garbage(data.discount_t),
        extras=jax.tree.map(garbage, data.extras),
    )
    learn = jax.jit(agent.learn)
    (one, m_one), (two, m_two) = learn(state, data, CLOCK), learn(state, other, CLOCK)
    for x, y in zip(
        jax.tree.leaves((one._replace(key=()), m_one)),
        jax.tree.leaves((two._replace(key=()), m_two)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "options", [*OPTIONS.values(), dict(normalize_obs=True)], ids=[*OPTIONS, "normalised"]
)
def test_learning_sees_the_policy_that_acted(options):
    """All ratios are 1 before the first update.

    So memory, resets, sequences and statistics are the same in learning and in acting.
    """
    agent = make_agent(
        PPOConfig(**{**FAST, "n_steps": 32, "n_epochs": 1, "learning_rate": 1e-12, **options}), BOX
    )
    state = jax.jit(agent.init)(jax.random.key(0))
    for seed in range(3):
        data = rollout(BOX, agent, state, 32, seed)
        state, metrics = jax.jit(agent.learn)(state, data, CLOCK)
        assert 0 <= metrics["train/approx_kl"] < 1e-8 and metrics["train/clip_fraction"] == 0
        assert abs(metrics["train/policy_gradient_loss"]) < 1e-5


def moves(env, **options):
    """Whether training moves the policy."""
    agent = PPO(env, **{**FAST, "n_steps": 2, "n_epochs": 2, **options})
    before = jax.device_get(agent.params.network["policy_head"])
    after = jax.device_get(agent.learn(64, progress_bar=False).params.network["policy_head"])
    return any((before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize(
    "memory",
    [{}, {"recurrent": "gru", "recurrent_size": 4, "sequence_length": 2}],
    ids=["plain", "memory"],
)
def test_minibatches_with_a_single_step_move_the_policy(memory):
    if not memory:
        assert moves(probes.ActionReward, batch_size=1)
    # Of two steps, one is a dummy: the episodes have one step.
    env = SyncVectorEnv([probes.ActionReward], autoreset_mode=AutoresetMode.NEXT_STEP)
    assert moves(env, batch_size=2, **memory)
    assert moves(probes.ActionReward, batch_size=2, **memory)


@pytest.mark.learning
def test_actions_are_learned_from_minibatches_of_one_step():
    agent = trained(
        probes.ActionReward, 1_000, n_steps=16, batch_size=1, n_epochs=2, learning_rate=1e-3
    )
    assert agent.predict(obs(0), deterministic=True)[0] == 1
    assert agent.predict(np.zeros((200, 1)))[0].mean() > 0.9


EXTREMES = [100.0, -100.0, np.inf, -np.inf]


def check_extreme_ratios(config, make_agent, log_ratio):
    """Check that parameters change and stay finite if the log-ratio of one step is extreme."""
    agent = make_agent(config, SPEC)
    state = jax.jit(agent.init)(jax.random.key(0))
    for seed in range(2):  # advantages of either sign
        data = rollout(SPEC, agent, state, config.n_steps, seed)
        data.extras["log_prob_tm1"][1, 0] -= log_ratio
        learned, metrics = jax.jit(agent.learn)(state, data, CLOCK)
        before, after = (jax.tree.leaves(jax.device_get(s.params)) for s in (state, learned))
        assert all(np.isfinite(x).all() for x in after)
        assert any((x != y).any() for x, y in zip(before, after, strict=True))
        assert np.isfinite(metrics["train/loss"])
    return metrics


@pytest.mark.parametrize("log_ratio", EXTREMES)
def test_extreme_ratios_do_not_destroy_the_parameters(log_ratio):
    config = PPOConfig(**{**FAST, "n_steps": 8, "batch_size": 8, "n_epochs": 2, "ent_coef": 0.01})
    check_extreme_ratios(config, make_agent, log_ratio)


def policy_of(agent, obs):
    """The policy's distribution for observations `[N, ...]`, as it is inside."""
    model = make_actor_critic(
        agent.spec, net_arch=(16,), state_dependent_std=agent.config.state_dependent_std
    )
    params = getattr(agent.params, "network", agent.params)
    return model.apply(params, obs[None], None, jnp.zeros((1, len(obs)), bool), ()).policy


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("algorithm", [PPO, IMPALA])
def test_policies_of_old_files_act_as_before(tmp_path, monkeypatch, algorithm, dependent):
    """Loading converts policies whose Box actions are in the environment's units.

    It converts the optimiser's state too.
    """

    class Env(probes.Probe):
        action_space = PARTLY_BOUNDED

        def check(self, action):
            return 0

    options = dict(n_steps=16, net_arch=(16,), state_dependent_std=dependent)
    old = algorithm(
        Env, learning_rate=1e-2, **options, **({"batch_size": 16} if algorithm is PPO else {})
    )
    old.learn(64, progress_bar=False)
    old_names = {"learner_state": "agent", "act_calls": "moves"}

    def save(path, tree, manifest, plain=checkpoint.save):
        # Files of that time hold no episodes of Python environments.
        tree = {old_names.get(name, name): part for name, part in tree.items()}
        del tree["rollout_state"]
        return plain(path, tree, {**manifest, "revision": 1})

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        path = old.save(tmp_path / "old")
    new = algorithm.load(path)
    middle, half = np.float32([0.1, 1.5, 0, 0]), np.float32([0.2, 1.5, 1, 1])
    obs = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    before, after = policy_of(old, obs), policy_of(new, obs)
    np.testing.assert_allclose(middle + half * after.mode(), before.mode(), atol=1e-6)
    np.testing.assert_allclose(half * after.stddev(), before.stddev(), rtol=1e-5)
    actions, _ = new.predict(obs, deterministic=True)
    np.testing.assert_allclose(actions, np.clip(before.mode()[0], LOW, HIGH), atol=1e-5)

    def gradients(agent):
        """The optimiser's mean gradient and mean squared gradient of the means' biases."""
        opt_state, params = (
            agent.learner_state.opt_state,
            getattr(agent.params, "network", agent.params),
        )
        moments = [optax.tree_utils.tree_get(opt_state, name) for name in ("mu", "nu")]
        if algorithm is PPO:
            moments = [ravel_pytree(params)[1](moment) for moment in moments]
        return [moment["policy_head"]["b"][:4] for moment in moments]

    (mean, square), (new_mean, new_square) = gradients(old), gradients(new)
    np.testing.assert_allclose(new_mean, half * mean, rtol=1e-5)
    np.testing.assert_allclose(new_square, half**2 * square, rtol=1e-5)
    again = algorithm.load(new.save(tmp_path / "new"))
    jax.tree.map(np.testing.assert_array_equal, again.params, new.params)  # converted once


# options


def test_statistics_are_those_of_all_that_was_observed(tmp_path):
    seen, sums = [], []

    class Recorded(probes.Counter):
        """An environment with random observations and rewards.

        It records the observations and the discounted sums of the rewards.
        """

        def note(self, observation):
            seen.append(observation)
            return observation

        def reset(self, **kwargs):
            super().reset(**kwargs)
            self.sum = 0.0
            return self.note(self.np_random.normal(100, 3, 2).astype(np.float32)), {}

        def step(self, action):
            _, _, terminated, truncated, _ = super().step(action)
            reward = float(np.float32(self.np_random.normal(2, 5)))
            self.sum = 0.9 * self.sum + reward
            sums.append(self.sum)
            over = terminated or truncated
            observation = self.np_random.normal(100, 3, 2).astype(np.float32)
            return (
                observation if over else self.note(observation),
                reward,
                terminated,
                truncated,
                {},
            )

    agent = PPO(
        Recorded, normalize_obs=True, normalize_reward=True, **{**FAST, "n_steps": 32}
    ).learn(96, progress_bar=False)
    statistics, rewards = (
        agent.params.obs_statistics,
        agent.learner_state.reward_normalizer.statistics,
    )
    acted_on = np.array(seen[:96], float)  # the last has not been acted on
    assert statistics.count == rewards.count == 96 and len(sums) == 96
    np.testing.assert_allclose(statistics.mean[0], acted_on.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.variance[0], acted_on.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(rewards.variance, np.var(sums), rtol=1e-4)

    before, one = jax.device_get(statistics), np.array([101.0, 99.0], np.float32)
    value = agent.value(one)
    agent.predict(one)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(agent.params.obs_statistics))
    loaded = PPO.load(agent.save(tmp_path / "agent"))
    jax.tree.map(
        np.testing.assert_array_equal, before, jax.device_get(loaded.params.obs_statistics)
    )
    np.testing.assert_array_equal(loaded.value(one), value)


@pytest.mark.parametrize(
    "options", [{}, NORMALISED, OPTIONS["lstm"]], ids=["plain", "normalised", "lstm"]
)
def test_a_loaded_agent_learns_on_exactly(tmp_path, options):
    """Loading does not change what is learned if every `reset` returns the same state."""

    def make():
        return PPO(
            probes.Truncated,
            **{**FAST, "n_steps": 20, "batch_size": 10, **options, "sequence_length": 5},
        )

    whole = make().learn(200, progress_bar=False)
    path = make().learn(100, progress_bar=False).save(tmp_path / "half")
    resumed = PPO.load(path, probes.Truncated).learn(
        100, progress_bar=False, reset_num_timesteps=False
    )
    for x, y in zip(
        *(
            jax.tree.leaves(jax.device_get(a.learner_state._replace(key=())))
            for a in (whole, resumed)
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


class Target(probes.Probe):
    """Rewards an action for being near to the target."""

    def __init__(self, action_space, target):
        self.action_space, self.target = action_space, np.asarray(target)

    def step(self, action):
        assert self.action_space.contains(action), action
        return (
            self.observe(),
            -float(np.square(np.asarray(action) - self.target).mean()),
            True,
            False,
            {},
        )


@pytest.mark.parametrize("space, target", [
    (spaces.Discrete(4, start=3), 4),
    (spaces.MultiDiscrete([2, 4, 3]), [1, 2, 0]),
    (spaces.MultiDiscrete(np.array([[2, 3], [3, 2]])), [[1, 2], [0, 1]]),
    (spaces.MultiBinary(3), [1, 0, 1]),
    (spaces.MultiBinary([2, 2]), [[1, 0], [1, 1]]),
    (spaces.Box(-1, 1, (2,)), [0.5, -0.4]),
    (spaces.Box(-5, np.inf, (1, 2), np.float64), [[1.0, -0.4]]),
], ids=str)  # fmt: skip
def test_every_action_space(space, target):
    agent = trained(
        lambda: Target(space, target), 6_000, learning_rate=Linear(1e-2), log_std_init=-0.5
    )
    action, _ = agent.predict(obs(0), deterministic=True)
    assert space.contains(np.asarray(action, space.dtype)) and np.shape(action) == space.shape
    np.testing.assert_allclose(action, target, atol=0.15)
    actions, _ = agent.predict(np.zeros((5, 1)))
    assert actions.shape == (5, *space.shape)


LOW, HIGH = np.float32([-0.1, 0, -np.inf, 0]), np.float32([0.3, 3, 2, np.inf])
PARTLY_BOUNDED = spaces.Box(LOW, HIGH)  # in two of four dimensions


@pytest.mark.parametrize(
    "module, config", [(ppo, ppo.PPOConfig), (impala, impala.IMPALAConfig)], ids=["PPO", "IMPALA"]
)
def test_the_environment_gets_scaled_and_clipped_actions(module, config):
    """A standard deviation of 1 is half of the distance between finite bounds.

    Elsewhere, it is one unit of the environment.
    """
    spec = EnvSpec(spaces.Box(-1, 1, (2,)), PARTLY_BOUNDED, 4_000)
    agent = module.make_agent(config(), spec)
    state = jax.jit(agent.init)(jax.random.key(0))
    obs = np.zeros((4_000, 2), np.float32)
    action, _, extras = agent.act(state.params, (), obs, jax.random.key(1), CLOCK)
    drawn = extras["a_tm1"]  # what the policy learns from
    np.testing.assert_allclose(drawn.std(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(
        extras["log_prob_tm1"], (-0.5 * drawn**2 - 0.5 * np.log(2 * np.pi)).sum(axis=1), atol=1e-4
    )
    in_units = np.float32([0.1, 1.5, 0, 0]) + np.float32([0.2, 1.5, 1, 1]) * drawn
    np.testing.assert_allclose(action, np.clip(in_units, LOW, HIGH), atol=1e-6)
    assert ((action >= LOW) & (action <= HIGH)).all()
    best, _ = agent.predict(state.params, (), obs[:1], jax.random.key(1), True)
    np.testing.assert_allclose(best[0], [0.1, 1.5, 0, 0], atol=0.05)


def test_the_standard_deviation_may_depend_on_the_observation():
    class Noise(probes.Probe):
        """The cue 1 rewards actions far from 0 of either sign, and -1 rewards actions near 0."""

        action_space = spaces.Box(-np.inf, np.inf, (1,))

        def observe(self):
            return np.array([self.cue], np.float32)

        def step(self, action):
            return self.observe(), self.cue * min(abs(float(action[0])), 3.0), True, False, {}

    agent = trained(Noise, 6_000, state_dependent_std=True, log_std_init=-1.0)
    spread = [np.std(agent.predict(np.full((500, 1), cue))[0]) for cue in (-1.0, 1.0)]
    assert spread[1] > 3 * spread[0]


class Masked(probes.Probe):
    """One of four actions is right, two are illegal; the mask is a part of what is observed."""

    length = 3
    action_space = spaces.Discrete(4)
    observation_space = spaces.Dict(
        place=spaces.Discrete(4), action_mask=spaces.Box(0, 1, (4,), np.int8)
    )

    def observe(self):
        self.place = int(self.np_random.integers(4))
        mask = np.ones(4, np.int8)
        mask[[(self.place + 1) % 4, (self.place + 2) % 4]] = 0
        return dict(
            place=self.place, action_mask=mask if self.t < self.length else 0 * mask
        )  # none is legal at the end

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return super().reset(seed=seed)

    def step(self, action):
        assert (action - self.place) % 4 in (0, 3), "illegal"
        reward, self.t = float(action == self.place), self.t + 1
        return self.observe(), reward, self.t == self.length, False, {}


@pytest.mark.parametrize("mode", [None, AutoresetMode.SAME_STEP], ids=str)
def test_illegal_actions_are_never_taken(mode):
    env = Masked if mode is None else SyncVectorEnv([Masked] * 2, autoreset_mode=mode)
    agent = trained(env, 3_000)
    assert evaluate_policy(agent, Masked, 20) == (3.0, 0.0)
    observation = dict(place=np.zeros(200, int), action_mask=np.tile([0, 1, 1, 0], (200, 1)))
    assert set(np.unique(agent.predict(observation)[0])) <= {1, 2}
    assert agent.metrics["train/entropy_loss"] > -np.log(2)


@pytest.mark.parametrize("space, mask, legal", [
    (spaces.MultiDiscrete([2, 3]), [1, 0, 0, 1, 1], {(0, 1), (0, 2)}),
    (spaces.MultiBinary(3), [0, 1, 1], {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}),
], ids=str)  # fmt: skip
def test_masks_of_several_choices(space, mask, legal):
    class Env(probes.Probe):
        action_space = space
        observation_space = spaces.Dict(
            obs=spaces.Box(-1, 1, (1,)), action_mask=spaces.MultiBinary(len(mask))
        )

        def observe(self):
            return dict(obs=obs(0), action_mask=np.array(mask, np.int8))

        def step(self, action):
            assert tuple(action) in legal
            return self.observe(), float(np.sum(action)), True, False, {}

    agent = trained(Env, 300)
    assert np.isfinite(float(agent.metrics["train/loss"]))
    untrained = PPO(Env, **FAST)
    actions, _ = untrained.predict(
        dict(obs=np.zeros((300, 1)), action_mask=np.tile(mask, (300, 1)))
    )
    assert {tuple(action) for action in actions} == legal


# memory


class Recall(probes.Probe):
    """A cue at the beginning says which action is rewarded at the end, `length` steps later.

    The observations in between say nothing.
    """

    length = 4
    observation_space = spaces.Box(-1, 1, (2,))

    def observe(self):
        return np.array(
            [self.cue if self.t == 0 else 0.0, float(self.t == self.length - 1)], np.float32
        )

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return super().reset(seed=seed)

    def reward(self, action):
        return (
            (1.0 if (action == 1) == (self.cue > 0) else -1.0) if self.t == self.length - 1 else 0.0
        )


RECALL = dict(
    n_envs=8,
    n_steps=32,
    batch_size=64,
    n_epochs=8,
    learning_rate=5e-3,
    sequence_length=16,
    recurrent_size=16,
    ent_coef=0.01,
)


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_a_cue_is_recalled_with_memory(recurrent):
    agent = trained(Recall, 12_000, recurrent=recurrent, **RECALL)
    assert evaluate_policy(agent, Recall, 100, seed=5)[0] == 1.0


def test_a_cue_is_not_recalled_without():
    agent = trained(Recall, 12_000, **RECALL)
    assert abs(evaluate_policy(agent, Recall, 100, seed=5)[0]) < 0.5


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_a_new_memory_lasts_as_long_as_it_is_said_to(recurrent):
    @functools.partial(jax.jit, static_argnums=0)
    def initialised(span):
        """Return the biases of a new memory, and its reach.

        The reach is the gradient of the value after 50 steps with respect to the first observation,
        divided by the gradient with respect to the last one.
        """
        model = make_actor_critic(
            SPEC,
            net_arch=(4,),
            shared=True,
            orthogonal=False,
            recurrent=recurrent,
            recurrent_span=span,
        )
        params, obs = (
            model.init(jax.random.key(0)),
            jax.random.normal(jax.random.key(1), (50, 1, 2)),
        )
        first, memory = jnp.zeros((50, 1), bool), model.initial_memory(1)
        grads = jax.grad(lambda obs: model.apply(params, obs, None, first, memory).v[-1, 0])(obs)
        biases = [layer["b"] for name, layer in params.items() if recurrent in name]
        return biases, jnp.linalg.norm(grads[0]) / jnp.linalg.norm(grads[-1])

    [bias], reach = initialised(64)
    steps = np.exp(
        bias[128:192] + 1 if recurrent == "lstm" else -bias[:64]
    )  # of the gates that forget
    assert 1 <= steps.min() < 4 and 59 < steps.max() <= 63
    assert reach > 0.02 and initialised(2)[1] < 1e-6


def test_predict_carries_memory_and_resets_it():
    agent = PPO("CartPole-v1", n_envs=2, **{**FAST, **OPTIONS["lstm"]})
    first, later = np.ones((3, 4), np.float32), -np.ones((3, 4), np.float32)
    _, fresh = agent.predict(later, episode_start=np.ones(3, bool), deterministic=True)
    _, state = agent.predict(first, deterministic=True)
    _, kept = agent.predict(
        later, state=state, episode_start=np.array([False, True, False]), deterministic=True
    )
    for x, y in zip(
        jax.tree.leaves(jax.device_get(kept)), jax.tree.leaves(jax.device_get(fresh)), strict=True
    ):
        np.testing.assert_array_equal(x[1], y[1])
        assert (np.abs(x[[0, 2]] - y[[0, 2]]) > 1e-4).any()
    action, state = agent.predict(first[0])
    assert np.shape(action) == () and jax.tree.leaves(state)[0].shape == (1, 8)


# learning


@pytest.mark.learning
def test_cartpole_is_learned():
    agent = PPO(
        "CartPole-v1",
        n_envs=8,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gae_lambda=0.8,
        gamma=0.98,
        learning_rate=Linear(2e-3),
        seed=1,
    )
    agent.learn(30_000, progress_bar=False)
    assert evaluate_policy(agent, "CartPole-v1", 20, seed=77)[0] > 300  # a random policy has 22


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others():
    def params(seed):
        return jax.tree.leaves(
            jax.device_get(
                PPO("CartPole-v1", seed=seed, **FAST).learn(200, progress_bar=False).params
            )
        )

    for x, y in zip(params(3), params(3), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(params(3), params(4), strict=True))


def image_space():
    return spaces.Box(0, 255, (40, 40, 3), np.uint8)


@pytest.mark.parametrize("space", [
    image_space(),
    spaces.Discrete(4, start=2),
    spaces.MultiBinary(3),
    spaces.Dict(
        image=image_space(),
        inner=spaces.Tuple((spaces.Box(0, 1, (2,)), spaces.MultiDiscrete([2, 2]))),
    ),
], ids=str)  # fmt: skip
def test_every_observation_space_can_be_learned_from(space):
    space.seed(0)
    agent = PPO(
        lambda: probes.Spaced(space),
        n_envs=2,
        normalize_obs=True,
        **{**FAST, "n_steps": 16, "n_epochs": 2},
    )
    before = jax.device_get(agent.params.network)
    agent.learn(64, progress_bar=False)
    changed = jax.tree.map(
        lambda x, y: bool((x != y).any()), before, jax.device_get(agent.params.network)
    )
    assert all(jax.tree.leaves(changed))  # gradients reach every part of the network
    action, state = agent.predict(space.sample(), deterministic=True)
    assert agent.spec.action_space.contains(action) and state is None


def test_initialisation_is_orthogonal():
    params = PPO("CartPole-v1").params.network
    np.testing.assert_allclose(
        params["policy/linear_1"]["w"].T @ params["policy/linear_1"]["w"], 2 * np.eye(64), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.svd(params["policy_head"]["w"])[1], 0.01, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(params["value_head"]["w"]), 1, rtol=1e-4)
    assert all((layer["b"] == 0).all() for layer in params.values())


def test_a_cycle_ends_at_the_target_kl():
    agent = trained("CartPole-v1", 64, target_kl=1e-4)
    assert 1 <= agent.metrics["train/n_updates"] < 16
    assert trained("CartPole-v1", 64).metrics["train/n_updates"] == 16


def test_tags_and_schedules():
    agent = trained(
        "Pendulum-v1",
        256,
        learning_rate=Linear(1e-2, 1e-3),
        clip_range=lambda remaining: 0.1 + remaining,
    )
    assert set(agent.metrics) == {
        f"train/{tag}"
        for tag in (
            "approx_kl",
            "clip_fraction",
            "clip_range",
            "entropy_loss",
            "explained_variance",
            "learning_rate",
            "loss",
            "n_updates",
            "policy_gradient_loss",
            "std",
            "value_loss",
        )
    }
    rates = [agent.metrics["train/learning_rate"], agent.metrics["train/clip_range"]]
    expected = [1e-3 + 0.25 * 9e-3, 0.1 + 0.25]  # when the last of four cycles began
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "preset, env",
    [("pixels", lambda: probes.Spaced(image_space())), ("mujoco", lambda: gym.make("Pendulum-v1"))],
)
def test_presets(preset, env):
    agent = PPO(env, preset=preset, n_steps=16, batch_size=8).learn(32, progress_bar=False)
    assert np.isfinite(float(agent.metrics["train/loss"])) and agent.params is not None


class IntegerActions(probes.Probe):
    action_space = spaces.Box(0, 3, (2,), np.int64)


def masked(**parts):
    class Env(probes.Probe):
        observation_space = spaces.Dict(**parts)

    return Env


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPO("CartPole-v1", n_steps=100), "Use a batch_size of 50"),
        (
            lambda: PPO(
                "CartPole-v1",
                n_envs=3,
                n_steps=40,
                recurrent="gru",
                sequence_length=10,
                batch_size=50,
            ),
            "Use a batch_size of 40",
        ),
        (
            lambda: PPO("CartPole-v1", n_steps=100, recurrent="gru"),
            "sequence_length=64 does not divide n_steps=100",
        ),
        (
            lambda: PPO("CartPole-v1", recurrent="rnn"),
            "recurrent='rnn' is unknown. Choose 'lstm', 'gru' or None",
        ),
        (lambda: PPO(IntegerActions), "are integers"),
        (
            lambda: PPO(masked(action_mask=spaces.MultiBinary(3), x=spaces.Discrete(2))),
            r"expected MultiBinary\(2\)",
        ),
        (lambda: PPO(masked(action_mask=spaces.MultiBinary(2))), "nothing but"),
        (lambda: PPO("CartPole-v1", clip_range=0.0), "clip_range=0.0 is out of range"),
    ],
)
def test_bad_input_is_refused_before_training(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("cls", [PPO, IMPALA])
def test_the_deviation_of_box_actions_changes_no_other_policy(cls):
    plain, dependent = (
        cls("CartPole-v1", net_arch=(8,), state_dependent_std=std) for std in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, plain.params, dependent.params)
