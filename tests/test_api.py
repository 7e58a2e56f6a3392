"""What a user does with an agent: learn, predict, save, load, log, call back."""

import csv
import json
import signal
import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest
import safetensors.numpy
from gymnasium import spaces

import agentzoo
from agentzoo import DQN, ConfigurationError, Linear, callbacks, checkpoint, evaluate_policy
from tests import probes

FAST = dict(
    learning_rate=1e-3, learning_starts=20, train_freq=4, gradient_steps=1, n_steps=1, net_arch=(16,), buffer_size=1_000, batch_size=8
)


def agent(**kwargs):
    return DQN("CartPole-v1", **{**FAST, **kwargs})


def leaves(agent):
    return jax.tree.leaves(
        jax.device_get(agent._run._replace(key=jax.random.key_data(agent._run.key), agent=agent._run.agent._replace(key=())))
    )


def assert_same_state(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# learn


def test_learn_counts_environment_steps_and_goes_on():
    a = agent(n_envs=2)
    assert a.learn(1e2, progress_bar=False) is a
    assert a.num_timesteps == 104  # whole cycles of 2 x 4 steps
    a.learn(8, progress_bar=False, reset_num_timesteps=False)
    assert a.num_timesteps == 112
    a.learn(8, progress_bar=False)
    assert a.num_timesteps == 8


def test_learning_in_two_parts_is_learning_in_one():
    whole = agent(exploration_fraction=0.0).learn(200, progress_bar=False)
    parts = agent(exploration_fraction=0.0).learn(100, progress_bar=False).learn(100, progress_bar=False, reset_num_timesteps=False)
    assert_same_state(whole, parts)


@pytest.mark.parametrize("total", [0, -5, float("nan"), float("inf"), 1e12, "1e5"])
def test_bad_budgets_are_refused(total):
    with pytest.raises(ConfigurationError, match="total_timesteps"):
        agent().learn(total)


def test_a_refused_run_leaves_the_last_one_as_it_was():
    a = agent().learn(40, progress_bar=False)
    for arguments in (dict(total_timesteps=8, callback=3), dict(total_timesteps=8, log_interval=0)):
        with pytest.raises(ConfigurationError):
            a.learn(**arguments)
    with pytest.raises(ConfigurationError, match="begin a new one"):
        a.learn(2**31 - 10, reset_num_timesteps=False)
    assert a.num_timesteps == 40


def test_what_was_learned_survives_an_environment_that_fails(tmp_path):
    class Failing(probes.CueReward):
        steps = 0

        def step(self, action):
            Failing.steps += 1
            if Failing.steps == 103:
                raise OSError("the simulator is gone")
            return super().step(action)

    a = DQN(Failing, log_dir=tmp_path, **FAST)
    with pytest.raises(OSError, match="simulator"):
        a.learn(1_000, progress_bar=False)
    assert a.num_timesteps == 100
    assert np.isfinite(a.values(np.zeros(1))).all()
    assert DQN.load(tmp_path / "DQN_1" / "model").num_timesteps == 100
    a.learn(20, progress_bar=False, reset_num_timesteps=False)  # the environment is back, and new episodes begin
    assert a.num_timesteps == 120


def test_an_interrupt_waits_for_the_end_of_the_cycle():
    a = agent()

    def press(_):
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where the signal is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            a.learn(1_000, progress_bar=False, callback=press)
        assert a.num_timesteps == 4
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    a.learn(40, progress_bar=False)


def test_an_interrupt_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert agent().learn(40, progress_bar=False, callback=lambda _: signal.raise_signal(signal.SIGINT)).num_timesteps == 40
    finally:
        signal.signal(signal.SIGINT, previous)


# predict


def test_predict_batched_or_not_and_sb3s_way():
    a = agent()
    action, state = a.predict(np.zeros(4), deterministic=True)
    assert np.shape(action) == () and state is None and a.spec.action_space.contains(action)
    actions, _ = a.predict(np.zeros((5, 4)), state=None, episode_start=np.ones(5, bool), deterministic=True)
    assert actions.shape == (5,) and (actions == action).all()
    explored = [int(a.predict(np.zeros(4))[0]) for _ in range(300)]
    assert 0 < sum(x != action for x in explored) < 40  # epsilon is 0.05 and half of the random actions are the same


def test_predict_names_what_does_not_fit():
    with pytest.raises(ConfigurationError, match=r"shape \(3,\); expected \(4,\)"):
        agent().predict(np.zeros(3))


def test_actions_come_back_as_the_environment_takes_them():
    class Shifted(probes.ConstantReward):
        action_space = spaces.Discrete(2, start=5)

    a = DQN(Shifted, **FAST).learn(40, progress_bar=False)
    assert a.predict(np.zeros(1))[0] in (5, 6)
    assert evaluate_policy(a, Shifted, 3) == (1.0, 0.0)


# evaluate


def test_evaluation_weighs_environments_evenly_and_ignores_dummy_steps():
    class Length(probes.Probe):
        observation_space = spaces.Box(0, 9, (1,), np.float32)

        def __init__(self, length=3):
            self.length = length

    a = DQN(Length, **FAST)
    vector = gym.vector.SyncVectorEnv([lambda: Length(1), lambda: Length(9)])
    rewards, lengths = evaluate_policy(a, vector, 4, return_episode_rewards=True)
    assert sorted(rewards) == sorted(lengths) == [1, 1, 9, 9]
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


# save and load


def test_saving_and_loading_keeps_everything(tmp_path):
    a = agent(prioritized_replay=True).learn(100, progress_bar=False)
    path = a.save(tmp_path / "sub" / "agent")
    assert path == tmp_path / "sub" / "agent.safetensors"
    for b in (DQN.load(path), agentzoo.load(tmp_path / "sub" / "agent")):
        assert type(b) is DQN and b.config == a.config and b.num_timesteps == 100 and b.env_id == "CartPole-v1"
        assert_same_state(a, b)
        np.testing.assert_array_equal(jax.random.key_data(a._run.agent.key), jax.random.key_data(b._run.agent.key))
        np.testing.assert_array_equal(a.values(np.ones(4)), b.values(np.ones(4)))
        for _ in range(20):
            assert a.predict(np.zeros(4))[0] == b.predict(np.zeros(4))[0]


def test_a_loaded_agent_learns_on_exactly(tmp_path):
    """In an environment that every `reset` finds in the same state, loading makes no difference to what is learned."""

    def make():
        return DQN(probes.Truncated, **{**FAST, "train_freq": 5, "exploration_fraction": 0.0})

    whole = make().learn(200, progress_bar=False)
    path = make().learn(100, progress_bar=False).save(tmp_path / "half")
    resumed = DQN.load(path, probes.Truncated).learn(100, progress_bar=False, reset_num_timesteps=False)
    assert_same_state(whole, resumed)


def test_the_file_holds_no_pickle(tmp_path):
    data = agent().save(tmp_path / "agent").read_bytes()
    assert safetensors.numpy.load(data)  # nothing but arrays
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["agentzoo"])["manifest"]["algorithm"] == "DQN"


def test_excluded_parts_are_empty_after_loading(tmp_path):
    a = agent().learn(100, progress_bar=False)
    small, large = a.save(tmp_path / "small", exclude=["replay"]), a.save(tmp_path / "large")
    assert small.stat().st_size < large.stat().st_size / 2
    b = DQN.load(small, "CartPole-v1")
    assert b._run.agent.replay.size.sum() == 0
    np.testing.assert_array_equal(a.values(np.ones(4)), b.values(np.ones(4)))
    b.learn(40, progress_bar=False)
    with pytest.raises(ConfigurationError, match="exclude='nothing'"):
        a.save(tmp_path / "x", exclude=["nothing"])


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = agent().save(tmp_path / "agent")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    (tmp_path / "short.safetensors").write_bytes(data[:-50])
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    for name, message in dict(flipped="damaged", short="damaged", junk="damaged", foreign="not one that agentzoo").items():
        with pytest.raises(ConfigurationError, match=message):
            DQN.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no saved agent"):
        DQN.load(tmp_path / "nowhere")


def test_loading_what_does_not_fit_names_it(tmp_path):
    path = agent().save(tmp_path / "agent")
    with pytest.raises(ConfigurationError, match="linear"):
        DQN.load(path, net_arch=(17,))
    with pytest.raises(ConfigurationError, match="was made for"):
        DQN.load(path, "Acrobot-v1")
    with pytest.raises(ConfigurationError, match="without an environment"):
        DQN.load(path).learn(10)
    path = agent(learning_rate=lambda remaining: 1e-3).save(tmp_path / "function")
    with pytest.raises(ConfigurationError, match="'learning_rate' was your function"):
        DQN.load(path)
    assert DQN.load(path, learning_rate=1e-4).config.learning_rate == 1e-4


def test_a_crash_while_saving_keeps_the_old_file(tmp_path, monkeypatch):
    path = agent().save(tmp_path / "agent")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        agent(seed=5).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
def test_every_dtype_survives(tmp_path, dtype):
    import jax.numpy as jnp

    tree = {
        "a": jnp.ones((2, 3), dtype),
        "empty": jnp.zeros((0, 2), dtype),
        "scalar": jnp.ones((), dtype),
        "n": 3,
        "key": jax.random.key(1),
    }
    tree["transposed"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path = checkpoint.save(tmp_path / "x", tree, {})
    loaded = checkpoint.load(path, tree)
    assert loaded["n"] == 3 and type(loaded["n"]) is int
    for name in ("a", "empty", "scalar", "transposed"):
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(tree[name]))
    assert loaded["a"].dtype == tree["a"].dtype
    assert (jax.random.key_data(loaded["key"]) == jax.random.key_data(tree["key"])).all()


def test_set_env():
    a = agent()
    a.set_env(gym.make("CartPole-v1"))
    a.learn(40, progress_bar=False)
    assert a.env_id == "CartPole-v1"
    with pytest.raises(ConfigurationError, match="was made for"):
        a.set_env("Acrobot-v1")


def test_set_env_of_a_function_that_makes_vector_environments():
    def four():
        return gym.make_vec("CartPole-v1", 4)

    a = DQN(four, **FAST)
    a.set_env(four)
    assert a.n_envs == 4 and a.learn(48, progress_bar=False).num_timesteps == 48
    with pytest.raises(ConfigurationError, match="holds 4; leave n_envs out"):
        DQN(four, n_envs=2)


# log


def test_tags_csv_and_config_of_a_run(tmp_path):
    a = agent(log_dir=tmp_path)
    evaluation = callbacks.EvalCallback("CartPole-v1", eval_freq=200, n_eval_episodes=2, verbose=0)
    a.learn(400, progress_bar=False, log_interval=100, callback=evaluation)
    with open(tmp_path / "DQN_1" / "progress.csv") as file:
        rows = list(csv.DictReader(file))
    tags = {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/exploration_rate", "eval/mean_reward", "eval/mean_ep_length", "time/fps",
        "train/loss", "train/learning_rate", "train/n_updates",
    }  # fmt: skip
    assert tags <= set(rows[0])
    assert [row["time/total_timesteps"] for row in rows] == ["100", "200", "200", "300", "400", "400", "400"]
    assert rows[2]["rollout/ep_rew_mean"] and float(rows[-1]["train/n_updates"]) == 95
    config = json.loads((tmp_path / "DQN_1" / "config.json").read_text())
    assert config["hyperparameters"]["batch_size"] == 8 and config["seed"] == 0 and config["versions"]["jax"] == jax.__version__
    events = b"".join(path.read_bytes() for path in (tmp_path / "DQN_1").glob("events*"))
    for tag in tags:
        assert tag.encode() in events
    a.learn(40, progress_bar=False, reset_num_timesteps=False)
    a.learn(40, progress_bar=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DQN_1", "DQN_2"]


def test_without_log_dir_nothing_is_written(tmp_path):
    agent().learn(40, progress_bar=False)
    assert list(tmp_path.iterdir()) == []


# call back


def test_order_of_calls():
    calls = []

    class Watch(callbacks.BaseCallback):
        def _init_callback(self):
            calls.append("init")

        def _on_training_start(self):
            calls.append("start")

        def _on_rollout_start(self):
            calls.append("rollout")

        def _on_rollout_end(self):
            calls.append("end of rollout")

        def _on_step(self):
            calls.append(self.num_timesteps)
            return self.n_calls < 2

        def _on_training_end(self):
            calls.append("end")

    agent().learn(100, [Watch()], progress_bar=False)
    assert calls == ["init", "start", "rollout", "end of rollout", 4, "rollout", "end of rollout", 8, "end"]


def test_plain_functions():
    seen = []
    agent().learn(100, lambda a: seen.append(a.num_timesteps) or a.num_timesteps < 12, progress_bar=False)
    assert seen == [4, 8, 12]
    seen.clear()
    agent().learn(8, lambda locals_, globals_: seen.append(locals_["self"].num_timesteps), progress_bar=False)
    assert seen == [4, 8]
    with pytest.raises(ConfigurationError, match="callback is int"):
        agent().learn(8, 3)


def test_every_n_timesteps_and_checkpoints(tmp_path):
    seen = []
    every = callbacks.EveryNTimesteps(50, lambda a: seen.append(a.num_timesteps))
    checkpoints = callbacks.CheckpointCallback(100, tmp_path, save_replay_buffer=True)
    agent().learn(200, [every, checkpoints, callbacks.LogEveryNTimesteps(100)], progress_bar=False)
    assert seen == [52, 100, 152, 200]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rl_model_100_steps.safetensors", "rl_model_200_steps.safetensors"]
    assert DQN.load(tmp_path / "rl_model_100_steps").num_timesteps == 100


def test_evaluation_keeps_the_best_and_stops(tmp_path):
    stop = callbacks.StopTrainingOnRewardThreshold(0.5)
    evaluation = callbacks.EvalCallback(
        probes.ActionReward, stop, eval_freq=20, log_path=tmp_path / "log", best_model_save_path=tmp_path / "best", verbose=0
    )
    a = DQN(probes.ActionReward, **{**FAST, "learning_rate": 1e-2}).learn(5_000, evaluation, progress_bar=False)
    assert a.num_timesteps < 5_000 and evaluation.best_mean_reward == 1
    assert evaluate_policy(agentzoo.load(tmp_path / "best" / "best_model"), probes.ActionReward, 3)[0] == 1
    history = np.load(tmp_path / "log" / "evaluations.npz")
    assert history["results"].shape == (len(history["timesteps"]), 5) == history["ep_lengths"].shape


def test_stopping_without_improvement_and_after_episodes():
    stop = callbacks.StopTrainingOnNoModelImprovement(2, min_evals=1)
    evaluation = callbacks.EvalCallback(probes.ConstantReward, callback_after_eval=stop, eval_freq=20, verbose=0)
    a = DQN(probes.ConstantReward, **FAST).learn(5_000, evaluation, progress_bar=False)
    assert a.num_timesteps == 80  # the first counts as the best, and three more bring nothing
    a = DQN(probes.DelayedReward, n_envs=2, **FAST).learn(5_000, callbacks.StopTrainingOnMaxEpisodes(6), progress_bar=False)
    assert a.num_timesteps == 24
    with pytest.raises(ConfigurationError, match="must be given to an EvalCallback"):
        agent().learn(8, callbacks.StopTrainingOnRewardThreshold(1), progress_bar=False)


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DQN("MlpPolicy", "CartPole-v1"), r"Write DQN\('CartPole-v1'\)"),
        (lambda: DQN("CartPole-v1", 1e-3), "only env goes without a name"),
        (lambda: DQN("Pendulum-v1"), "needs a Discrete action space"),
        (lambda: DQN("CartPole-v1", learnin_rate=1), "did you mean 'learning_rate'"),
        (lambda: DQN("CartPole-v1", gamma=1.5), "gamma=1.5 is out of range; expected at least 0 and at most 1"),
        (lambda: DQN("CartPole-v1", batch_size=0), "batch_size=0 is out of range; expected at least 1"),
        (lambda: DQN("CartPole-v1", learning_rate=-1.0), "learning_rate=-1.0 is out of range; expected above 0"),
        (lambda: DQN("CartPole-v1", learning_rate=Linear(1e-3, -1.0)), "expected a start above 0"),
        (lambda: DQN("CartPole-v1", batch_size=3.5), "batch_size=3.5 has the wrong type; expected an integer"),
        (lambda: DQN("CartPole-v1", double_q=1), "expected True or False"),
        (lambda: DQN("CartPole-v1", net_arch=(64, "a")), "expected a tuple of integers"),
        (lambda: DQN("CartPole-v1", gradient_steps=0), "gradient_steps=0"),
        (lambda: DQN("CartPole-v1", activation="softplus"), "choose one of relu"),
        (lambda: DQN("CartPole-v1", buffer_size=3, train_freq=4), "buffer_size=3"),
        (lambda: DQN("CartPole-v1", runner="cloud"), "runner='cloud' is unknown"),
        (lambda: DQN("CartPole-v1", preset="large"), "no preset 'large'"),
        (lambda: DQN("CartPole-v1", n_envs=0), "n_envs=0"),
        (lambda: agentzoo.load("nowhere"), "no saved agent"),
    ],
)
def test_bad_input_is_refused_before_training(make, message):
    with pytest.raises((ConfigurationError, FileNotFoundError), match=message):
        make()


def test_numbers_in_other_guises_are_taken():
    config = DQN("CartPole-v1", buffer_size=1e4, batch_size=np.int64(8), net_arch=[32, 32], gamma=1).config
    assert (config.buffer_size, config.batch_size, config.net_arch) == (10_000, 8, (32, 32))
    assert DQN("CartPole-v1", seed=None).seed != DQN("CartPole-v1", seed=None).seed


# the package


def test_import_is_lazy_and_complete():
    code = (
        "import sys, agentzoo; assert 'jax' not in sys.modules; [getattr(agentzoo, n) for n in agentzoo.__all__]; agentzoo.core.q_learning"
    )
    # tensorflow-probability, which distrax brings, uses a part of JAX that is going away.
    warnings = ["-W", "error", "-W", "ignore:jax.core.pytype_aval_mappings:DeprecationWarning"]
    subprocess.run([sys.executable, *warnings, "-c", code + "; assert 'tensorboardX' not in sys.modules"], check=True)
    with pytest.raises(AttributeError, match="no attribute 'DDQN'"):
        agentzoo.DDQN  # noqa: B018


def test_every_public_name_has_a_docstring():
    for module in (agentzoo, agentzoo.core, callbacks):
        for name in getattr(
            module, "__all__", [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        ):
            assert getattr(module, name).__doc__, f"{module.__name__}.{name}"
