from dataclasses import dataclass

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agentzoo import envs
from agentzoo.envs import Catch, FunctionalGymEnv, Step
from agentzoo.envs.functional.catch import CatchState
from tests.probes import take_actions

LEFT, STAY, RIGHT = 0, 1, 2
KEY = jax.random.key(0)


def board(ball, paddle, rows=10, columns=5):
    cells = np.zeros((rows, columns), np.float32)
    cells[ball] = cells[rows - 1, paddle] = 1
    return cells


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize(
    ("ball", "actions", "paddles", "reward"),
    [
        (4, [RIGHT, RIGHT, *[STAY] * 7], [3, 4, 4, 4, 4, 4, 4, 4, 4], 1.0),
        (0, [STAY] * 9, [2] * 9, -1.0),
        (
            0,
            [LEFT] * 4 + [RIGHT] * 5,
            [1, 0, 0, 0, 1, 2, 3, 4, 4],
            -1.0,
        ),  # the walls hold the paddle
        (2, [STAY] * 8 + [LEFT], [2] * 8 + [1], -1.0),  # the paddle moves before the ball lands
        (1, [STAY] * 8 + [LEFT], [2] * 8 + [1], 1.0),
    ],
)
def test_an_episode_by_hand(ball, actions, paddles, reward, transform):
    env = Catch()
    step = transform(env.step)
    state = CatchState(jnp.int32(0), jnp.int32(ball), jnp.int32(2))
    for t, (action, paddle) in enumerate(zip(actions, paddles, strict=True), start=1):
        state, (obs, r_t, terminated, truncated) = step(state, action, KEY)
        np.testing.assert_array_equal(obs, board((t, ball), paddle))
        assert (float(r_t), bool(terminated), bool(truncated)) == (
            reward if t == 9 else 0.0,
            t == 9,
            False,
        )


def test_episodes_begin_with_the_ball_anywhere_at_the_top_and_the_paddle_in_the_middle():
    states, obs = jax.device_get(jax.vmap(Catch().reset)(jax.random.split(KEY, 1000)))
    counts = np.bincount(states.ball_column)
    assert len(counts) == 5 and np.abs(counts - 200).max() < 5 * np.sqrt(1000 * 0.2 * 0.8)
    for column, seen in zip(states.ball_column[:10], obs, strict=False):
        np.testing.assert_array_equal(seen, board((0, int(column)), 2))


def test_other_boards():
    env = Catch(rows=2, columns=1)
    state, obs = env.reset(KEY)
    np.testing.assert_array_equal(obs, [[1], [1]])
    state, step = env.step(state, LEFT, KEY)
    np.testing.assert_array_equal(step.obs, [[0], [1]])
    assert (step.reward, step.terminated) == (1, True)
    for size in [(1, 5), (10, 0)]:
        with pytest.raises(ValueError, match="Choose at least 2 rows and 1 column"):
            Catch(*size)


def test_many_environments_in_one_program_keep_shapes_and_dtypes():
    env = Catch()

    def step(state, key):
        state, step = jax.vmap(env.step)(
            state, jax.random.randint(key, (7,), 0, 3), jax.random.split(key, 7)
        )
        return state, step

    state, _ = jax.vmap(env.reset)(jax.random.split(KEY, 7))
    last, steps = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 9)))(state)
    assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, state)
    assert steps.obs.shape == (9, 7, 10, 5)
    assert [leaf.dtype for leaf in steps] == [jnp.float32, jnp.float32, jnp.bool_, jnp.bool_]
    assert steps.terminated[:-1].sum() == 0 and steps.terminated[-1].all()
    np.testing.assert_array_equal(np.abs(steps.reward[-1]), 1)


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_finds_nothing_to_complain_about(render_mode):
    env = gym.make("agentzoo/Catch-v0", render_mode=render_mode)
    check_env(env.unwrapped)  # warnings are errors here
    assert env.observation_space == spaces.Box(
        0, 1, (10, 5)
    ) and env.action_space == spaces.Discrete(3)
    env.close()


def test_the_ordinary_environment_is_the_functional_one():
    env = gym.make("agentzoo/Catch-v0", rows=4, columns=3)
    returns = []
    for episode in range(30):
        obs, _ = env.reset(seed=7 if episode == 0 else None)
        ball = int(obs[0].argmax())
        for t in range(3):
            obs, reward, terminated, truncated, info = env.step(LEFT)
            assert (
                obs.flags.writeable
                and (reward == 0) == (t < 2)
                and terminated == (t == 2)
                and not truncated
                and info == {}
            )
            np.testing.assert_array_equal(obs, board((t + 1, ball), max(0, 1 - t - 1), 4, 3))
        returns.append(reward)
        assert reward == (1 if ball == 0 else -1)
    assert len(set(returns)) == 2  # without a seed, episodes differ
    first = env.reset(seed=7)[0]
    np.testing.assert_array_equal(env.reset(seed=7)[0], first)


def test_rendering():
    env = gym.make("agentzoo/Catch-v0", render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image.shape == (160, 80, 3) and image.dtype == np.uint8
    state = env.unwrapped.env_state.state
    assert image[8, 8 + 16 * int(state.ball_column)].tolist() == [255, 0, 0]
    assert image[-8, 8 + 16 * 2].tolist() == [255, 255, 255]
    assert (image > 0).any(-1).sum() == 2 * 16 * 16
    with pytest.raises(ValueError, match="render_mode='human' is unknown"):
        FunctionalGymEnv(Catch(), "human")


class Walk:
    """A functional environment with noise, a time limit, and a Dict of observations."""

    observation_space = spaces.Dict(x=spaces.Box(-100, 100, (2,), np.float32), t=spaces.Discrete(4))
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, key):
        state = (jax.random.uniform(key, (2,)), jnp.int32(0))
        return state, self.observe(state)

    def step(self, state, action, key):
        x, t = state
        state = (x + action + 0.1 * jax.random.normal(key, (2,)), t + 1)
        return state, Step(
            self.observe(state), -jnp.abs(state[0]).sum(), jnp.abs(state[0]).max() > 3, t + 1 == 3
        )

    def observe(self, state):
        return {"x": state[0], "t": state[1]}


def test_any_functional_environment_becomes_an_ordinary_one():
    env = FunctionalGymEnv(Walk())
    env.spec = gym.envs.registration.EnvSpec(
        "Walk-v0", lambda **kwargs: FunctionalGymEnv(Walk(), **kwargs)
    )
    check_env(env)
    obs, _ = env.reset(seed=0)
    xs = [obs["x"]]
    for t in range(1, 4):
        obs, reward, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        xs.append(obs["x"])
        assert (
            obs["t"] == t
            and reward == pytest.approx(-np.abs(obs["x"]).sum())
            and not terminated
            and truncated == (t == 3)
        )
    noise = np.diff(xs, axis=0)
    # Every step has its own random key.
    assert (noise[0] != noise[1]).all() and (noise[1] != noise[2]).all()
    env.reset()
    assert env.step(np.full(2, 5.0, np.float32))[2:4] == (True, False)


def test_equal_environments_share_what_is_compiled():
    traces = []

    @dataclass(frozen=True)
    class Traced(Catch):
        def step(self, state, action, key):
            traces.append(action)  # when JAX traces the function, and not when it runs
            return super().step(state, action, key)

    for _ in range(3):
        env = FunctionalGymEnv(Traced(6, 3))
        env.reset(seed=0)
        for action in (1, np.int64(1), np.int32(1)):
            env.step(action)
    assert len(traces) == 1


def test_runners_step_it():
    catch = envs.make_envs("agentzoo/Catch-v0", 2)
    out = take_actions(catch, [np.array([LEFT, RIGHT])] * 10)
    assert out.last_t.nonzero()[0].tolist() == [8, 8] and (out.discount_t == ~out.last_t).all()
    np.testing.assert_array_equal(out.obs_t[8][[0, 1], -1, [0, 4]], 1)
    np.testing.assert_array_equal(out.obs_tm1[9].sum((1, 2)), 2)
