"""Evaluation: which episodes count, in which environments, and what it means for training."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import DQN, IMPALA, PPO, ConfigurationError, callbacks, evaluate_policy
from agentzoo.envs import Catch, FunctionalVectorEnv, make_envs
from agentzoo.runners.actor import Actor
from tests import probes
from tests.agents import FAST, cart_pole

Quiet = functools.partial(callbacks.EvalCallback, verbose=0)


def test_evaluation_weighs_environments_evenly_and_ignores_dummy_steps():
    class Length(probes.Probe):
        observation_space = spaces.Box(0, 9, (1,), np.float32)

        def __init__(self, length=3):
            self.length = length

    a = DQN(Length, **FAST)
    vector = gym.vector.SyncVectorEnv([lambda: Length(1), lambda: Length(9)])
    rewards, lengths = evaluate_policy(a, vector, 4, return_episode_rewards=True)
    assert sorted(rewards) == sorted(lengths) == [1, 1, 9, 9]
    assert evaluate_policy(a, lambda: vector, 4) == (5.0, 4.0)  # and closes what it was given
    assert evaluate_policy(a, Length(2), 3) == (2.0, 0.0)
    with pytest.raises(AssertionError, match="below threshold"):
        evaluate_policy(a, Length, 2, reward_threshold=100)
    with pytest.raises(ConfigurationError, match="n_eval_episodes=0"):
        evaluate_policy(a, Length, 0)


def test_evaluation_takes_any_model_with_predict():
    class Right:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.ones(len(observation), int), state

    assert evaluate_policy(Right(), probes.ActionReward, 5) == (1.0, 0.0)


# environments that do not fit


def cart_pole_with(action_space=None, observation_space=None):
    """A function that makes a CartPole with other spaces."""

    def make():
        env = gym.make("CartPole-v1")
        if action_space is not None:
            return gym.wrappers.TransformAction(env, lambda action: action, action_space)
        return gym.wrappers.TransformObservation(env, lambda obs: obs, observation_space)

    return make


OTHERS = {
    "shape": lambda: gym.make("Acrobot-v1"),
    "actions": cart_pole_with(spaces.Discrete(3)),
    "start": cart_pole_with(spaces.Discrete(2, start=1)),
    "structure": cart_pole_with(observation_space=spaces.Dict(x=spaces.Box(-1, 1, (4,)))),
    "dtype": cart_pole_with(observation_space=spaces.Box(0, 255, (4,), np.uint8)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_spaces_are_refused_before_anything_runs(kind, tmp_path):
    a = cart_pole(log_dir=tmp_path).learn(8, progress_bar=False)
    before = a.num_timesteps, sorted(tmp_path.iterdir())
    make = OTHERS[kind]
    for env in (make, make(), SyncVectorEnv([make]), *(["Acrobot-v1"] if kind == "shape" else [])):
        with pytest.raises(
            ConfigurationError,
            match=r"was made for observations .* Pass an environment with the same spaces",
        ):
            evaluate_policy(a, env, 1)
        with pytest.raises(ConfigurationError, match="The agent was made for observations"):
            a.learn(8, [callbacks.EveryNTimesteps(8, Quiet(env))], progress_bar=False)
    assert (a.num_timesteps, sorted(tmp_path.iterdir())) == before


def test_bounds_count_where_actions_are_scaled_to_them():
    class Wide(probes.ContinuousAction):
        action_space = spaces.Box(-2, 6, (1,), np.float32)

    class Far(probes.ContinuousAction):
        observation_space = spaces.Box(-9, 9, (1,), np.float32)

    a = PPO(probes.ContinuousAction, n_steps=8, batch_size=8, n_epochs=1, net_arch=(8,))
    with pytest.raises(ConfigurationError, match="same spaces"):
        evaluate_policy(a, Wide, 1)
    evaluate_policy(a, Far, 1)


def test_a_callback_in_the_wrong_place_is_refused_before_the_run(tmp_path):
    for stop in (
        callbacks.StopTrainingOnRewardThreshold(1),
        callbacks.StopTrainingOnNoModelImprovement(1),
    ):
        for given in (stop, [stop], callbacks.EveryNTimesteps(1, stop)):
            with pytest.raises(ConfigurationError, match="must be given to an EvalCallback"):
                cart_pole(log_dir=tmp_path).learn(8, given, progress_bar=False)
    assert not list(tmp_path.iterdir())


# seeds


@pytest.mark.parametrize("env", ["agentzoo/Catch-v0", "CartPole-v1", "object", "vector"])
def test_equal_runs_are_evaluated_equally(env, tmp_path):
    """And the evaluations of one run in different episodes, which are not those of training."""
    begun = []

    class Watched(gym.Wrapper):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed, options=options)
            begun.append((seed, obs.tolist()))
            return obs, info

    def make():
        return Watched(gym.make("CartPole-v1"))

    made = {
        "object": make,
        "vector": lambda: SyncVectorEnv([make] * 2),
        "CartPole-v1": lambda: make,
    }.get(env, lambda: env)
    results = []
    for _ in range(2):
        folder = tmp_path / str(len(results))
        begun.append("run")
        trains_in = env if env.startswith("agentzoo") else "CartPole-v1"
        a = DQN(trains_in, runner="host", seed=3, **FAST)
        evaluation = Quiet(made(), eval_freq=40, n_eval_episodes=4, log_path=folder)
        a.learn(80, evaluation, progress_bar=False)
        results.append(np.load(folder / "evaluations.npz")["results"])
    np.testing.assert_array_equal(*results)
    if not env.startswith("agentzoo"):
        half = len(begun) // 2
        assert begun[:half] == begun[half:]
        seeds = [one[0] for one in begun[1:half] if one[0] is not None]
        # A vector environment of the user's begins all episodes but the first ones by itself.
        assert len(set(seeds)) == len(seeds) >= (4 if env == "vector" else 8)
        assert min(seeds) > 100 and max(seeds) < 2**31


def test_a_seed_of_its_own_begins_the_same_episodes():
    starts = []

    class Watched(probes.ObservationReward):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed)
            starts.append((seed, float(obs[0])))
            return obs, info

    evaluation = Quiet(Watched(), eval_freq=8, n_eval_episodes=5, seed=7)
    DQN(probes.ObservationReward, **FAST).learn(16, evaluation, progress_bar=False)
    assert starts[0][0] == 7 and starts[: len(starts) // 2] == starts[len(starts) // 2 :]


def test_environments_are_made_once_per_run_and_closed():
    events = []

    class Logged(probes.ConstantReward):
        def __init__(self):
            events.append("made")

        def close(self):
            events.append("closed")

    evaluation = Quiet(Logged, eval_freq=8, n_eval_episodes=2)
    a = DQN(probes.ConstantReward, **FAST)
    for _ in range(2):
        a.learn(32, evaluation, progress_bar=False)
    assert events == ["made"] * 2 + ["closed"] * 2 + ["made"] * 2 + ["closed"] * 2
    given = Quiet(Logged(), eval_freq=8, n_eval_episodes=2)
    events.clear()
    a.learn(16, given, progress_bar=False)
    a.learn(16, given, progress_bar=False)
    evaluate_policy(a, given.eval_env, 1)
    assert events == []  # the user's own stays open


# the environments of training


def counters(num, **kwargs):
    return SyncVectorEnv([probes.Counter] * num, **kwargs)


SHARED = {
    "environment": lambda env: (env, env),
    "wrapped for training": lambda env: (gym.wrappers.TimeLimit(env, 9), env),
    "wrapped for evaluation": lambda env: (env, gym.wrappers.TimeLimit(env, 9)),
    "factory": lambda env: (env, lambda: env),
    "inside a vector": lambda env: (SyncVectorEnv([lambda: env]), env),
    "vector of it": lambda env: (env, SyncVectorEnv([probes.Counter, lambda: env])),
    "vector": lambda env: (vector := SyncVectorEnv([lambda: env]), vector),
    "wrapped vector": lambda env: (
        vector := SyncVectorEnv([lambda: env]),
        gym.wrappers.vector.RecordEpisodeStatistics(vector),
    ),
}


@pytest.mark.parametrize("kind", SHARED)
def test_evaluating_in_the_training_environment_is_refused(kind):
    training, evaluation = SHARED[kind](probes.Counter())
    a = DQN(training, **FAST)
    for env in (evaluation, a.get_env()):
        with pytest.raises(ConfigurationError, match="the environment that the agent trains in"):
            a.learn(8, callbacks.EvalCallback(env, n_eval_episodes=1), progress_bar=False)
    a.learn(8, Quiet(probes.Counter(), eval_freq=8), progress_bar=False)


VECTORS = {
    "environment": lambda: (dict(env=probes.Counter()), 1),
    "several": lambda: (dict(env=probes.Counter, n_envs=3), 3),
    "threads": lambda: (dict(env=probes.Counter, n_envs=4, runner="threads", n_actors=2), 4),
    "vector": lambda: (dict(env=counters(2)), 2),
    "shares of vectors": lambda: (
        dict(env=lambda: counters(2), n_envs=4, runner="threads", n_actors=2),
        4,
    ),
    "shares that reset at once": lambda: (
        dict(
            env=lambda: counters(2, autoreset_mode=AutoresetMode.SAME_STEP),
            n_envs=4,
            runner="threads",
            n_actors=2,
        ),
        4,
    ),
    "compiled": lambda: (dict(env="agentzoo/Catch-v0", n_envs=2), 2),
    "one compiled": lambda: (dict(env="agentzoo/Catch-v0"), 1),
    "shares of compiled": lambda: (
        dict(env="agentzoo/Catch-v0", n_envs=4, runner="threads", n_actors=2),
        4,
    ),
    "ray": lambda: (dict(env=probes.Counter, n_envs=4, runner="ray", n_actors=2), 4),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_get_env_is_a_vector_environment(kind, request):
    if kind == "ray":
        request.getfixturevalue("cluster")
    options, num_envs = VECTORS[kind]()
    a = DQN(**options, **FAST)
    env = a.get_env()
    assert isinstance(env, gym.vector.VectorEnv) and a.get_env() is env
    assert env.num_envs == num_envs == a.n_envs
    assert env.single_observation_space == a.spec.observation_space
    assert env.single_action_space == a.spec.action_space
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    lengths = np.zeros(num_envs, int)
    for _ in range(5):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        assert reward.shape == terminated.shape == truncated.shape == (num_envs,)
        assert isinstance(info, dict)
        lengths += 1
    for each in (a, None):
        rewards, steps = evaluate_policy(each or a, env, 2 * num_envs, return_episode_rewards=True)
        assert len(rewards) == 2 * num_envs and set(steps) == ({9} if "compiled" in kind else {3})
        if "compiled" not in kind:
            assert set(rewards) == {6.0}
    a.learn(4 * num_envs, progress_bar=False)
    seen = []
    a.learn(4 * num_envs, lambda agent: seen.append(agent.get_env()), progress_bar=False)
    assert all(one is env for one in seen)
    b = DQN(env, **FAST)  # which is an environment like any other
    b.learn(4 * num_envs, progress_bar=False)
    if options.get("n_actors", 1) == 1:
        a.set_env(env)
        assert a.learn(8 * num_envs, progress_bar=False).num_timesteps >= 8 * num_envs
        assert a.get_env() is not env


def test_infos_of_joint_vector_environments():
    mode = AutoresetMode.SAME_STEP
    make = lambda: SyncVectorEnv([probes.Informed] * 2, autoreset_mode=mode)  # noqa: E731
    env = DQN(make, n_envs=4, runner="threads", n_actors=2, **FAST).get_env()
    env.reset(seed=[1, 2, 3, 4])
    env.envs[1].reset()
    env.envs[1].step(np.zeros(2, int))  # so that the second half is a step ahead
    env.step(np.zeros(4, int))
    _, _, terminated, truncated, info = env.step(np.zeros(4, int))
    np.testing.assert_array_equal(terminated | truncated, [False, False, True, True])
    np.testing.assert_array_equal(info["_final_obs"], [False, False, True, True])
    np.testing.assert_array_equal(info["final_info"]["t"], [0, 0, 3, 3])
    np.testing.assert_array_equal(info["final_info"]["_t"], [False, False, True, True])
    np.testing.assert_array_equal(info["t"], [2, 2, 0, 0])


def test_joint_vector_environments_reset_those_that_are_asked_for():
    options = dict(
        env=lambda: counters(2, autoreset_mode=AutoresetMode.DISABLED),
        n_envs=4,
        runner="threads",
        n_actors=2,
    )
    env = DQN(**options, **FAST).get_env()
    env.reset()
    env.step(np.zeros(4, int))
    obs, _ = env.reset(options={"reset_mask": np.array([False, False, False, True])})
    np.testing.assert_array_equal(obs, [[0, 1], [0, 1], [0, 1], [1, 0]])


@pytest.mark.parametrize("algorithm", [DQN, IMPALA])
def test_nobody_steps_environments_while_actors_in_threads_do(algorithm):
    env = probes.DelayedReward()
    a = algorithm(env, runner="threads", **(FAST if algorithm is DQN else {"n_steps": 4}))
    with pytest.raises(
        ConfigurationError, match="actors are stepping these environments in threads"
    ):
        a.learn(40, lambda a: evaluate_policy(a, env, 1)[0], progress_bar=False)
    assert a.learn(40, progress_bar=False).num_timesteps == 40
    assert evaluate_policy(a, env, 1)[1] == 0  # nobody is stepping them now


def disturbances(a, env):
    """What a user may do to the environments of training."""
    yield "reset", lambda: a.get_env().reset()
    yield "step", lambda: a.get_env().step(np.zeros(a.n_envs, int))
    yield "evaluate", lambda: evaluate_policy(a, a.get_env(), 2)
    if not callable(env):
        yield "evaluate in the object", lambda: evaluate_policy(a, env, 2)
        yield "train another", lambda: DQN(env, **FAST).learn(4 * a.n_envs, progress_bar=False)


@pytest.mark.parametrize("kind", ["one", "several", "vector", "threads"])
@pytest.mark.parametrize("when", ["between", "in a callback"])
def test_new_episodes_begin_after_somebody_used_the_environments(kind, when, monkeypatch):
    env = {"one": probes.Counter(), "vector": counters(2)}.get(kind, probes.Counter)
    options = {
        "several": dict(n_envs=2),
        "threads": dict(n_envs=2, runner="threads", n_actors=2, max_lag=0),
    }.get(kind, {})
    a = DQN(env, **options, **FAST)
    taken, rollout = [], Actor.rollout
    monkeypatch.setattr(
        Actor,
        "rollout",
        lambda *args: taken.append((args[0].envs, rollout(*args))) or taken[-1][1],
    )

    def check(name):
        """Every step begins at the observation that the environment showed last."""
        shares = getattr(a.trainer.envs, "shares", [a.trainer.envs])
        own = [result.trajectory for envs, result in taken if envs in shares]
        assert len(own) >= 4
        for trajectory in own:
            obs, following = trajectory.obs_tm1[trajectory.mask], trajectory.obs_t[trajectory.mask]
            np.testing.assert_array_equal(following - obs, np.tile([0, 1], (len(obs), 1)), name)
            assert (trajectory.obs_tm1[trajectory.first_tm1][:, 1] == 0).all()

    for name, disturb in disturbances(a, env):
        taken.clear()
        a.learn(8 * a.n_envs, progress_bar=False)
        if when == "between":
            disturb()
            a.learn(8 * a.n_envs, progress_bar=False, reset_num_timesteps=False)
        elif kind == "threads":
            with pytest.raises(ConfigurationError, match="actors are stepping these environments"):
                a.learn(8 * a.n_envs, lambda agent, f=disturb: f(), progress_bar=False)
            continue
        else:
            once = callbacks.EveryNTimesteps(8 * a.n_envs, lambda agent, f=disturb: f() and None)
            a.learn(16 * a.n_envs, once, progress_bar=False)
        check(name)


def test_what_nobody_used_goes_on_where_it_was():
    a = DQN(probes.Counter(), **FAST).learn(4, progress_bar=False)
    a.get_env()
    evaluate_policy(a, probes.Counter(), 2)
    np.testing.assert_array_equal(
        a.trainer.runner.actor.position.obs, [[1, 1]]
    )  # the second episode, after 4 steps
    a.learn(4, progress_bar=False, reset_num_timesteps=False)
    np.testing.assert_array_equal(a.trainer.runner.actor.position.obs, [[2, 2]])


def test_compiled_training_does_not_notice():
    a = DQN(Catch(), n_envs=2, **FAST).learn(8, progress_bar=False)
    b = DQN(Catch(), n_envs=2, **FAST).learn(8, progress_bar=False)
    assert isinstance(a.get_env().unwrapped, FunctionalVectorEnv)
    evaluate_policy(a, a.get_env(), 2)
    for each in (a, b):
        each.learn(8, progress_bar=False, reset_num_timesteps=False)
    assert [x.tolist() for x in a.trainer.runner.rollout_state.obs] == [
        x.tolist() for x in b.trainer.runner.rollout_state.obs
    ]


def test_the_training_environment_of_a_callback():
    seen = []

    class Look(callbacks.BaseCallback):
        def _on_step(self):
            seen.append(
                (
                    self.training_env.num_envs,
                    self.training_env.get_attr("episode"),
                    len(self.training_env.envs),
                )
            )
            return True

    DQN(probes.Counter, n_envs=2, **FAST).learn(8, Look(), progress_bar=False)
    assert seen == [(2, (1, 1), 2)]


def test_an_agent_without_an_environment_has_none(tmp_path):
    assert DQN.load(cart_pole().save(tmp_path / "agent")).get_env() is None
    assert make_envs(cart_pole().get_env()).spec.num_envs == 1
