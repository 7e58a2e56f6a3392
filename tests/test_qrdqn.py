"""QR-DQN against environments whose return distributions are known."""

import gymnasium as gym
import numpy as np
import pytest

import agentzoo
from agentzoo import QRDQN, ConfigurationError, evaluate_policy
from tests import probes

FAST = dict(
    n_steps=1,
    n_quantiles=8,
    kappa=0.1,
    gamma=0.9,
    learning_rate=5e-3,
    net_arch=(32,),
    learning_starts=50,
    batch_size=32,
    train_freq=8,
    gradient_steps=8,
    target_update_interval=40,
    buffer_size=2_000,
    exploration_final_eps=0.3,
)
OPTIONS = {
    "plain": dict(double_q=False),
    "double": {},
    "dueling": dict(dueling=True),
    "three-step": dict(n_steps=3),
    "prioritised": dict(prioritized_replay=True),
    "noisy": dict(noisy=True),
    "quantile regression": dict(kappa=0.0),
    "one quantile": dict(n_quantiles=1),
}


def trained(env, steps=1_500, **hyperparameters):
    return QRDQN(env, **{**FAST, **hyperparameters}).learn(steps, progress_bar=False)


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_of_the_probes(options):
    near = {"atol": 0.45 if options.get("noisy") else 0.15}
    agent = trained(probes.DelayedReward, **options)
    np.testing.assert_allclose(agent.values(np.array([[0.0], [1.0]])), [[0.9, 0.9], [1, 1]], **near)
    agent = trained(probes.CueReward, **options)
    np.testing.assert_allclose(agent.values(np.array([[-1.0], [1.0]])), [[1, -1], [-1, 1]], **near)


class Lottery(probes.Probe):
    """Action 0 gives 0.2, action 1 gives -1 or 2 with equal chances."""

    def reward(self, action):
        return 0.2 if action == 0 else float(self.np_random.choice([-1.0, 2.0]))


def test_the_distribution_of_a_lottery():
    # The chances are even, so that half of the quantiles belong to either prize.
    agent = trained(Lottery, 6_000, exploration_final_eps=1.0, learning_rate=1e-3)
    quantiles = agent.quantiles(np.zeros(1))
    assert quantiles.shape == (2, 8)
    np.testing.assert_allclose(quantiles[0], 0.2, atol=0.1)
    np.testing.assert_allclose(quantiles[1], [-1] * 4 + [2] * 4, atol=0.35)
    np.testing.assert_allclose(agent.values(np.zeros(1)), quantiles.mean(axis=1), rtol=1e-5)
    assert agent.quantiles(np.zeros((3, 1))).shape == (3, 2, 8)
    assert agent.predict(np.zeros(1), deterministic=True)[0] == 1


def test_an_agent_that_is_averse_to_risk_takes_the_sure_prize():
    agent = trained(Lottery, 6_000, exploration_final_eps=1.0, learning_rate=1e-3, cvar_alpha=0.25)
    np.testing.assert_allclose(agent.values(np.zeros(1)), [0.2, -1.0], atol=0.3)
    assert agent.predict(np.zeros(1), deterministic=True)[0] == 0


def test_it_saves_and_loads(tmp_path):
    agent = trained(probes.CueReward, 200)
    loaded = agentzoo.load(agent.save(tmp_path / "agent"), probes.CueReward)
    assert isinstance(loaded, QRDQN)
    np.testing.assert_array_equal(loaded.quantiles(np.ones(1)), agent.quantiles(np.ones(1)))
    loaded.learn(100, progress_bar=False, reset_num_timesteps=False)


def test_bad_hyperparameters_are_named():
    for wrong in (
        dict(n_quantiles=0),
        dict(kappa=-1.0),
        dict(cvar_alpha=0.0),
        dict(cvar_alpha=2.0),
    ):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            QRDQN("CartPole-v1", **wrong)
    with pytest.raises(ConfigurationError, match="Discrete"):
        QRDQN("Pendulum-v1")


@pytest.mark.learning
def test_it_learns_cartpole():
    rare = dict(
        train_freq=256,
        gradient_steps=128,
        target_update_interval=10,
        learning_rate=2.3e-3,
        net_arch=(64, 64),
    )
    exploration = dict(exploration_fraction=0.16, exploration_final_eps=0.04)
    agent = QRDQN("CartPole-v1", seed=1, **rare, **exploration).learn(20_000, progress_bar=False)
    assert (
        evaluate_policy(agent, gym.make("CartPole-v1"), 10, seed=0)[0] > 300
    )  # a random policy has 22
