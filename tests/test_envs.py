import functools
import itertools
import sys
import warnings

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import ConfigurationError, make_env
from agentzoo.envs import Catch, identify, make_envs
from agentzoo.envs import spaces as zoo_spaces
from tests.probes import ConstantReward, Counter, Spaced, take_actions

ALL_SPACES = [
    spaces.Box(-1, 1, (3,), np.float64),
    spaces.Box(0, 255, (5, 6, 3), np.uint8),
    spaces.Box(
        np.array([-np.inf, 0.0], np.float32), np.array([1.0, np.inf], np.float32), dtype=np.float32
    ),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary((2, 2)),
    spaces.Dict(
        a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,)), c=spaces.Dict(d=spaces.MultiBinary(3))
    ),
    spaces.Tuple((spaces.Discrete(2), spaces.Dict(x=spaces.Box(0, 1, (2,))))),
]


def rollout(envs, steps):
    """Return the steps that happened, as one list of tuples for each environment."""
    num_envs = envs.spec.num_envs
    out = take_actions(envs, np.zeros((steps, num_envs), int))
    return [
        [
            (
                *out.obs_tm1[t, n],
                out.r_t[t, n],
                out.discount_t[t, n],
                *out.obs_t[t, n],
                out.last_t[t, n],
                out.first_tm1[t, n],
            )
            for t in range(steps)
            if out.mask[t, n]
        ]
        for n in range(num_envs)
    ]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_all_autoreset_modes_give_the_same_steps(mode):
    expected = []
    for episode in range(4):
        for t in range(3):
            over = t == 2
            expected.append(
                (episode, t, t + 1, not (over and episode % 2 == 0), episode, t + 1, over, t == 0)
            )
    ours = rollout(make_envs(Counter, 2), 12)
    theirs = rollout(make_envs(SyncVectorEnv([Counter] * 2, autoreset_mode=mode)), 16)
    for n in range(2):
        assert ours[n] == expected
        assert theirs[n][:12] == expected


def test_an_environments_own_vector_class():
    vector = gym.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    rows = rollout(make_envs(vector), 60)
    for steps in rows:
        for before, after in itertools.pairwise(steps):
            if before[-2]:  # the episode ended: the next row begins another
                assert after[-1]
            else:  # consecutive rows are consecutive steps
                assert before[6:10] == after[:4] and not after[-1]


@pytest.mark.parametrize("space", ALL_SPACES, ids=str)
def test_spaces_survive_json_and_all_modes(space):
    assert zoo_spaces.from_json(zoo_spaces.to_json(space)) == space
    for envs in [
        make_envs(lambda: Spaced(space), 2),
        *(
            make_envs(SyncVectorEnv([lambda: Spaced(space)] * 2, autoreset_mode=m))
            for m in AutoresetMode
        ),
    ]:
        space.seed(0)
        obs = envs.reset(0)
        for _ in range(6):
            step = envs.step(np.zeros(2, int))
            leaves = (jax.tree.leaves(x) for x in (step.obs, step.successor, obs))
            for stored, successor, seen in zip(*leaves, strict=True):
                assert stored.shape == successor.shape == seen.shape
                assert stored.dtype == successor.dtype == seen.dtype
                assert stored.dtype.itemsize <= 4


def test_discrete_actions_that_do_not_start_at_zero():
    class Shifted(ConstantReward):
        action_space = spaces.Discrete(2, start=5)

        def reward(self, action):
            return float(action)

    for envs in (make_envs(Shifted), make_envs(SyncVectorEnv([Shifted]))):
        envs.reset(0)
        elements = zoo_spaces.to_elements(envs.spec.action_space, np.array([1]))
        assert envs.step(elements).reward == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_envs("CartPole-v11"), "Did you mean 'CartPole-v1'"),
        (lambda: make_envs("NoSuchThing-v0"), "There is no environment"),
        (lambda: make_envs(3), "Expected a Gymnasium id"),
        (lambda: make_envs(ConstantReward(), 2), "n_envs=2 needs 2 environments"),
        (lambda: make_envs(lambda: None), "factory returned a NoneType"),
        (lambda: make_envs(SyncVectorEnv([ConstantReward] * 2), 3), "holds 2"),
        (lambda: make_envs(lambda: Spaced(spaces.Text(3))), "not supported"),
        (
            lambda: make_envs(itertools.repeat(ConstantReward()).__next__, 2),
            "same environment twice",
        ),
    ],
)
def test_what_is_no_environment_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_missing_package_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise gym.error.DependencyNotInstalled("Box2D is not installed, run `pip install ...`")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentzoo\[box2d\]'"):
        make_env("LunarLander-v3")


def test_an_environment_whose_package_registers_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "shimmy", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentzoo\[dm-control\]'"):
        make_env("dm_control/cartpole-swingup-v0")


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("LunarLander-v2", {}, "Please use `LunarLander-v3` instead"),
        ("HalfCheetah-v3", {}, "The newest version is 'HalfCheetah-v5'"),
        ("CartPole-v9", {}, "Did you mean 'CartPole-v1'"),
        ("nowhere/CartPole-v1", {}, "There is no environment 'nowhere/CartPole-v1'"),
        ("a cart", {}, "Malformed environment ID: a cart"),
        ("", {}, "Malformed environment ID"),
        ("GymV21Environment-v0", {}, "shimmy"),
        ("json:CartPol-v1", {}, "Did you mean 'json:CartPole-v1'"),
        ("no_such_module:CartPole-v1", {}, "There is no module 'no_such_module'"),
        (".:CartPole-v1", {}, "names no module before the colon"),
        ("a:b:CartPole-v1", {}, "There is no module 'a:b'"),
        ("FrozenLake-v1", {"slippery": 1}, "with slippery=1: .* unexpected keyword argument"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "with map_name='9x9': KeyError: '9x9'"),
        ("Needing-v0", {}, "missing 1 required positional argument: 'size'"),
        ("Importing-v0", {}, "cannot import name 'nothing' from 'json'"),
        ("Needing-v0", {"size": 2}, "with size=2: TypeError|with size=2: .*not callable"),
        ("Mode-v0", {}, "Mode-v0' cannot be made: no such mode"),
    ],
)
@pytest.mark.parametrize("make", [make_env, make_envs])
def test_what_cannot_be_made_is_refused_with_a_sentence(make, env_id, kwargs, message, registered):
    if make is make_envs and kwargs:
        make, kwargs = (
            lambda env_id, **kw: make_envs(functools.partial(make_env, env_id, **kw)),
            kwargs,
        )
    with warnings.catch_warnings(), pytest.raises(ConfigurationError, match=message) as caught:
        warnings.filterwarnings("ignore", ".*HalfCheetah-v3 is out of date")
        make(env_id, **kwargs)
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))


@pytest.fixture
def registered(monkeypatch):
    """Environments that cannot be made."""

    class Needing(ConstantReward):
        def __init__(self, size):
            size()

    class Broken(ConstantReward):
        def __init__(self):
            len(0)  # type: ignore[arg-type]

    def importing():
        from json import nothing  # noqa: F401

    def wrong_mode():
        raise gym.error.UnsupportedMode("no such mode")

    makers = {"Needing": Needing, "Broken": Broken, "Importing": importing, "Mode": wrong_mode}
    for name, maker in makers.items():
        spec = gym.envs.registration.EnvSpec(f"{name}-v0", maker)
        monkeypatch.setitem(gym.registry, spec.id, spec)


def test_an_error_of_the_environments_own_is_not_hidden(registered):
    with pytest.raises(TypeError, match="has no len"):
        make_env("Broken-v0")


def test_an_id_with_a_module_is_preprocessed_as_without():
    pytest.importorskip("ale_py")
    for envs in (make_envs("ale_py:ALE/Pong-v5"), make_envs("ale_py:ALE/Pong-v5", 2)):
        assert envs.spec.observation_space == make_envs("ALE/Pong-v5").spec.observation_space
        envs.close()
    assert make_env("ale_py:ALE/Pong-v5").observation_space.shape == (4, 84, 84)


def test_the_record_of_environments():
    def recorded(env, n_envs=1):
        return identify(env, make_envs(env, n_envs))

    lake = "FrozenLake-v1"
    assert recorded(lake) == (lake, {})
    assert recorded(lambda: gym.make(lake)) == (lake, {})
    assert recorded(lambda: gym.make(lake, is_slippery=False), 2) == (lake, {"is_slippery": False})
    assert recorded(lambda: gym.make(lake, map_name="4x4", render_mode="ansi")) == (lake, {})
    assert recorded(lambda: gym.make(lake, max_episode_steps=7)) == (lake, {"max_episode_steps": 7})
    assert recorded(lambda: gym.make(lake, max_episode_steps=-1))[1] == {"max_episode_steps": -1}
    assert recorded(gym.make_vec(lake, 2, is_slippery=False)) == (lake, {"is_slippery": False})
    assert (
        recorded(gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"))[1] == {}
    )
    partial = functools.partial(make_env, f"json:{lake}", desc=("SF", "FG"), render_mode="ansi")
    env_id, kwargs = recorded(partial)
    assert (env_id, kwargs) == (f"json:{lake}", {"desc": ["SF", "FG"]})
    assert recorded(lambda: make_env(env_id, **kwargs)) == (lake, kwargs)  # so it is made again
    assert recorded(lambda: gym.make(lake, desc=np.array([["S", "F"], ["F", "G"]]))) == (lake, None)
    assert recorded(ConstantReward) == (None, {})
    assert recorded(Catch()) == (None, {})
    assert recorded("agentzoo/Catch-v0", 2) == ("agentzoo/Catch-v0", {})


def test_the_record_of_atari_games():
    pytest.importorskip("ale_py")
    factory = functools.partial(make_env, "ALE/Pong-v5", mode=1)
    for env in (factory, lambda: factory()):
        assert identify(env, make_envs(env)) == ("ALE/Pong-v5", {"mode": 1})


def test_an_observation_of_another_shape_than_promised():
    class Wrong(ConstantReward):
        def observe(self):
            return np.zeros(2, np.float32)

    with pytest.raises(ConfigurationError, match=r"shape \(2,\), but"):
        make_envs(Wrong).reset()


def test_a_vector_environment_without_autoreset_mode():
    vector = SyncVectorEnv([ConstantReward])
    vector.metadata = {}
    with pytest.raises(ConfigurationError, match="autoreset_mode"):
        make_envs(vector)
