"""Runs in Python environments go on exactly where they stopped."""

import functools

import gymnasium as gym
import jax
import numpy as np
import pytest

import agentzoo
from tests.agents import SETTINGS, arrays, make
from tests.test_resume import SHORT, Failure, assert_same_run, watching

CONTINUOUS = ("SAC", "MPO")
SIX = tuple(SETTINGS)


def env_of(algorithm):
    return "Pendulum-v1" if algorithm in CONTINUOUS else "CartPole-v1"


def reload(agent, path, env, **options):
    return agentzoo.load(agent.save(path), env, **options)


def learn(agent, steps):
    return agent.learn(steps, progress_bar=False, reset_num_timesteps=False)


def leaves(agent):
    """Return the arrays of a whole session, with random keys as numbers."""
    state = agent.session.rollout_state

    def data(x):
        is_key = isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return arrays(agent) + [np.asarray(data(x)) for x in jax.tree.leaves(state)]


def assert_equal(one, other):
    """Check that two agents, their environments and their statistics are the same, to the bit."""
    for x, y in zip(leaves(one), leaves(other), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)
    assert one.session.episodes.to_json() == other.session.episodes.to_json()
    assert one.session.predictions == other.session.predictions
    assert one.session.env_name == other.session.env_name


def check(agent, path, env, steps=(50, 60), **options):
    """Check that saving and loading after some steps makes no difference to what follows."""
    learn(agent, steps[0])
    loaded = reload(agent, path, env, **options)
    assert_equal(agent, loaded)
    learn(loaded, steps[1])
    learn(agent, steps[1])
    assert_equal(agent, loaded)
    assert loaded.trainer.runner.resumed is None
    return loaded


@pytest.mark.parametrize("n_envs", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("algorithm", SIX)
def test_a_loaded_agent_goes_on_exactly(algorithm, n_envs, tmp_path):
    env = env_of(algorithm)
    batch = dict(batch_size=16 * n_envs) if algorithm == "PPO" else {}
    agent = make(algorithm, env, n_envs=n_envs, runner="host", **batch)
    steps = (50 * n_envs, 60 * n_envs)
    check(agent, tmp_path / "agent", env, steps, runner="host")


class Counting(gym.Env):
    """The reward counts the episodes of this object, which `reset` does not set back."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(3, start=5)

    def __init__(self, outlives=True):
        self.outlives, self.episodes = outlives, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + self.outlives
        return self._obs(), {}

    def _obs(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action):
        assert 5 <= action < 8
        self.t += 1
        return self._obs(), float(action + self.episodes), self.np_random.random() < 0.1, False, {}


class Parts(Counting):
    """Observes a dict."""

    observation_space = gym.spaces.Dict(
        {"a": gym.spaces.Box(-1.0, 1.0, (2,)), "b": gym.spaces.Discrete(7, start=2)}
    )

    def __init__(self):
        super().__init__(outlives=False)

    def _obs(self):
        return {"a": super()._obs(), "b": self.np_random.integers(2, 9)}


class Bits(Counting):
    """Takes vectors of actions."""

    action_space = gym.spaces.MultiDiscrete([3, 4])

    def __init__(self):
        super().__init__(outlives=False)

    def step(self, action):
        return super().step(5 + action.sum() % 3)


def stacked():
    return gym.wrappers.FrameStackObservation(gym.make("CartPole-v1"), 3)


@pytest.mark.parametrize("algorithm, env", [("DQN", Parts), ("PPO", Bits), ("DQN", stacked)])
def test_spaces_of_all_kinds(algorithm, env, tmp_path):
    batch = dict(batch_size=32) if algorithm == "PPO" else {}
    check(make(algorithm, env, n_envs=2, **batch), tmp_path / "agent", env)


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Acrobot-v1"])
def test_environments_of_gymnasium(env, tmp_path):
    check(make("DQN", env, n_envs=2), tmp_path / "agent", env)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_functional_environments_go_on_with_their_random_keys(n_envs, tmp_path):
    agent = make("DQN", "agentzoo/CartPole-v0", n_envs=n_envs, runner="host")
    loaded = check(agent, tmp_path / "agent", "agentzoo/CartPole-v0", runner="host")
    compiled = make("DQN", "agentzoo/CartPole-v0", n_envs=n_envs, runner="device")
    learn(learn(compiled, 50), 60)
    assert compiled.session.episodes.lengths == loaded.session.episodes.lengths


def disabled(kind):
    """Return a vector environment that is reset one by one."""
    options = {"autoreset_mode": gym.vector.AutoresetMode.DISABLED}
    if kind is gym.vector.AsyncVectorEnv:
        options["context"] = "spawn"
    return kind([functools.partial(gym.make, "CartPole-v1")] * 3, **options)


@pytest.mark.parametrize("kind", [gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_vector_environments_that_are_reset_one_by_one(kind, tmp_path):
    first, second = disabled(kind), disabled(kind)
    agent = make("DQN", first)
    assert agent.trainer.envs.replayable is None
    check(agent, tmp_path / "agent", second, steps=(150, 150))
    first.close()
    second.close()


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_vector_environments_that_reset_themselves_are_named(mode, tmp_path):
    def env():
        autoreset = {"autoreset_mode": gym.vector.AutoresetMode[mode]}
        return gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2, **autoreset)

    agent = learn(make("DQN", env()), 40)
    loaded = reload(agent, tmp_path / "agent", env())
    assert agent.session.rollout_state is None
    message = loaded.trainer.runner.resumed
    assert "SyncVectorEnv" in message and "Pass the id or a factory, and n_envs" in message
    with pytest.warns(UserWarning, match="SyncVectorEnv does not resume exactly"):
        learn(loaded, 40)
    learn(loaded, 40)  # without another warning


def normalized():
    return gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))


def test_wrappers_with_statistics_are_named(tmp_path):
    agent = learn(make("DQN", normalized), 40)
    loaded = reload(agent, tmp_path / "agent", normalized)
    message = loaded.trainer.runner.resumed
    assert "NormalizeObservation" in message and "normalize_obs=True" in message
    with pytest.warns(UserWarning, match="NormalizeObservation"):
        learn(loaded, 40)


def test_a_new_episode_begins_only_where_state_outlives_a_reset(tmp_path):
    made = []

    def env():
        made.append(Counting(outlives=len(made) % 3 == 1))
        return made[-1]

    agent = learn(make("DQN", env, n_envs=3), 120)
    before = agent.session.rollout_state
    loaded = reload(agent, tmp_path / "agent", env)
    with pytest.warns(UserWarning, match="Training does not resume exactly"):
        loaded.trainer.begin(False)
    runner = loaded.trainer.runner
    assert "in environment 1 because the same seed and actions led to other" in runner.resumed
    after = runner.rollout_state
    assert (after.episodes.number - before.episodes.number).tolist() == [0, 1, 0]
    assert after.first[1] and after.lengths[1] == 0
    np.testing.assert_array_equal(after.obs[[0, 2]], before.obs[[0, 2]])
    learn(loaded, 60)


def test_an_environment_that_raises_begins_a_new_episode(tmp_path):
    class Other(Counting):
        def step(self, action):
            raise ValueError("no")

    agent = learn(make("DQN", lambda: Counting(False)), 45)
    loaded = reload(agent, tmp_path / "agent", lambda: Other(False))
    # The two classes have different names.
    assert "saved in other environments" in loaded.trainer.runner.resumed
    Other.__name__ = "Counting"
    loaded = reload(agent, tmp_path / "agent", lambda: Other(False))
    assert agent.session.rollout_state.episodes.steps[0] > 0
    with pytest.warns(UserWarning, match="ValueError"):
        loaded.trainer.begin(False)
    assert "repeating the episode raised ValueError: no" in loaded.trainer.runner.resumed


def test_threads_go_on_exactly_without_lag(tmp_path):
    options = dict(runner="threads", n_actors=2, max_lag=0)
    agent = make("DQN", "CartPole-v1", n_envs=4, **options)
    check(agent, tmp_path / "agent", "CartPole-v1", steps=(160, 160), **options)


def test_threads_that_are_ahead_return_to_where_the_learner_is(tmp_path):
    options = dict(runner="threads", n_actors=2, max_lag=1)
    agent = make("DQN", "CartPole-v1", n_envs=2, **options)
    agent.learn(200, callback=lambda agent: agent.num_timesteps < 80, progress_bar=False)
    loaded = reload(agent, tmp_path / "agent", "CartPole-v1", runner="host")
    assert_equal(agent, loaded)
    for each in (agent, loaded):
        before = each.session.rollout_state
        each.trainer.begin(False)
        assert each.trainer.runner.resumed is None
        np.testing.assert_array_equal(each.session.rollout_state.obs, before.obs)
        each.trainer.end()


class Interrupt(BaseException):
    """What a second Ctrl-C does: an exception anywhere."""


def test_an_interrupted_rollout_is_repeated_exactly(monkeypatch):
    agents = [make("DQN", "CartPole-v1", n_envs=2) for _ in range(2)]
    for agent in agents:
        learn(agent, 64)
    envs = agents[1].trainer.envs
    step, calls = envs.step, []

    def interrupted(actions):
        calls.append(actions)
        if len(calls) == 3:
            raise Interrupt
        return step(actions)

    monkeypatch.setattr(envs, "step", interrupted)
    with pytest.raises(Interrupt):
        learn(agents[1], 64)
    assert_equal(*agents)
    for agent in agents:
        learn(agent, 64)
    assert_equal(*agents)


def test_an_episode_in_which_the_environment_failed_is_not_tried_again(tmp_path):
    class Failing(Counting):
        fails = False

        def step(self, action):
            if self.fails:
                raise RuntimeError("broken")
            return super().step(action)

    agent = learn(make("DQN", lambda: Failing(False)), 45)
    number = agent.session.rollout_state.episodes.number[0]
    Failing.fails = True
    with pytest.raises(RuntimeError):
        learn(agent, 40)
    Failing.fails = False
    loaded = reload(agent, tmp_path / "agent", lambda: Failing(False))
    for each in (agent, loaded):
        learn(each, 4)
        assert each.session.rollout_state.episodes.number[0] >= number + 1
    assert_equal(agent, loaded)


def test_a_disturbed_environment_begins_the_same_episode_after_loading(tmp_path):
    agent = learn(make("DQN", "CartPole-v1"), 45)
    agent.get_env().reset()
    loaded = reload(agent, tmp_path / "agent", "CartPole-v1")
    for each in (agent, loaded):
        learn(each, 60)
    assert_equal(agent, loaded)


def test_a_new_run_begins_with_the_same_episodes_after_loading(tmp_path):
    agent = learn(make("DQN", "CartPole-v1"), 45)
    loaded = reload(agent, tmp_path / "agent", "CartPole-v1")
    for each in (agent, loaded):
        each.learn(60, progress_bar=False)
    assert_equal(agent, loaded)


def test_episodes_that_cannot_be_are_refused():
    agent = learn(make("DQN", "CartPole-v1"), 45)
    state = agent.session.rollout_state
    for steps in (state.episodes.steps + 1, state.episodes.steps + 2**40):
        damaged = state._replace(episodes=state.episodes._replace(steps=steps))
        with pytest.raises(agentzoo.ConfigurationError, match="saved episodes are damaged"):
            agent.trainer.runner.rollout_state = damaged


def test_loading_does_not_touch_the_environment(tmp_path):
    agent = learn(make("DQN", lambda: Counting(False)), 45)
    env = Counting()
    loaded = reload(agent, tmp_path / "agent", env)
    assert env.episodes == 0
    assert_equal(agent, loaded)
    # What was loaded is saved again as it was.
    assert_equal(agent, reload(loaded, tmp_path / "again", Counting()))


def test_more_environments_begin_new_episodes(tmp_path):
    agent = learn(make("DQN", "CartPole-v1"), 45)
    loaded = reload(agent, tmp_path / "agent", "CartPole-v1", n_envs=2)
    learn(loaded, 40)
    assert loaded.session.rollout_state.episodes.number.min() >= 0


def test_a_file_without_episodes_says_so(tmp_path):
    agent = learn(make("DQN", normalized), 45)
    loaded = reload(agent, tmp_path / "agent", rescaled)
    assert "the file holds no episodes" in loaded.trainer.runner.resumed


def rescaled():
    return gym.wrappers.TransformObservation(
        gym.make("CartPole-v1"), lambda obs: obs / 2, normalized().observation_space
    )


@pytest.mark.parametrize(
    "algorithm",
    [
        name if name in ("DQN", "PPO") else pytest.param(name, marks=pytest.mark.slow)
        for name in SIX
    ],
)
def test_interrupted_runs_end_as_if_they_had_not_been(algorithm, tmp_path):
    env = env_of(algorithm)
    whole = make(algorithm, env, run_dir=tmp_path / "whole")
    whole.learn(320, watching(env=env), **SHORT)
    with pytest.raises(Failure):
        make(algorithm, env, run_dir=tmp_path / "cut").learn(320, watching(100, env), **SHORT)
    with pytest.raises(Failure):
        agentzoo.resume(tmp_path / "cut", callback=watching(250, env))
    resumed = agentzoo.resume(tmp_path / "cut", callback=watching(env=env))
    assert_same_run(whole, resumed)
