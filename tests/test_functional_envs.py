"""Our functional environments: their interface and their rules."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agentzoo.envs import (
    Asterix,
    Breakout,
    DeepSea,
    FunctionalVectorEnv,
    MemoryChain,
    make_envs,
    registration,
)
from agentzoo.envs.functional import advance_all, begin_all
from agentzoo.envs.functional.classic_control import ControlState
from agentzoo.envs.functional.minatar import BreakoutState

KEY = jax.random.key(0)
NAMES = sorted(registration.ENVIRONMENTS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings(
    "ignore:.*For Box action spaces, we recommend",
    "ignore:.*A Box observation space m.*imum value is .*infinity",
)
def test_gymnasiums_checker(name):
    """Gymnasium's CartPole and Pendulum give the same warnings, which this test ignores."""
    env = gym.make(f"agentzoo/{name}-v0")
    check_env(env.unwrapped)
    assert hash(env.unwrapped.env) == hash(type(env.unwrapped.env)())


@pytest.mark.parametrize("name", NAMES)
def test_many_in_one_program(name):
    env = registration.ENVIRONMENTS[name]()

    @jax.jit
    def play(keys):
        def step(worlds, key):
            actions = jax.vmap(draw)(jax.random.split(key, 5))
            worlds, obs, step = advance_all(env, worlds, actions)
            return worlds, (obs, step)

        worlds, first = begin_all(env, keys)
        return first, jax.lax.scan(step, worlds, jax.random.split(KEY, 300))[1]

    def draw(key):
        space = env.action_space
        return (
            jax.random.randint(key, (), 0, space.n)
            if hasattr(space, "n")
            else jax.random.uniform(key, space.shape, minval=-1)
        )

    first, (obs, step) = jax.device_get(play(jax.random.split(KEY, 5)))
    ended = step.terminated | step.truncated
    assert obs.shape == (300, *first.shape) and step.reward.dtype == np.float32
    assert all(
        env.observation_space.contains(one)
        for one in np.concatenate([obs, step.obs]).reshape(-1, *first.shape[1:])[::7]
    )
    np.testing.assert_allclose(
        obs[~ended], step.obs[~ended], rtol=1e-5, atol=1e-6
    )  # XLA may compute them twice, and round differently
    assert ended.any() or name in ("Acrobot", "MountainCarContinuous")  # which last longer


@pytest.mark.parametrize(
    "name, peer, steps",
    [
        ("CartPole", "CartPole-v1", 300),
        ("Acrobot", "Acrobot-v1", 600),
        ("MountainCar", "MountainCar-v0", 300),
        ("MountainCarContinuous", "MountainCarContinuous-v0", 1_100),
        ("Pendulum", "Pendulum-v1", 300),
    ],
)
def test_dynamics_are_those_of_gymnasium(name, peer, steps):
    """Compare single steps from the same state, and then the time limit."""
    theirs, env = gym.make(peer), registration.ENVIRONMENTS[name]()
    assert (
        env.observation_space == theirs.observation_space
        and env.action_space == theirs.action_space
    )
    step, rng = jax.jit(env.step), np.random.default_rng(0)
    theirs.action_space.seed(0)
    theirs.reset(seed=0)
    inner, action, t, ends = theirs.unwrapped, theirs.action_space.sample(), 0, 0
    for _ in range(steps):
        action = (
            theirs.action_space.sample() if rng.random() < 0.15 else action
        )  # seldom new, so that it gets somewhere
        before = ControlState(jnp.array(inner.state, jnp.float32), jnp.int32(t))
        inner.state = np.array(before.x, np.float32 if name == "MountainCarContinuous" else float)
        obs, reward, terminated, truncated, _ = theirs.step(action)
        after, ours = step(before, jnp.asarray(action), KEY)
        np.testing.assert_allclose(ours.obs, obs, atol=1e-5)
        np.testing.assert_allclose(after.x, np.array(inner.state), atol=1e-5)
        np.testing.assert_allclose(ours.reward, reward, atol=1e-5)
        assert (ours.terminated, ours.truncated) == (terminated, truncated)
        t += 1
        if terminated or truncated:
            theirs.reset()
            t, ends = 0, ends + 1
    assert ends >= 1


@pytest.mark.parametrize(
    "name, peer",
    [
        ("CartPole", "CartPole-v1"),
        ("Acrobot", "Acrobot-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("MountainCar", "MountainCar-v0"),
        ("MountainCarContinuous", "MountainCarContinuous-v0"),
    ],
)
def test_episodes_begin_as_in_gymnasium(name, peer):
    obs = jax.vmap(registration.ENVIRONMENTS[name]().reset)(jax.random.split(KEY, 2_000))[1]
    theirs = gym.make(peer)
    theirs = np.stack([theirs.reset(seed=i)[0] for i in range(2_000)])
    for statistic in (np.mean, np.std, np.min, np.max):
        np.testing.assert_allclose(
            statistic(obs, 0), statistic(theirs, 0), atol=0.05 * (np.ptp(theirs, 0).max() + 1e-3)
        )


def test_the_deep_sea():
    env = DeepSea(4)
    rights = np.asarray(env.right_actions())
    assert (
        0 < rights.sum() < 16
        and (np.asarray(DeepSea(4, 1).right_actions()) != rights).any()
        and (DeepSea(4, None).right_actions() == 1).all()
    )
    state, obs = env.reset(KEY)
    rewards = []
    for t in range(4):
        np.testing.assert_array_equal(np.argwhere(obs), [[t, t]])
        state, step = env.step(state, rights[t, t], KEY)
        obs, rewards = step.obs, [*rewards, float(step.reward)]
        assert step.terminated == (t == 3) and not step.truncated
    np.testing.assert_allclose(rewards, [-0.0025, -0.0025, -0.0025, 0.9975], rtol=1e-6)
    assert not obs.any()
    state, _ = env.reset(KEY)
    state, step = env.step(state, 1 - rights[0, 0], KEY)
    assert (state.column, step.reward) == (0, 0)


def test_the_memory_chain():
    env = MemoryChain(3, num_bits=2)
    seen = set()
    for seed in range(20):
        state, obs = env.reset(jax.random.key(seed))
        context = np.asarray(obs[2:])
        np.testing.assert_array_equal(np.abs(context), 1)
        for t in range(3):
            np.testing.assert_allclose(obs[0], 1 - t / 3, rtol=1e-6)
            if t > 0:
                assert not obs[2:].any()
            query, action = int(obs[1]), int(context[int(obs[1])] > 0)
            assert t == 2 or query == 0
            wrong = seed % 2
            state, (obs, reward, terminated, _) = env.step(state, action ^ wrong, KEY)
            assert (reward, terminated) == ((-1 if wrong else 1, True) if t == 2 else (0, False))
        seen.add((*context.tolist(), query))
    assert len(seen) > 4


LEFT, STAY, RIGHT = 0, 1, 2


def breakout(ball, direction, paddle, bricks=(), struck=False):
    board = np.zeros((10, 10), bool)
    for brick in bricks or [(1, 0)]:
        board[brick] = True
    state = BreakoutState(
        np.array(ball),
        np.array(ball),
        np.array(direction),
        jnp.int32(paddle),
        board,
        jnp.bool_(struck),
        jnp.int32(1),
    )
    return jax.tree.map(
        lambda x: jnp.asarray(x, bool if jnp.asarray(x).dtype == bool else jnp.int32), state
    )


@pytest.mark.parametrize(
    "state, action, ball, direction, reward, terminated",
    [
        (breakout((5, 5), (1, 1), 0), STAY, (6, 6), (1, 1), 0, False),  # it flies
        (breakout((5, 9), (1, 1), 0), STAY, (6, 9), (1, -1), 0, False),  # the wall reflects it
        (breakout((0, 5), (-1, 1), 0), STAY, (0, 6), (1, 1), 0, False),  # the ceiling, too
        # A brick breaks.
        (breakout((4, 5), (-1, 1), 0, [(3, 6), (1, 0)]), STAY, (4, 6), (1, 1), 1, False),
        # But not in the step after another brick.
        (breakout((4, 5), (-1, 1), 0, [(3, 6)], struck=True), STAY, (3, 6), (-1, 1), 0, False),
        (breakout((8, 5), (1, 1), 5), STAY, (8, 6), (-1, 1), 0, False),  # the paddle is below it
        # The paddle arrives in time, and the ball turns back.
        (breakout((8, 5), (1, 1), 7), LEFT, (8, 6), (-1, -1), 0, False),
        (breakout((8, 5), (1, 1), 8), LEFT, (9, 6), (1, 1), 0, True),  # and too late
    ],
)
def test_breakout_by_hand(state, action, ball, direction, reward, terminated):
    after, step = jax.jit(Breakout(sticky=0).step)(state, action, KEY)
    assert after.ball.tolist() == list(ball) and after.direction.tolist() == list(direction)
    assert (step.reward, step.terminated, step.truncated) == (reward, terminated, False)
    assert after.bricks.sum() == state.bricks.sum() - reward
    np.testing.assert_array_equal(np.argwhere(step.obs[..., 1]), [ball])
    np.testing.assert_array_equal(np.argwhere(step.obs[..., 2]), [state.ball])


def test_new_bricks_and_sticky_actions():
    state = breakout((8, 5), (1, 1), 5)._replace(bricks=jnp.zeros((10, 10), bool))
    assert Breakout().step(state, STAY, KEY)[0].bricks.sum() == 30
    paddles = jax.vmap(
        lambda key: (
            Breakout(sticky=0.3)
            .step(state._replace(last_action=jnp.int32(0)), RIGHT, key)[0]
            .paddle
        )
    )(jax.random.split(KEY, 1_000))
    assert set(paddles.tolist()) == {4, 6} and 0.25 < np.mean(np.asarray(paddles) == 4) < 0.35


def test_a_player_of_breakout_that_sees_the_ball_lasts():
    env = Breakout(sticky=0)

    def step(state, key):
        goal = jnp.clip(state.ball[1] + state.direction[1] * (state.ball[0] < 8), 0, 9)
        state, step = env.step(state, 1 + jnp.sign(goal - state.paddle), key)
        return state, step

    _, steps = jax.lax.scan(step, env.reset(KEY)[0], jax.random.split(KEY, 1_000))
    assert not steps.terminated.any() and steps.reward.sum() > 30  # all bricks, and more


def asterix(**changes):
    state, _ = Asterix().reset(KEY)
    return state._replace(spawn_in=jnp.int32(9), **changes)


def flying(row, column, right, gold):
    at = np.arange(1, 9) == row
    return dict(
        column=jnp.where(at, column, 0).astype(jnp.int32),
        right=jnp.array(at & right),
        gold=jnp.array(at & gold),
        there=jnp.array(at),
    )


@pytest.mark.parametrize(
    "state, action, reward, terminated, left",
    [
        # The player moves to the right, into gold.
        (asterix(**flying(5, 6, True, True)), 3, 1, False, 0),
        (asterix(**flying(5, 6, True, False)), 3, 0, True, 1),  # into an enemy
        (asterix(**flying(4, 5, True, True)), 2, 1, False, 0),  # up
        (asterix(**flying(5, 6, True, False)), 0, 0, False, 1),
        # The enemy moves into the player.
        (asterix(**flying(5, 6, False, False), move_in=jnp.int32(0)), 0, 0, True, 1),
        # The gold leaves the board.
        (asterix(**flying(3, 9, True, True), move_in=jnp.int32(0)), 0, 0, False, 0),
    ],
)
def test_asterix_by_hand(state, action, reward, terminated, left):
    after, step = jax.jit(Asterix(sticky=0).step)(state, action, KEY)
    assert (step.reward, step.terminated, after.there.sum()) == (reward, terminated, left)


def test_asterix_becomes_faster_and_fills_up():
    env = Asterix(sticky=0)
    state, _ = env.reset(KEY)

    def step(state, key):
        state, step = env.step(state, 0, key)
        return state, (state, step)

    _, (states, steps) = jax.device_get(jax.lax.scan(step, state, jax.random.split(KEY, 3_000)))
    assert states.spawn_every[[0, 150, 250, 2_999]].tolist() == [10, 9, 8, 1] and states.move_every[
        [0, 150, 250, -1]
    ].tolist() == [
        5,
        5,
        4,
        1,
    ]
    new = (states.there[1:] & ~states.there[:-1]).sum(1)
    assert new.max() == 1 and np.flatnonzero(new)[:2].tolist() == [9, 19]
    came = states.there[1:] & ~states.there[:-1]
    assert (
        0.28 < states.gold[1:][came].mean() < 0.39 and 0.45 < states.right[1:][came].mean() < 0.55
    )
    assert steps.reward.sum() > 0 and steps.terminated.any()


def test_the_vector_environment_has_its_dtypes():
    envs = make_envs("agentzoo/Pendulum-v0", 3)
    assert isinstance(envs.env, FunctionalVectorEnv)
    obs, reward, terminated, _, _ = (envs.reset(0), envs.env.step(np.zeros((3, 1), np.float32)))[1]
    assert (
        obs.dtype == reward.dtype == np.float32
        and terminated.dtype == bool
        and envs.env.observation_space.contains(obs)
    )
