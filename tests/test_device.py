"""Learning inside one compiled program, beside learning from Python in the same environments."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces, wrappers

import agentzoo
from agentzoo import DQN, IMPALA, SAC, ConfigurationError, callbacks, evaluate_policy
from agentzoo.envs import (
    Catch,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    Step,
    TimeLimit,
    find_native,
    make_envs,
)
from agentzoo.runners import DeviceRunner, HostRunner
from tests.agents import CATCH, SETTINGS, assert_same, make


class Walk:
    """A random walk with a time limit, which ends when it leaves [-1, 1].

    An action is a move in [-1, 1], or one of three directions.
    """

    observation_space = spaces.Dict(x=spaces.Box(-2, 2, (2,), np.float32), t=spaces.Discrete(8))

    def __init__(self, discrete=False):
        self.action_space = (
            spaces.Discrete(3, start=-1) if discrete else spaces.Box(-1, 1, (2,), np.float32)
        )

    def __repr__(self):
        return f"Walk({self.action_space})"

    def reset(self, key):
        state = (jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5), jnp.int32(0))
        return state, self.observe(state)

    def step(self, state, action, key):
        x, t = state
        state = (x + 0.3 * action + 0.1 * jax.random.normal(key, (2,)), t + 1)
        far = jnp.abs(state[0]).max()
        return state, Step(self.observe(state), -far, far > 1, t + 1 == 7)

    def observe(self, state):
        return {"x": jnp.clip(state[0], -2, 2), "t": state[1]}


# The same as from Python


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_the_same_agent_comes_out(algorithm):
    walk = Walk(discrete=algorithm in ("DQN", "QRDQN"))
    noise = {"noise_steps": 5} if algorithm in ("SAC", "MPO") else {}
    episodes = []

    class Watch(callbacks.BaseCallback):
        def _on_step(self):
            seen.extend(self.locals["episodes"])

    agents = []
    for runner in ("host", "device"):
        episodes.append(seen := [])
        agents.append(
            make(algorithm, walk, n_envs=2, runner=runner, **noise).learn(
                150, [Watch()], progress_bar=False
            )
        )
    host, device = agents
    assert isinstance(host.trainer.runner, HostRunner) and isinstance(
        device.trainer.runner, DeviceRunner
    )
    assert host.num_timesteps == device.num_timesteps and len(episodes[0]) > 15
    assert_same(host, device, rtol=1e-4, atol=1e-5)
    assert [episode.length for episode in episodes[0]] == [
        episode.length for episode in episodes[1]
    ]
    np.testing.assert_allclose(
        [episode.reward for episode in episodes[0]],
        [episode.reward for episode in episodes[1]],
        rtol=1e-5,
    )
    assert host.metrics.keys() == device.metrics.keys()
    for tag, value in host.metrics.items():
        np.testing.assert_allclose(value, device.metrics[tag], rtol=1e-3, atol=1e-5, err_msg=tag)


def test_chunks_make_no_difference():
    def learn(most):
        agent = make("DQN", CATCH)
        agent.trainer.runner._most = most
        calls = []
        agent.learn(
            400, lambda a: calls.append(a.num_timesteps), log_interval=10_000, progress_bar=False
        )
        return agent, calls

    (one, each_cycle), (many, chunks) = learn(1), learn(64)
    assert each_cycle == list(range(4, 404, 4)) and len(chunks) < 20 and chunks[-1] == 400
    assert_same(one, many)


def test_episodes_go_on_where_they_were():
    whole, parts = (make("IMPALA", CATCH, learning_rate=1e-3, ent_coef=0.01) for _ in range(2))
    whole.learn(160, progress_bar=False)
    parts.learn(80, progress_bar=False).learn(80, progress_bar=False, reset_num_timesteps=False)
    assert_same(whole, parts)


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
def test_a_loaded_agent_learns_on_exactly(tmp_path, algorithm):
    """Even in the middle of an episode, and with noise."""
    options = dict(n_envs=2, learning_rate=1e-3) | (
        dict(exploration_fraction=0.0) if algorithm == "DQN" else {}
    )
    walk = Walk(discrete=True)
    whole = make(algorithm, walk, **options).learn(256, progress_bar=False)
    path = make(algorithm, walk, **options).learn(128, progress_bar=False).save(tmp_path / "half")
    resumed = agentzoo.load(path, walk).learn(128, progress_bar=False, reset_num_timesteps=False)
    assert_same(whole, resumed)


def test_files_are_the_same_for_every_runner(tmp_path):
    path = make("DQN", CATCH).learn(40, progress_bar=False).save(tmp_path / "device")
    for runner in ("host", "device"):
        agent = DQN.load(path, CATCH, runner=runner)
        assert agent.learn(8, progress_bar=False, reset_num_timesteps=False).num_timesteps == 48
    assert DQN.load(path).predict(np.zeros((10, 5)))[0] in range(3)
    assert (
        DQN.load(path, lambda: TimeLimit(Catch(), 5)).learn(8, progress_bar=False).num_timesteps
        == 8
    )  # another: new episodes
    path = make("DQN", CATCH, runner="host").learn(40, progress_bar=False).save(tmp_path / "host")
    assert (
        DQN.load(path, CATCH).learn(8, progress_bar=False, reset_num_timesteps=False).num_timesteps
        == 48
    )


# What learn promises


def test_callbacks_are_called_when_they_ask_for_it(tmp_path):
    seen, ever = [], []
    agent = make("DQN", CATCH)
    every = callbacks.EveryNTimesteps(50, lambda a: seen.append(a.num_timesteps))
    inner = callbacks.EveryNTimesteps(1, lambda a: ever.append(a.num_timesteps))
    given = [every, callbacks.EveryNTimesteps(100, inner)]
    agent.learn(400, given, log_interval=10_000, progress_bar=False)
    assert seen == [52, 100, 152, 200, 252, 300, 352, 400] and ever == [100, 200, 300, 400]
    each = []
    agent.learn(
        40, callbacks.EveryNTimesteps(1, lambda a: each.append(a.num_timesteps)), progress_bar=False
    )
    assert each == list(range(4, 44, 4))


def test_evaluation_checkpoints_and_logs(tmp_path):
    agent = make("DQN", CATCH, log_dir=tmp_path)
    evaluation = callbacks.EvalCallback(CATCH, eval_freq=60, n_eval_episodes=2, verbose=0)
    agent.learn(
        200,
        [evaluation, callbacks.CheckpointCallback(80, tmp_path / "c")],
        log_interval=100,
        progress_bar=False,
    )
    rows = (agent.run_dir / "progress.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["60", "100", "120", "180", "200"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "rl_model_160_steps.safetensors",
        "rl_model_80_steps.safetensors",
    ]
    assert np.isfinite(evaluation.last_mean_reward)


def test_a_function_ends_the_training_at_its_first_call():
    agent = make("DQN", CATCH).learn(1e6, lambda a: False, progress_bar=False)
    assert agent.num_timesteps == 4
    agent = make("DQN", CATCH).learn(
        1e6, callbacks.StopTrainingOnMaxEpisodes(20), progress_bar=False
    )
    assert 20 <= len(agent.trainer.episodes.rewards) < 60


def test_the_budget_is_kept_to_a_cycle():
    assert make("DQN", CATCH, n_envs=3).learn(50, progress_bar=False).num_timesteps == 60


# Which environments


def test_which_environments_are_native():
    def native(env, n_envs=1):
        return find_native(make_envs(env, n_envs))

    assert (
        native(CATCH)
        == native(CATCH, 4)
        == native(Catch())
        == native(Catch, 2)
        == native(FunctionalVectorEnv(Catch(), 3))
        == Catch()
    )
    assert native(lambda: gym.make(CATCH, rows=4), 2) == Catch(4)
    assert native(gym.make(CATCH, max_episode_steps=5)) == TimeLimit(Catch(), 5)
    python = wrappers.TransformReward(gym.make(CATCH), lambda r: 2 * r)
    assert native(python) is native("CartPole-v1") is native("CartPole-v1", 2) is None
    sizes = iter([Catch(), TimeLimit(Catch(), 5)])
    assert native(lambda: FunctionalGymEnv(next(sizes)), 2) is None
    with pytest.raises(ConfigurationError, match="written in JAX from end to end"):
        DQN(python, runner="device")
    with pytest.raises(
        ConfigurationError, match=r"runner='devise' is unknown\. Did you mean 'device'\? Choose"
    ):
        DQN(CATCH, runner="devise")
    assert isinstance(DQN(python).trainer.runner, HostRunner)


@pytest.mark.learning
@pytest.mark.parametrize("runner", ["host", "device"])
def test_a_time_limit_bootstraps_from_the_true_last_observation(runner):
    class Constant:
        """Reward 1 a step, cut off after 5: the value is 1 / (1 - gamma)."""

        observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

        def reset(self, key):
            return jnp.int32(0), jnp.zeros(1)

        def step(self, state, action, key):
            return state + 1, Step(jnp.zeros(1), 1.0, jnp.bool_(False), state + 1 == 5)

    agent = IMPALA(
        Constant(),
        runner=runner,
        n_steps=16,
        learning_rate=1e-2,
        gamma=0.5,
        normalize_reward=False,
        net_arch=(16,),
        ortho_init=False,
    )
    np.testing.assert_allclose(
        agent.learn(4_000, progress_bar=False).value(np.zeros(1)), 2, atol=0.2
    )


def test_the_vector_environment():
    envs = gym.make_vec(CATCH, 3, rows=4)
    assert isinstance(envs.unwrapped, FunctionalVectorEnv)
    singles = [gym.make(CATCH, rows=4) for _ in range(3)]
    obs, _ = envs.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    for _ in range(10):
        np.testing.assert_array_equal(obs, expected)
        obs, reward, terminated, truncated, info = envs.step(np.array([0, 1, 2]))
        for i, env in enumerate(singles):
            expected[i], *rest = env.step(i)
            assert (reward[i], terminated[i], truncated[i]) == tuple(rest[:3])
            if terminated[i]:
                np.testing.assert_array_equal(info["final_obs"][i], expected[i])
                expected[i], _ = env.reset()
    assert obs.flags.writeable and envs.render() is None
    assert np.shape(
        gym.make_vec(CATCH, 2, render_mode="rgb_array").unwrapped.metadata["render_modes"]
    ) == (1,)


# That it learns


@pytest.mark.learning
def test_pendulum_is_learned():
    options = dict(
        n_envs=4,
        gradient_steps=2,
        batch_size=64,
        buffer_size=20_000,
        learning_starts=200,
        net_arch=(32, 32),
    )
    agent = SAC("agentzoo/Pendulum-v0", learning_rate=3e-3, gamma=0.95, tau=0.02, **options).learn(
        8_000, progress_bar=False
    )
    assert (
        evaluate_policy(agent, "agentzoo/Pendulum-v0", 20, seed=5)[0] > -400
    )  # a random policy has -1200
