"""What a user does with an agent: learn, predict, save, load, log, call back."""

import copy
import signal
import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import DQN, ConfigurationError, EnvError, Linear, callbacks, evaluate_policy
from tests import probes
from tests.agents import FAST, assert_same, cart_pole

# learn


def test_learn_counts_environment_steps_and_goes_on():
    a = cart_pole(n_envs=2)
    assert a.learn(1e2, progress_bar=False) is a
    assert a.num_timesteps == 104  # whole cycles of 2 x 4 steps
    a.learn(8, progress_bar=False, reset_num_timesteps=False)
    assert a.num_timesteps == 112
    a.learn(8, progress_bar=False)
    assert a.num_timesteps == 8


def test_learning_in_two_parts_is_learning_in_one():
    whole = cart_pole(exploration_fraction=0.0).learn(200, progress_bar=False)
    parts = (
        cart_pole(exploration_fraction=0.0)
        .learn(100, progress_bar=False)
        .learn(100, progress_bar=False, reset_num_timesteps=False)
    )
    assert_same(whole, parts)


@pytest.mark.parametrize("total", [0, -5, float("nan"), float("inf"), 1e12, "1e5"])
def test_bad_budgets_are_refused(total):
    with pytest.raises(ConfigurationError, match="total_timesteps"):
        cart_pole().learn(total)


def test_a_refused_run_leaves_the_last_one_as_it_was():
    a = cart_pole().learn(40, progress_bar=False)
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
    with pytest.raises(EnvError, match=r"step raised OSError: .*simulator"):
        a.learn(1_000, progress_bar=False)
    assert a.num_timesteps == 100
    assert np.isfinite(a.values(np.zeros(1))).all()
    assert DQN.load(a.run_dir / "model").num_timesteps == 100
    a.learn(
        20, progress_bar=False, reset_num_timesteps=False
    )  # the environment is back, and new episodes begin
    assert a.num_timesteps == 120


def test_an_interrupt_waits_for_the_end_of_the_cycle():
    a = cart_pole()

    def press(_):
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # the tests may run where the signal is ignored
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
        assert (
            cart_pole()
            .learn(40, progress_bar=False, callback=lambda _: signal.raise_signal(signal.SIGINT))
            .num_timesteps
            == 40
        )
    finally:
        signal.signal(signal.SIGINT, previous)


# predict


def test_predict_batched_or_not_and_sb3s_way():
    a = cart_pole()
    action, state = a.predict(np.zeros(4), deterministic=True)
    assert np.shape(action) == () and state is None and a.spec.action_space.contains(action)
    actions, _ = a.predict(
        np.zeros((5, 4)), state=None, episode_start=np.ones(5, bool), deterministic=True
    )
    assert actions.shape == (5,) and (actions == action).all()
    explored = [int(a.predict(np.zeros(4))[0]) for _ in range(300)]
    assert (
        0 < sum(x != action for x in explored) < 40
    )  # epsilon is 0.05 and half of the random actions are the same


def test_predict_names_what_does_not_fit():
    with pytest.raises(ConfigurationError, match=r"shape \(3,\). Expected \(4,\)"):
        cart_pole().predict(np.zeros(3))


def test_actions_come_back_as_the_environment_takes_them():
    class Shifted(probes.ConstantReward):
        action_space = spaces.Discrete(2, start=5)

    a = DQN(Shifted, **FAST).learn(40, progress_bar=False)
    assert a.predict(np.zeros(1))[0] in (5, 6)
    assert evaluate_policy(a, Shifted, 3) == (1.0, 0.0)


# environments of an agent


def test_set_env():
    a = cart_pole()
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
    with pytest.raises(ConfigurationError, match=r"holds 4. Leave n_envs out"):
        DQN(four, n_envs=2)


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DQN("MlpPolicy", "CartPole-v1"), r"Write DQN\('CartPole-v1'\)"),
        (lambda: DQN("CartPole-v1", 1e-3), "has one argument without a name"),
        (lambda: DQN("Pendulum-v1"), "needs a Discrete action space"),
        (lambda: DQN("CartPole-v1", learnin_rate=1), "Did you mean 'learning_rate'"),
        (
            lambda: DQN("CartPole-v1", gamma=1.5),
            "gamma=1.5 is out of range. Choose a number from 0 to 1",
        ),
        (
            lambda: DQN("CartPole-v1", batch_size=0),
            "batch_size=0 is out of range. Choose an integer of at least 1",
        ),
        (
            lambda: DQN("CartPole-v1", learning_rate=-1.0),
            "learning_rate=-1.0 is out of range. Choose a number above 0",
        ),
        (lambda: DQN("CartPole-v1", learning_rate=Linear(1e-3, -1.0)), "Choose a start above 0"),
        (
            lambda: DQN("CartPole-v1", batch_size=3.5),
            "batch_size=3.5 has the wrong type. Choose an integer",
        ),
        (lambda: DQN("CartPole-v1", double_q=1), "Choose True or False"),
        (lambda: DQN("CartPole-v1", net_arch=(64, "a")), "Choose a tuple of integers"),
        (lambda: DQN("CartPole-v1", gradient_steps=0), "gradient_steps=0"),
        (lambda: DQN("CartPole-v1", activation="softplus"), "Choose 'relu'"),
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
    config = DQN(
        "CartPole-v1", buffer_size=1e4, batch_size=np.int64(8), net_arch=[32, 32], gamma=1
    ).config
    assert (config.buffer_size, config.batch_size, config.net_arch) == (10_000, 8, (32, 32))
    assert DQN("CartPole-v1", seed=None).seed != DQN("CartPole-v1", seed=None).seed


# the package


@pytest.mark.slow
def test_import_is_lazy_and_complete():
    code = (
        "import sys, agentzoo; assert 'jax' not in sys.modules; "
        "[getattr(agentzoo, n) for n in agentzoo.__all__]; agentzoo.core.q_learning"
    )
    # tensorflow-probability, which distrax brings, uses a part of JAX that is going away.
    warnings = ["-W", "error", "-W", "ignore:jax.core.pytype_aval_mappings:DeprecationWarning"]
    subprocess.run(
        [sys.executable, *warnings, "-c", code + "; assert 'tensorboardX' not in sys.modules"],
        check=True,
    )
    with pytest.raises(AttributeError, match="no attribute 'DDQN'"):
        agentzoo.DDQN  # noqa: B018


def test_every_public_name_has_a_docstring():
    for module in (agentzoo, agentzoo.core, callbacks):
        for name in getattr(
            module,
            "__all__",
            [
                n
                for n, v in vars(module).items()
                if isinstance(v, type) and v.__module__ == module.__name__
            ],
        ):
            assert getattr(module, name).__doc__, f"{module.__name__}.{name}"


def test_a_copy_keeps_what_was_learned():
    agent = DQN("CartPole-v1", **FAST).learn(40, progress_bar=False)
    twin = copy.copy(agent)
    before = jax.device_get(twin.params)
    agent.learn(40, progress_bar=False)
    jax.tree.map(np.testing.assert_array_equal, twin.params, before)


def test_the_folder_of_logs_may_change_between_runs(tmp_path):
    agent = DQN("CartPole-v1", **FAST).learn(20, progress_bar=False)
    assert agent.run_dir is None
    agent.log_dir = tmp_path
    agent.learn(20, progress_bar=False)
    assert agent.run_dir.parent == tmp_path and (agent.run_dir / "model.safetensors").exists()
