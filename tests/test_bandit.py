import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agentzoo.envs import FunctionalGymEnv
from agentzoo.envs.functional.bandit import BanditState, MultiArmedBandit


@pytest.mark.parametrize(
    "arguments", [{}, {"means": [0.0, 3.0], "std": 2.0}], ids=["Bernoulli", "Gaussian"]
)
def test_gymnasiums_checker(arguments):
    check_env(FunctionalGymEnv(MultiArmedBandit(**arguments)), skip_render_check=True)


@pytest.mark.parametrize("std", [None, 0.5])
def test_rewards_have_the_moments(std):
    env, n = MultiArmedBandit((0.2, 0.7), std), 20_000
    state, obs = env.reset(jax.random.key(0))
    assert env.observation_space.contains(np.asarray(obs))
    keys = jax.random.split(jax.random.key(1), n)
    for arm, mean in enumerate(env.means):
        _, step = jax.vmap(env.step, (None, None, 0))(state, arm, keys)
        sigma = np.sqrt(mean * (1 - mean)) if std is None else std
        assert abs(step.reward.mean() - mean) < 5 * sigma / np.sqrt(n)
        np.testing.assert_allclose(step.reward.std(), sigma, rtol=0.05)
        assert step.terminated.all() and not step.truncated.any()
        if std is None:
            assert np.isin(step.reward, [0, 1]).all()
        np.testing.assert_allclose(env.regret(state, arm), 0.7 - mean, rtol=1e-6)


def test_other_states_are_other_bandits():
    env = MultiArmedBandit((0.0, 1.0))
    many = BanditState(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    _, step = jax.jit(jax.vmap(env.step))(
        many, jnp.array([1, 1]), jax.random.split(jax.random.key(0))
    )
    np.testing.assert_array_equal(step.reward, [1, 0])
    np.testing.assert_array_equal(jax.vmap(env.regret)(many, jnp.array([1, 1])), [0, 1])


def test_as_a_gym_env():
    env = FunctionalGymEnv(MultiArmedBandit(means=(0.0, 1.0)))
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs, [1])
    for arm in (0, 1):
        obs, reward, terminated, truncated, _ = env.step(arm)
        assert (reward, terminated, truncated) == (arm, True, False)


def test_gymnasium_finds_it():
    env = gym.make("agentzoo/Bandit-v0", means=(0.2, 0.8))
    assert env.action_space == gym.spaces.Discrete(2)


@pytest.mark.parametrize(("means", "std"), [((), None), ((0.5, 1.5), None), ((-0.1,), None)])
def test_means_that_are_no_probabilities(means, std):
    with pytest.raises(ValueError, match="Give one mean for each arm"):
        MultiArmedBandit(means, std)
