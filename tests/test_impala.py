"""IMPALA against environments whose values are known, and what holds for each of its options."""

import functools

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import IMPALA, ConfigurationError, Linear, evaluate_policy
from agentzoo.algos.impala import IMPALAConfig, make_agent
from tests import probes
from tests.test_ppo import (
    BOX,
    CLOCK,
    EXTREMES,
    SPEC,
    Masked,
    Recall,
    Target,
    check_extreme_ratios,
    numpy_policy_and_value,
    rollout,
)

FAST = dict(
    n_steps=16,
    learning_rate=Linear(1e-2),
    net_arch=(16,),
    gamma=0.9,
    normalize_reward=False,
    ortho_init=False,
)
OPTIONS = {
    "adam": dict(ortho_init=True),
    "rmsprop": dict(optimizer="rmsprop", share_layers=True),
    "lstm": dict(recurrent="lstm", recurrent_size=8),
}


def trained(env, steps=4_000, **hyperparameters):
    return IMPALA(env, **{**FAST, **hyperparameters}).learn(steps, progress_bar=False)


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_and_actions_of_the_probes(options):
    agent = trained(probes.ObservationReward, **options)
    np.testing.assert_allclose(agent.value(np.array([[-1.0], [1.0]])), [-1, 1], atol=0.15)
    agent = trained(probes.CueReward, 6_000, **options)
    assert [int(agent.predict(np.full(1, cue), deterministic=True)[0]) for cue in (-1.0, 1.0)] == [
        0,
        1,
    ]


def test_values_over_two_steps():
    np.testing.assert_allclose(
        trained(probes.DelayedReward).value(np.array([[0.0], [1.0]])), [0.9, 1], atol=0.1
    )


@pytest.mark.learning
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_a_time_limit_bootstraps_from_the_true_last_observation(mode):
    env = (
        probes.Truncated if mode is None else SyncVectorEnv([probes.Truncated], autoreset_mode=mode)
    )
    np.testing.assert_allclose(trained(env, gamma=0.5).value(np.zeros(1)), 2, atol=0.2)


@pytest.mark.parametrize("spec", [SPEC, BOX], ids=["Discrete", "Box"])
def test_a_gradient_step_against_numpy(spec):
    config = IMPALAConfig(
        n_steps=6,
        net_arch=(3,),
        learning_rate=1e5,
        optimizer_eps=1e5,
        max_grad_norm=0.3,
        ent_coef=0.1,
        gamma=0.9,
        vtrace_lambda=0.8,
        clip_rho=1.1,
        clip_pg_rho=1.2,
        normalize_reward=False,
        ortho_init=False,
    )
    agent = make_agent(config, spec)
    state = jax.jit(agent.init)(jax.random.key(3))
    data = rollout(spec, agent, state, 6, seed=1, dummies=[(2, 0), (4, 1)])
    data.extras["log_prob_tm1"] += (
        np.random.default_rng(5).normal(size=(6, 2)).astype(np.float32) * 0.3
    )  # as if another had acted
    params = jax.tree.map(lambda x: np.asarray(x, float), state.params)
    log_prob, _, v, v_t = numpy_policy_and_value(params, data, spec)
    rho, discount_t = np.exp(log_prob - data.extras["log_prob_tm1"]), 0.9 * data.discount_t
    target, advantage, following = np.zeros(v.shape), np.zeros(v.shape), v_t[-1]
    for t in reversed(range(6)):
        following = np.where(data.last_t[t], v_t[t], following)
        if t < 5:  # a dummy step has no target: what comes before it bootstraps
            following = np.where(data.mask[t + 1], following, v_t[t])
        delta = np.minimum(1.1, rho[t]) * (data.r_t[t] + discount_t[t] * v_t[t] - v[t])
        target[t] = (
            v[t] + delta + discount_t[t] * 0.8 * np.minimum(1, rho[t]) * (following - v_t[t])
        )
        advantage[t] = np.minimum(1.2, rho[t]) * (
            data.r_t[t] + discount_t[t] * (v_t[t] + 0.8 * (following - v_t[t])) - v[t]
        )
        following = target[t]

    def loss():
        log_prob, entropy, v, _ = numpy_policy_and_value(params, data, spec)
        each = (
            -log_prob * advantage + config.vf_coef * (target - v) ** 2 - config.ent_coef * entropy
        )
        return (data.mask * each).sum() / data.mask.sum()

    grads = []
    for x in jax.tree.leaves(params):  # the leaves are those of `params`, which change with them
        grad = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            value, results = x[index], []
            for moved in (value + 1e-5, value - 1e-5):
                x[index] = moved
                results.append(loss())
            x[index], grad[index] = value, (results[0] - results[1]) / 2e-5
        grads.append(grad)
    norm = np.sqrt(sum((grad**2).sum() for grad in grads))
    assert norm > config.max_grad_norm
    learned, metrics = jax.jit(agent.learn)(state, data, CLOCK)
    assert metrics["train/rho_clip_fraction"] > 0.1
    for new, old, grad in zip(
        jax.tree.leaves(learned.params), jax.tree.leaves(params), grads, strict=True
    ):
        np.testing.assert_allclose(new, old - grad * config.max_grad_norm / norm, atol=3e-6)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_learning_sees_the_policy_that_acted(options):
    agent = make_agent(IMPALAConfig(**{**FAST, **options}), BOX)
    state = jax.jit(agent.init)(jax.random.key(0))
    data = rollout(BOX, agent, state, 16, 1)
    _, metrics = jax.jit(agent.learn)(state, data, CLOCK)
    np.testing.assert_allclose(metrics["train/rho_mean"], 1, atol=1e-5)


@pytest.mark.parametrize("log_ratio", EXTREMES)
def test_extreme_ratios_do_not_destroy_the_parameters(log_ratio):
    metrics = check_extreme_ratios(IMPALAConfig(**FAST), make_agent, log_ratio)
    assert np.isfinite(metrics["train/rho_mean"])


def test_a_loaded_agent_learns_on_exactly(tmp_path):
    def make():
        return IMPALA(
            probes.Truncated,
            **{**FAST, **OPTIONS["lstm"], "n_steps": 10, "learning_rate": 1e-2, "ent_coef": 0.01},
        )

    whole = make().learn(200, progress_bar=False)
    path = make().learn(100, progress_bar=False).save(tmp_path / "half")
    resumed = IMPALA.load(path, probes.Truncated).learn(
        100, progress_bar=False, reset_num_timesteps=False
    )
    jax.tree.map(
        np.testing.assert_array_equal, *(jax.device_get(a.learner_state) for a in (whole, resumed))
    )


@pytest.mark.parametrize(
    "space, target",
    [
        (spaces.MultiDiscrete([2, 3]), [1, 2]),
        (spaces.MultiBinary(3), [1, 0, 1]),
        (spaces.Box(-1, 1, (2,)), [0.5, -0.4]),
    ],
    ids=str,
)
def test_every_action_space(space, target):
    agent = trained(lambda: Target(space, target), 8_000, log_std_init=-0.5)
    np.testing.assert_allclose(agent.predict(np.zeros(1), deterministic=True)[0], target, atol=0.15)


def test_illegal_actions_are_never_taken():
    assert evaluate_policy(trained(Masked, 6_000, n_envs=2), Masked, 20) == (3.0, 0.0)


def test_a_cue_is_recalled_with_memory():
    options = dict(n_envs=8, n_steps=32, ent_coef=0.01, recurrent_size=16)
    agent = trained(Recall, 40_000, recurrent="lstm", **options)
    assert evaluate_policy(agent, Recall, 100, seed=5)[0] == 1.0


@pytest.mark.learning
def test_cartpole_is_learned():
    agent = IMPALA("CartPole-v1", n_envs=8, n_steps=20, learning_rate=Linear(3e-3)).learn(
        60_000, progress_bar=False
    )
    assert evaluate_policy(agent, "CartPole-v1", 20, seed=77)[0] > 100  # a random policy has 22


def test_the_pixel_preset():
    space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    agent = IMPALA(lambda: probes.Spaced(space), preset="pixels", n_steps=4).learn(
        16, progress_bar=False
    )
    assert np.isfinite(float(agent.metrics["train/loss"])) and any(
        "conv2_d" in name for name in agent.params
    )


def test_bad_input_is_refused_before_training():
    with pytest.raises(
        ConfigurationError, match=r"optimizer='sgd' is unknown\. Choose 'adam' or 'rmsprop'"
    ):
        IMPALA("CartPole-v1", optimizer="sgd")
    with pytest.raises(ConfigurationError, match="recurrent='rnn' is unknown"):
        IMPALA("CartPole-v1", recurrent="rnn")


def test_with_normalised_rewards_their_scale_does_not_matter():
    def learned(scale, **options):
        def env():
            return gym.wrappers.TransformReward(
                gym.make("CartPole-v1"), lambda reward: scale * reward
            )

        agent = IMPALA(env, n_envs=2, n_steps=16, net_arch=(16,), seed=1, **options)
        return agent.learn(640, progress_bar=False)

    small, large = learned(1.0), learned(1_000.0)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
        small.params,
        large.params,
    )
    statistics = large.learner_state.reward_normalizer.statistics
    assert statistics.count == 640 and statistics.variance > 1e6
    clipped = learned(1_000.0, clip_reward=True)  # to 1, before they are normalised
    jax.tree.map(np.testing.assert_array_equal, small.params, clipped.params)
