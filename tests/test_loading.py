"""Going on with saved agents in environments that are not quite those of before."""

import gymnasium as gym
import jax
import numpy as np
import pytest

from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, ConfigurationError, load
from tests import probes

OFF_POLICY = dict(
    buffer_size=240,
    learning_starts=8,
    batch_size=8,
    train_freq=2,
    gradient_steps=1,
    n_steps=1,
    net_arch=(8,),
)
ON_POLICY = dict(n_steps=8, net_arch=(8,), normalize_reward=True)
AGENTS = [
    (DQN, OFF_POLICY),
    (DQN, OFF_POLICY | dict(prioritized_replay=True)),
    (QRDQN, OFF_POLICY),
    (SAC, OFF_POLICY | dict(normalize_obs=True)),
    (MPO, OFF_POLICY | dict(retrace=True, n_steps=2)),
    (PPO, ON_POLICY | dict(batch_size=8, normalize_obs=True)),
    (PPO, ON_POLICY | dict(batch_size=8, recurrent="gru", sequence_length=4)),
    (IMPALA, ON_POLICY),
]
# Two environments become one, or three, which is no multiple of two.
HOST, DEVICE = ("CartPole-v1", "host", 1), ("agentzoo/CartPole-v0", "device", 3)
# What is kept does not depend on the runner, so only some agents continue on the device, too.
CASES = [
    *((*agent, *HOST) for agent in AGENTS),
    *((cls, settings, *DEVICE) for cls, settings in AGENTS[1::2]),
]


def all_but(state, *names):
    """The parts of an agent's state that no number of environments has a part in, as arrays."""
    parts = {name: part for name, part in state._asdict().items() if name not in names}
    parts = {
        name: jax.random.key_data(part) if name == "key" else part for name, part in parts.items()
    }
    return jax.device_get(parts)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(("cls", "settings", "env", "runner", "n_envs"), CASES)
def test_an_agent_goes_on_with_another_number_of_environments(
    cls, settings, env, runner, n_envs, tmp_path
):
    agent = cls(env, n_envs=2, runner=runner, **settings).learn(64, progress_bar=False)
    path = agent.save(tmp_path / "agent")
    kept = all_but(agent.learner_state, "replay", "reward_normalizer")
    obs = np.linspace(-0.1, 0.1, 24).reshape(6, 4)
    stored = int(agent.learner_state.replay.size.sum()) if "buffer_size" in settings else 0
    other = cls.load(
        path,
        env=env,
        n_envs=n_envs,
        runner=runner,
        **({"batch_size": n_envs} if cls is PPO else {}),
    )
    assert other.n_envs == n_envs and other.num_timesteps == 64 and other.trainer.runner is not None
    same(all_but(other.learner_state, "replay", "reward_normalizer"), kept)
    same(other.predict(obs, deterministic=True)[0], agent.predict(obs, deterministic=True)[0])
    state = other.learner_state
    if stored:
        assert int(state.replay.size.sum()) == stored and state.replay.size.shape == (n_envs,)
        assert int(state.replay.size.max() - state.replay.size.min()) < n_envs
    else:
        before = agent.learner_state.reward_normalizer
        same(jax.device_get(state.reward_normalizer.statistics), jax.device_get(before.statistics))
        assert state.reward_normalizer.returns.shape == (n_envs,)
    updates = int(state.n_updates)
    cycle = n_envs * settings.get("train_freq", 8)
    other.learn(3 * cycle, progress_bar=False, reset_num_timesteps=False)
    assert other.num_timesteps == 64 + 3 * cycle and int(other.learner_state.n_updates) > updates
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(other.params)))
    back = load(other.save(tmp_path / "other"), env)
    assert back.n_envs == n_envs and back.num_timesteps == other.num_timesteps


@pytest.mark.learning
def test_the_replay_that_was_laid_out_anew_is_learned_from():
    """What one of 4 environments found is learned from in 1."""
    settings = OFF_POLICY | dict(learning_starts=100, gradient_steps=10, learning_rate=1e-2)
    agent = DQN(probes.ActionReward, n_envs=4, **settings).learn(96, progress_bar=False)
    assert abs(agent.values(np.zeros(1)) - [-1, 1]).max() > 0.5  # nothing was learned yet
    agent.set_env(probes.ActionReward, n_envs=1)
    agent.learn(40, progress_bar=False, reset_num_timesteps=False)
    np.testing.assert_allclose(agent.values(np.zeros(1)), [-1, 1], atol=0.1)


def test_set_env_takes_vector_environments_of_any_number():
    agent = DQN("CartPole-v1", n_envs=2, **OFF_POLICY).learn(40, progress_bar=False)
    for env, number in (
        (gym.make_vec("CartPole-v1", 3), 3),
        (gym.make("CartPole-v1"), 1),
        ("CartPole-v1", 1),
    ):
        agent.set_env(env)
        assert agent.n_envs == number
        agent.learn(24, progress_bar=False, reset_num_timesteps=False)
    agent.set_env("CartPole-v1", n_envs=np.int64(4))
    assert agent.n_envs == 4
    with pytest.raises(ConfigurationError, match=r"holds 3. Leave n_envs out"):
        agent.set_env(gym.make_vec("CartPole-v1", 3), n_envs=2)
    with pytest.raises(ConfigurationError, match="n_envs=0"):
        agent.set_env("CartPole-v1", n_envs=0)
    path = agent.save("agent")
    with pytest.raises(ConfigurationError, match="n_envs=0"):
        type(agent).load(path, n_envs=0)


def test_a_number_that_does_not_suit_is_refused_and_changes_nothing(tmp_path):
    agent = PPO("CartPole-v1", n_envs=4, n_steps=8, batch_size=16, net_arch=(8,)).learn(
        32, progress_bar=False
    )
    path = agent.save(tmp_path / "agent")
    for change in (
        lambda: agent.set_env("CartPole-v1", n_envs=3),
        lambda: PPO.load(path, "CartPole-v1", n_envs=3),
    ):
        with pytest.raises(
            ConfigurationError, match=r"batch_size=16 does not divide the n_steps \* n_envs = 24"
        ):
            change()
    assert agent.n_envs == 4
    agent.learn(32, progress_bar=False, reset_num_timesteps=False)
    # A batch size that suits 3 environments, but not 4, is no obstacle.
    assert (
        PPO.load(path, "CartPole-v1", n_envs=3, batch_size=12)
        .learn(24, progress_bar=False)
        .num_timesteps
        == 24
    )
    dqn = DQN("CartPole-v1", **OFF_POLICY | dict(buffer_size=8))
    with pytest.raises(
        ConfigurationError, match="buffer_size=8 leaves 1 transitions for each of 5"
    ):
        dqn.set_env("CartPole-v1", n_envs=5)
    assert dqn.n_envs == 1 and dqn.learn(8, progress_bar=False).num_timesteps == 8


def test_an_agent_without_an_environment_can_be_for_another_number(tmp_path):
    path = (
        DQN("CartPole-v1", n_envs=2, **OFF_POLICY)
        .learn(40, progress_bar=False)
        .save(tmp_path / "agent")
    )
    agent = DQN.load(path, n_envs=3)
    assert agent.n_envs == 3 and agent.learner_state.replay.size.shape == (3,)
    agent.set_env("CartPole-v1")
    assert agent.learn(24, progress_bar=False).n_envs == 3


def test_the_state_of_compiled_environments_is_kept_only_for_as_many(tmp_path):
    agent = DQN("agentzoo/CartPole-v0", n_envs=2, **OFF_POLICY).learn(40, progress_bar=False)
    path = agent.save(tmp_path / "agent")
    assert DQN.load(path, "agentzoo/CartPole-v0").trainer.seed_next_reset is False
    assert DQN.load(path, "agentzoo/CartPole-v0", n_envs=4).trainer.seed_next_reset is True


def test_hyperparameters_of_other_shapes_are_refused_as_ever(tmp_path):
    path = DQN("CartPole-v1", n_envs=2, **OFF_POLICY).save(tmp_path / "agent")
    with pytest.raises(ConfigurationError, match="'params'"):
        DQN.load(path, "CartPole-v1", n_envs=1, net_arch=(9,))
