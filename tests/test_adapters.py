"""Adapters for functional environments of other libraries."""

from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.functional_jax_env import FunctionalJaxEnv
from gymnasium.experimental.functional import FuncEnv

from agentzoo import PPO, ConfigurationError
from agentzoo.envs import (
    BraxAdapter,
    FuncEnvAdapter,
    GymnaxAdapter,
    TimeLimit,
    find_native,
    make_envs,
)
from agentzoo.runners import DeviceRunner

KEY = jax.random.key(0)


class Countdown(FuncEnv):
    """A number that goes from 5 to 0, by as much as the action says."""

    observation_space, action_space = spaces.Box(-9, 9, (1,), np.float32), spaces.Discrete(3)

    def initial(self, rng, params=None):
        return jnp.float32(5)

    def transition(self, state, action, rng, params=None):
        return state - action

    def observation(self, state, rng, params=None):
        return state[None]

    def reward(self, state, action, next_state, rng, params=None):
        return -jnp.ones((1,))

    def terminal(self, state, rng, params=None):
        return state <= 0


class OldGymnax:
    """The interface of gymnax 0.0.9, where a time limit looks like a termination."""

    name = "Old"

    def observation_space(self, params):
        return Box(-9, 9, (1,), jnp.float32)

    def action_space(self, params):
        return Discrete(3)

    @property
    def default_params(self):
        return Params(4)

    def reset_env(self, key, params):
        return jnp.full(1, 5.0), (5, 0)

    def is_terminal(self, state, params):
        return (state[0] <= 0) | (state[1] >= params.max_steps_in_episode)

    def step_env(self, key, state, action, params):
        state = state[0] - action, state[1] + 1
        return jnp.full(1, 1.0) * state[0], state, -1, self.is_terminal(state, params), {}


class NewGymnax(OldGymnax):
    """The interface of gymnax 1.0."""

    def step_env(self, key, state, action, params):
        state = state[0] - action, state[1] + 1
        return jnp.full(1, 1.0) * state[0], state, -1, state[0] <= 0, {}

    def is_truncated(self, state, params):
        return state[1] >= params.max_steps_in_episode


class Params:
    def __init__(self, max_steps_in_episode):
        self.max_steps_in_episode = max_steps_in_episode

    def replace(self, **values):
        return Params(**values)


class Discrete:
    def __init__(self, n):
        self.n = n


class Box:
    def __init__(self, low, high, shape, dtype):
        self.low, self.high, self.shape, self.dtype = low, high, shape, dtype


@pytest.mark.parametrize(
    "env, limited",
    [
        (FuncEnvAdapter(Countdown()), False),
        (TimeLimit(FuncEnvAdapter(Countdown()), 4), True),
        (GymnaxAdapter(OldGymnax()), True),
        (GymnaxAdapter(NewGymnax()), True),
        (GymnaxAdapter(OldGymnax(), Params(3)), True),
    ],
)
def test_termination_and_truncation(env, limited):
    for action, steps, terminated in ((2, 3, True), (1, 5 if not limited else None, not limited)):
        state, obs = env.reset(KEY)
        assert obs == 5
        for t in range(1, 10):
            state, step = jax.jit(env.step)(state, action, KEY)
            assert step.obs == 5 - t * action and step.reward == -1
            if step.terminated or step.truncated:
                break
        assert bool(step.terminated) == terminated and (steps is None or t == steps)
        assert action == 2 or bool(step.truncated) == limited
    assert (
        env.observation_space == Countdown.observation_space
        and env.action_space == Countdown.action_space
    )


def test_how_they_are_given():
    def native(env, n_envs=1):
        return find_native(make_envs(env, n_envs))

    assert isinstance(native(Countdown()), FuncEnvAdapter) and isinstance(
        native(OldGymnax(), 2), GymnaxAdapter
    )
    assert native((OldGymnax(), Params(7))).params.max_steps_in_episode == 7
    limited = native(gym.wrappers.TimeLimit(FunctionalJaxEnv(Countdown()), 4))
    assert isinstance(limited, TimeLimit) and isinstance(limited.env, FuncEnvAdapter)
    agent = PPO((NewGymnax(), Params(4)), n_envs=4, n_steps=16, batch_size=64).learn(
        200, progress_bar=False
    )
    assert isinstance(agent.trainer.runner, DeviceRunner) and -4 <= agent.ep_rew_mean <= -3


@pytest.mark.parametrize(
    "env_id", ["phys2d/CartPole-v1", "phys2d/Pendulum-v0", "tabular/Blackjack-v0"]
)
def test_gymnasiums(env_id):
    pytest.importorskip("flax")
    agent = PPO(env_id, n_envs=4, n_steps=64, batch_size=64).learn(1_000, progress_bar=False)
    assert isinstance(agent.trainer.runner, DeviceRunner) and np.isfinite(agent.ep_rew_mean)
    agent = PPO(env_id, n_steps=64, batch_size=64, runner="host").learn(64, progress_bar=False)
    assert np.isfinite(float(agent.metrics["train/loss"]))


def test_gymnax():
    gymnax = pytest.importorskip("gymnax")
    env = GymnaxAdapter(*gymnax.make("Pendulum-v1"))
    last = jax.lax.scan(
        lambda s, _: (lambda after: (after[0], after[1]))(env.step(s, jnp.zeros(1), KEY)),
        env.reset(KEY)[0],
        length=200,
    )[1]
    assert np.flatnonzero(last.truncated).tolist() == [199] and not last.terminated.any()
    agent = PPO(gymnax.make("CartPole-v1"), n_envs=8, n_steps=32, batch_size=256).learn(
        30_000, progress_bar=False
    )
    assert agent.ep_rew_mean > 40


class BraxState(NamedTuple):
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict


class Brax:
    """An environment with the interface of Brax: a slide that ends beyond 2."""

    observation_size, action_size, backend = 1, 2, "spring"

    def __init__(self, limit=2.0):
        self._limit = limit

    def reset(self, rng):
        return BraxState(jnp.zeros(1), jnp.zeros(()), jnp.zeros(()), {})

    def step(self, state, action):
        obs = state.obs + action.sum()
        return state._replace(
            obs=obs, reward=action.sum(), done=(obs[0] > self._limit).astype(jnp.float32)
        )


class EpisodeWrapper:
    """Brax's time limit, which looks like a termination and writes into the dictionary."""

    episode_length = 4

    def __init__(self, env):
        self.env = env
        self.observation_size, self.action_size, self.backend = (
            env.observation_size,
            env.action_size,
            env.backend,
        )

    def reset(self, rng):
        state = self.env.reset(rng)
        state.info.update(steps=jnp.zeros(()), truncation=jnp.zeros(()))
        return state

    def step(self, state, action):
        state = self.env.step(state, action)
        state.info["steps"] += 1
        state.info["truncation"] = jnp.where(
            state.info["steps"] >= self.episode_length, 1 - state.done, 0.0
        )
        return state._replace(
            done=jnp.where(state.info["steps"] >= self.episode_length, 1.0, state.done)
        )


class AutoResetWrapper(EpisodeWrapper):
    pass


@pytest.mark.parametrize(
    "env, push, steps, truncated",
    [
        (Brax(), 0.5, 3, False),
        (EpisodeWrapper(Brax()), 0.5, 3, False),
        (EpisodeWrapper(Brax()), 0.1, 4, True),
        (Brax(), 0.11, 10, False),
    ],
)
def test_brax(env, push, steps, truncated):
    env = BraxAdapter(env)
    state, obs = env.reset(KEY)
    for t in range(1, 11):  # noqa: B007 (counted after the loop)
        before = jax.tree.map(np.asarray, state)
        after, step = env.step(state, jnp.full(2, push), KEY)
        jax.tree.map(np.testing.assert_array_equal, state, before)  # it is not written into
        np.testing.assert_allclose(step.obs, obs + 2 * push, rtol=1e-6)
        state, obs = after, step.obs
        if step.terminated or step.truncated:
            break
    assert (t, bool(step.truncated), bool(step.terminated)) == (steps, truncated, not truncated)


def test_settings_of_brax_tell_environments_apart():
    first, second, again = (BraxAdapter(EpisodeWrapper(Brax(limit))) for limit in (2.0, 3.0, 2.0))
    assert repr(first) == repr(again) != repr(second)
    assert "'limit': 3.0" in repr(second) and "'episode_length': 4" in repr(second)


@pytest.mark.learning
def test_agents_learn_in_brax():
    agent = PPO(
        EpisodeWrapper(Brax()),
        n_envs=4,
        n_steps=32,
        batch_size=64,
        learning_rate=1e-2,
        net_arch=(16,),
    )
    assert isinstance(agent.trainer.runner, DeviceRunner) and agent.spec.action_space == spaces.Box(
        -1, 1, (2,), np.float32
    )
    agent.learn(3_000, progress_bar=False)
    assert agent.ep_rew_mean > 3  # two steps of 2 each
    pixels = Brax()
    pixels.observation_size = {"view": (4, 4, 3), "speed": 2}
    assert BraxAdapter(pixels).observation_space["view"].shape == (4, 4, 3)
    with pytest.raises(ConfigurationError, match="auto_reset=False"):
        PPO(AutoResetWrapper(Brax()))
