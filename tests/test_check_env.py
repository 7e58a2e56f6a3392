"""`check_env` finds each fault of an environment, and nothing in environments without faults."""

import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import ConfigurationError, check_env
from agentzoo.envs import CartPole, Catch


class Sound(gym.Env):
    """An environment without faults, in episodes of 10 steps."""

    observation_space = spaces.Box(-20, 20, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.t, self.np_random.uniform(-1, 1)], np.float32)

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, self.t >= 10, False, {}


def faulty(**methods):
    """Return a class like `Sound` with some attributes or methods replaced."""
    return type("Faulty", (Sound,), methods)


def changed(**values):
    """Return a class whose `step` returns other values in some places."""
    names = ("obs", "reward", "terminated", "truncated", "info")

    def step(self, action):
        result = dict(zip(names, Sound.step(self, action), strict=True))
        return tuple({**result, **values}.values())

    return faulty(step=step)


def without_seed(self):
    self.t = 0
    return self.observe(), {}


def old_reset(self, *, seed=None, options=None):
    return Sound.reset(self, seed=seed)[0]


def old_step(self, action):
    obs, reward, terminated, _, info = Sound.step(self, action)
    return obs, reward, terminated, info


def raises(self, action):
    raise OSError("the simulator is gone")


def raises_in_reset(self, *, seed=None, options=None):
    raise OSError("the simulator is gone")


ERRORS = {
    "no action space": (faulty(action_space=None), "It has no action_space"),
    "no gym.Env": (lambda: object(), "It is of type object"),
    "text": (faulty(observation_space=spaces.Text(5)), "is not supported"),
    "action space": (faulty(action_space=spaces.Text(5)), "No algorithm supports the action"),
    "no seed": (faulty(reset=without_seed), "reset does not accept a seed"),
    "old reset": (faulty(reset=old_reset), "Reset returned ndarray. Expected two"),
    "old step": (faulty(step=old_step), "Step returned 4 values"),
    "step raises": (faulty(step=raises), r"step raised OSError: the simulator .*line \d+\)"),
    "reset raises": (faulty(reset=raises_in_reset), "reset raised OSError: the simulator is gone"),
    "shape": (faulty(observe=lambda self: np.zeros(3, np.float32)), r"has shape \(3,\)"),
    "nan": (changed(obs=np.full(2, np.nan, np.float32)), "holds nan"),
    "reward": (changed(reward=None), "The reward is None"),
    "reward nan": (changed(reward=np.nan), "The reward is nan"),
    "terminated": (changed(terminated=2), "Terminated is 2"),
    "info": (changed(info=[]), "info is of type list"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors(kind):
    env, text = ERRORS[kind]
    with pytest.raises(ConfigurationError, match=rf"^Agents cannot train in .*: \(1\) .*{text}"):
        check_env(env)
    report = check_env(env, raise_errors=False, warn=False)
    assert report.errors and "error   " in str(report)


class Buffered(Sound):
    """Returns the same array at each step."""

    def __init__(self):
        self.array = np.zeros(2, np.float32)

    def observe(self):
        self.array[:] = super().observe()
        return self.array


class Remembering(Sound):
    """Has a state that `reset` does not set."""

    episode = 0

    def reset(self, **arguments):
        self.episode += 1
        return super().reset(**arguments)

    def observe(self):
        return super().observe() + np.float32(self.episode % 8 / 16)


class Endless(Sound):
    def step(self, action):
        obs, *_ = super().step(action)
        self.t = 0
        return obs, 1.0, False, False, {}


def unseeded(self):
    return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


BIG = spaces.Box(0, 1, (32, 32, 3), np.float32)
WARNINGS = {
    "dtype": (faulty(observe=lambda self: np.zeros(2)), "is float64, but the space promises"),
    "list": (faulty(observe=lambda self: [0.0, 0.0]), "is of type list"),
    "bounds": (faulty(observe=lambda self: np.full(2, 50, np.float32)), "outside of the bounds"),
    "image": (
        faulty(observation_space=BIG, observe=lambda self: np.zeros(BIG.shape, np.float32)),
        "look like images",
    ),
    "infinite": (faulty(action_space=spaces.Box(-np.inf, np.inf, (1,))), "has no bounds"),
    "one action": (faulty(action_space=spaces.Discrete(1)), "only one action"),
    "reward array": (changed(reward=np.ones(1)), "The reward is an array"),
    "flag": (changed(truncated=0), "truncated is of type int"),
    "endless": (Endless, "No episode ended within"),
    "unseeded": (faulty(observe=unseeded), "Two new environments with the same seed"),
    "state": (Remembering, "An episode in a used environment differs"),
    "state of an object": (Remembering(), "Two episodes with the same seed"),
    "wrapper": (lambda: gym.wrappers.NormalizeObservation(Sound()), "NormalizeObservation keeps"),
}


@pytest.mark.parametrize("kind", WARNINGS)
def test_warnings(kind):
    env, text = WARNINGS[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = check_env(env, n_steps=100)
    found = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    assert len(report.warnings) == 1, report
    assert text in str(report.warnings[0])
    assert f"{report.name}: {report.warnings[0]}" in found
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, warn=False, n_steps=100)


def test_arrays_that_are_used_again():
    assert any("the same array" in info.text for info in check_env(Buffered).infos)
    env = SyncVectorEnv([Buffered], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigurationError, match="does not copy it"):
        check_env(env)


def test_a_step_after_the_end():
    # `Sound` ends at each step from the tenth on.
    assert not any("after the end" in info.text for info in check_env(Sound).infos)

    class GoesOn(Sound):
        def step(self, action):
            obs, reward, *_ = super().step(action)
            return obs, reward, self.t == 10, False, {}

    assert any("after the end" in info.text for info in check_env(GoesOn).infos)

    class Warns(GoesOn):
        def step(self, action):
            if self.t >= 10:
                warnings.warn("step() after the end", stacklevel=1)
            return super().step(action)

    # A warning is an error in these tests, with which the step would not work.
    assert any("after the end" in info.text for info in check_env(Warns).infos)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_environments(mode):
    report = check_env(SyncVectorEnv([Sound] * 2, autoreset_mode=mode))
    assert not report.errors and not report.warnings
    broken = SyncVectorEnv([changed(reward=np.nan)] * 2, autoreset_mode=mode)
    with pytest.raises(ConfigurationError, match=r"[Tt]he reward"):
        check_env(broken)
    with pytest.raises(ConfigurationError, match="step raised OSError"):
        check_env(lambda: SyncVectorEnv([faulty(step=raises)] * 2, autoreset_mode=mode))


def test_a_vector_environment_that_does_not_say_when_it_resets():
    class Silent(gym.vector.VectorWrapper):
        metadata = {}  # noqa: RUF012

    with pytest.raises(ConfigurationError, match=r"autoreset_mode.* is None"):
        check_env(Silent(SyncVectorEnv([Sound])))


def test_a_vector_environment_without_final_observations():
    class Losing(gym.vector.VectorWrapper):
        def step(self, actions):
            *result, info = self.env.step(actions)
            return (*result, {name: x for name, x in info.items() if "final" not in name})

    env = Losing(SyncVectorEnv([Sound], autoreset_mode=AutoresetMode.SAME_STEP))
    with pytest.raises(ConfigurationError, match="gives no info"):
        check_env(env)


def waits(self, action):
    time.sleep(0.002)
    return Sound.step(self, action)


def computes(self, action):
    end = time.thread_time() + 0.003
    while time.thread_time() < end:
        pass
    return Sound.step(self, action)


@pytest.mark.parametrize(
    ("env", "runner"),
    [
        (Sound, "host"),
        (faulty(step=waits), "threads"),
        (faulty(step=computes), "ray"),
        ("agentzoo/CartPole-v0", "device"),
        (Catch(), "device"),
        (CartPole, "device"),
    ],
    ids=["fast", "waits", "computes", "id", "functional", "class"],
)
def test_the_runner_that_fits(env, runner):
    report = check_env(env, n_steps=30, warn=False)
    assert report.runner == runner
    assert not report.errors


IDS = ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "LunarLander-v3"]


@pytest.mark.parametrize("env", [Sound, Sound(), *IDS], ids=str)
def test_nothing_is_found_where_nothing_is_wrong(env):
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    report = check_env(env, warn=False)
    assert not report.errors
    # LunarLander's observations may leave the bounds of its space.
    assert not report.warnings or env == "LunarLander-v3", report
    assert any("resume exactly" in info.text for info in report.infos)
    assert "Algorithms for" in str(report)
    if not isinstance(env, str):
        assert report.name == "Sound"


def test_masks_and_nested_observations():
    class Masked(Sound):
        observation_space = spaces.Dict(
            position=Sound.observation_space, action_mask=spaces.MultiBinary(2)
        )

        def observe(self):
            self.legal = np.array([1, 0] if self.t % 2 else [0, 1], np.int8)
            return {"position": super().observe(), "action_mask": self.legal}

        def step(self, action):
            assert self.legal[action]
            return super().step(action)

    assert not check_env(Masked).warnings


def test_it_is_public():
    assert "check_env" in agentzoo.__all__
    with pytest.raises(ConfigurationError, match="env is a int"):
        check_env(5)
    with pytest.raises(ConfigurationError, match="There is no environment"):
        check_env("CartPol-v1")
