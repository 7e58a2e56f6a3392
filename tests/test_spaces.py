"""Agents support, use and store spaces of every kind."""

import contextlib
import json
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, ConfigurationError, evaluate_policy
from agentzoo.envs import make_envs
from agentzoo.envs import spaces as ours
from agentzoo.training.recipe import spec_from_json, spec_to_json
from agentzoo.types import EnvSpec, FrameStack
from tests import probes

OFF_POLICY = dict(
    buffer_size=100,
    learning_starts=4,
    batch_size=4,
    train_freq=4,
    gradient_steps=1,
    n_steps=1,
    net_arch=(8,),
)
PPO_SETTINGS, IMPALA_SETTINGS = (
    dict(n_steps=4, batch_size=4, net_arch=(8,)),
    dict(n_steps=4, net_arch=(8,)),
)


class MyBox(spaces.Box):
    """A user's class, with a name that means something else in other spaces."""

    n = start = 7


class MyDiscrete(spaces.Discrete):
    pass


class MyMultiDiscrete(spaces.MultiDiscrete):
    pass


class MyMultiBinary(spaces.MultiBinary):
    pass


class MyDict(spaces.Dict):
    pass


class MyTuple(spaces.Tuple):
    pass


class MyStack(FrameStack):
    pass


@st.composite
def boxes(draw):
    dtype = np.dtype(
        draw(st.sampled_from(["float32", "float64", "float16", "int64", "int8", "uint8", "bool"]))
    )
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype.kind == "b":
        low, high = np.zeros(shape, bool), np.ones(shape, bool)
    elif dtype.kind == "f":
        numbers = st.floats(-1000, 1000, width=16)
        low = draw(hnp.arrays(dtype, shape, elements=st.one_of(numbers, st.just(-np.inf))))
        width = draw(
            hnp.arrays(
                dtype, shape, elements=st.one_of(st.floats(0, 1000, width=16), st.just(np.inf))
            )
        )
        high = np.where(
            np.isfinite(width), np.where(np.isfinite(low), low, 0) + width, np.inf
        ).astype(dtype)
    else:
        low = draw(hnp.arrays(dtype, shape, elements=st.integers(0, 50)))
        high = low + draw(hnp.arrays(dtype, shape, elements=st.integers(0, 50)))
    cls = draw(st.sampled_from([spaces.Box, MyBox] + [FrameStack, MyStack] * (len(shape) > 1)))
    return cls(low, high, shape, dtype.type)


@st.composite
def choices(draw):
    dtype = draw(st.sampled_from([np.int64, np.int32, np.int8, np.uint8, np.uint64]))
    start = st.integers(0 if np.dtype(dtype).kind == "u" else -20, 20)
    if draw(st.booleans()):
        cls = draw(st.sampled_from([spaces.Discrete, MyDiscrete]))
        return cls(draw(st.integers(1, 50)), start=draw(start), dtype=dtype)
    shape = draw(hnp.array_shapes(max_dims=2, max_side=3))
    nvec = draw(hnp.arrays(np.int64, shape, elements=st.integers(1, 9)))
    cls = draw(st.sampled_from([spaces.MultiDiscrete, MyMultiDiscrete]))
    return cls(nvec, dtype=dtype, start=draw(hnp.arrays(np.int64, shape, elements=start)))


bits = st.builds(
    lambda cls, n: cls(n),
    st.sampled_from([spaces.MultiBinary, MyMultiBinary]),
    st.one_of(st.integers(1, 5), hnp.array_shapes(max_dims=2, max_side=3)),
)
leaves = st.one_of(boxes(), choices(), bits)


@st.composite
def dicts(draw, parts):
    keys = draw(st.sampled_from([st.text(max_size=3), st.integers(-5, 5)]))
    found = draw(st.dictionaries(keys, parts, min_size=1, max_size=3))
    return draw(st.sampled_from([spaces.Dict, MyDict]))(found)


any_space = st.recursive(
    leaves,
    lambda parts: st.one_of(
        dicts(parts),
        st.builds(
            lambda cls, found: cls(found),
            st.sampled_from([spaces.Tuple, MyTuple]),
            st.lists(parts, min_size=1, max_size=3),
        ),
    ),
    max_leaves=4,
)


def assert_plain(space):
    """Check that a space and its parts have Gymnasium's or our own classes."""
    assert type(space) in (
        spaces.Box,
        FrameStack,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
        spaces.Dict,
        spaces.Tuple,
    )
    for _, part in ours.parts(space) if isinstance(space, spaces.Dict | spaces.Tuple) else ():
        assert_plain(part)


@settings(deadline=None)
@given(any_space)
def test_spaces_survive_json(space):
    found = ours.from_json(json.loads(json.dumps(ours.to_json(space))))
    assert_plain(found)
    plain = ours.plain(space)
    assert_plain(plain)
    assert found == plain and ours.fits(found, plain) and ours.fits(plain, found)
    assert ours.to_json(found) == ours.to_json(plain) == ours.to_json(space)
    space.seed(0)
    found.seed(0)
    for element, other in [(space.sample(), found.sample()) for _ in range(3)]:
        jax.tree.map(np.testing.assert_array_equal, element, other)
        jax.tree.map(
            np.testing.assert_array_equal, ours.stack(space, [element]), ours.stack(found, [other])
        )
    assert ours.shapes(space, 2) == ours.shapes(found, 2)
    spec = EnvSpec(space, spaces.Discrete(2), 3)
    assert spec_from_json(spec_to_json(spec)) == EnvSpec(found, spaces.Discrete(2), 3)


def test_spaces_of_files_from_before_are_read():
    old = {
        "type": "Dict",
        "spaces": {"a": {"type": "Discrete", "dtype": "int64", "n": 3, "start": 1}},
    }
    assert ours.from_json(old) == spaces.Dict(a=spaces.Discrete(3, start=1))


def has_numbers(space):
    return any(leaf.size for leaf in jax.tree.leaves(ours.shapes(space)))


@settings(
    deadline=None, max_examples=8, phases=[Phase.generate]
)  # an agent is compiled for each of them
@given(
    any_space.filter(has_numbers),
    choices().filter(lambda space: isinstance(space, spaces.Discrete)),
)
def test_an_agent_goes_on_in_the_spaces_that_it_was_made_for(
    tmp_path_factory, observation_space, action_space
):
    class Env(probes.Spaced):
        length = 2

        def __init__(self):
            super().__init__(observation_space)
            self.action_space = action_space

        def check(self, action):
            assert action_space.contains(action) and action.dtype == action_space.dtype
            return int(action)

    agent = DQN(Env, **OFF_POLICY)
    path = agent.save(tmp_path_factory.mktemp("agent") / "agent")
    loaded = DQN.load(path, Env)
    loaded.set_env(Env)
    assert loaded.spec == agent.spec
    observation_space.seed(0)
    obs = observation_space.sample()
    assert agent.predict(obs, deterministic=True)[0] == loaded.predict(obs, deterministic=True)[0]
    assert action_space.contains(loaded.predict(obs)[0])


# Actions

ACTION_SPACES = {
    "Discrete": spaces.Discrete(3, start=-1, dtype=np.int8),
    "Discrete of bytes": MyDiscrete(2, start=200, dtype=np.uint8),
    "MultiDiscrete": spaces.MultiDiscrete(
        np.array([[2, 3], [4, 1]]), dtype=np.int16, start=np.array([[5, -6], [0, 7]])
    ),
    "MultiBinary": MyMultiBinary((2, 2)),
    "Box": MyBox(np.array([[-1.0, 0.1]]), np.array([[0.3, 5.7]]), (1, 2), np.float64),
    "Box of half precision": spaces.Box(np.float16(-0.1), np.float16(0.7), (3,), np.float16),
    "Box without axes": spaces.Box(-2.0, 1.5, (), np.float32),
}
AGENTS = [
    *((cls, OFF_POLICY, ("Discrete",)) for cls in (DQN, QRDQN)),
    *((cls, OFF_POLICY, ("Discrete", "Box")) for cls in (SAC, MPO)),
    (PPO, PPO_SETTINGS, ("Discrete", "Box", "Multi")),
    (IMPALA, IMPALA_SETTINGS, ("Discrete", "Box", "Multi")),
]


def acting_env(space, seen):
    class Env(probes.Probe):
        action_space, observation_space, length = space, MyBox(-1, 1, (1,), np.float32), 3

        def step(self, action):
            seen.append(action)
            return super().step(action)

        def check(self, action):
            assert isinstance(
                action, np.integer if isinstance(space, spaces.Discrete) else np.ndarray
            )
            assert space.contains(action) and action.dtype == space.dtype, action
            return action

    return Env


# Odd spaces differ in what stands between agent and environment, which is the same for all agents.
ACTING = [
    (*agent, name)
    for agent in AGENTS
    for name in ACTION_SPACES
    if agent[0] in (SAC, PPO) or " " not in name
]


@pytest.mark.parametrize(("cls", "arguments", "kinds", "name"), ACTING)
def test_actions_are_elements_of_the_action_space(cls, arguments, kinds, name):
    space, seen = ACTION_SPACES[name], []
    if not name.startswith(kinds):
        with pytest.raises(ConfigurationError, match=f"{cls.__name__} needs a .* action space"):
            cls(acting_env(space, seen), **arguments)
        return
    agent = cls(acting_env(space, seen), n_envs=2, **arguments).learn(24, progress_bar=False)
    steps = len(seen)
    assert steps == 24
    for deterministic in (False, True):
        action, _ = agent.predict(np.zeros(1), deterministic=deterministic)
        assert (
            space.contains(action)
            and action.dtype == space.dtype
            and np.shape(action) == space.shape
        )
        actions, _ = agent.predict(np.zeros((5, 1)), deterministic=deterministic)
        assert (
            actions.shape == (5, *space.shape)
            and actions.dtype == space.dtype
            and actions.flags.writeable
        )
        assert all(space.contains(ours.pick(space, actions, n)) for n in range(5))
        evaluate_policy(agent, acting_env(space, seen), 3, deterministic)
    assert len(seen) > steps


def test_vector_environments_get_elements_too():
    space, seen = ACTION_SPACES["Discrete"], []
    vector = gym.vector.SyncVectorEnv([acting_env(space, seen)] * 2)
    step = vector.step

    def check(actions):
        assert vector.action_space.contains(actions) and actions.dtype == space.dtype
        return step(actions)

    vector.step = check
    DQN(vector, **OFF_POLICY).learn(24, progress_bar=False)
    assert len(seen) >= 24


# What is refused, and what is not


def test_zero_sized_spaces():
    pair, choice = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    class Env(probes.Spaced):
        def __init__(self, observation_space=pair, action_space=choice):
            super().__init__(observation_space)
            self.action_space = action_space

        def check(self, action):
            return action

    nothing = spaces.Box(-1, 1, (0,))
    some = spaces.Dict(none=nothing, some=spaces.Box(-1, 1, (2,)))
    assert DQN(Env(some), **OFF_POLICY).learn(16, progress_bar=False).num_timesteps == 16
    for empty in (nothing, spaces.Tuple([nothing, spaces.Dict(a=nothing)]), spaces.Dict()):
        with pytest.raises(ConfigurationError, match="holds no numbers"):
            DQN(Env(empty), **OFF_POLICY)
    for cls, arguments in ((SAC, OFF_POLICY), (PPO, PPO_SETTINGS)):
        with pytest.raises(ConfigurationError, match="is empty, so there is nothing to choose"):
            cls(Env(action_space=nothing), **arguments)


def test_keys_of_a_dict_may_be_integers_but_not_mixed(tmp_path):
    space = spaces.Dict(
        {2: spaces.Discrete(3), np.int64(1): spaces.Dict({0: spaces.Box(0, 1, (1,))})}
    )
    agent = DQN(probes.Spaced(space), **OFF_POLICY).learn(16, progress_bar=False)
    loaded = DQN.load(agent.save(tmp_path / "agent"), probes.Spaced(space)).learn(
        16, progress_bar=False
    )
    assert list(loaded.spec.observation_space.spaces) == [1, 2]
    obs = space.sample()
    assert agent.predict(obs, deterministic=True)[0] in (0, 1)
    with pytest.raises(ConfigurationError, match="Use strings, or integers, for all of them"):
        make_envs(probes.Spaced(spaces.Dict({2: spaces.Discrete(3), "a": spaces.Discrete(3)})))
    with pytest.raises(ConfigurationError, match="Use strings, or integers, for all of them"):
        make_envs(probes.Spaced(spaces.Dict({(1, 2): spaces.Discrete(3)})))


def test_a_stack_of_frames_serves_where_a_box_did(tmp_path):
    """Other wrappers may hide the wrapper that stacks frames."""

    def stacked():
        return gym.wrappers.FrameStackObservation(probes.ObservationReward(), 2)

    def hidden():
        return gym.wrappers.TransformObservation(
            stacked(), lambda obs: obs, stacked().observation_space
        )

    path = DQN(hidden, **OFF_POLICY).learn(16, progress_bar=False).save(tmp_path / "plain")
    assert (
        DQN.load(path, stacked)
        .learn(16, progress_bar=False, reset_num_timesteps=False)
        .num_timesteps
        == 32
    )
    path = DQN(stacked, **OFF_POLICY).save(tmp_path / "stack")
    with pytest.raises(ConfigurationError, match="was made for observations FrameStack"):
        DQN.load(path, hidden)


# Numbers of NumPy


def test_numbers_of_numpy_are_numbers(tmp_path):
    agent = DQN(
        "CartPole-v1",
        n_envs=np.int64(2),
        seed=np.uint8(3),
        **{
            **OFF_POLICY,
            "net_arch": np.array([8, 4]),
            "batch_size": np.array(8),
            "gamma": np.float32(0.5),
            "double_q": np.bool_(False),
            "cnn": np.str_("impala"),
        },
    )
    config = agent.config
    assert (agent.n_envs, agent.seed, config.net_arch, config.batch_size, config.gamma) == (
        2,
        3,
        (8, 4),
        8,
        0.5,
    )
    kinds = [
        type(x)
        for x in (
            agent.n_envs,
            agent.seed,
            config.net_arch[0],
            config.batch_size,
            config.gamma,
            config.double_q,
        )
    ]
    assert kinds == [int, int, int, int, float, bool]
    agent.learn(np.array(16), log_interval=np.int32(8), progress_bar=False)
    assert (
        DQN.load(agent.save(tmp_path / "agent"), "CartPole-v1", n_envs=np.int16(2)).config == config
    )
    assert DQN("CartPole-v1", net_arch=[np.int64(8), 4.0]).config.net_arch == (8, 4)
    assert PPO("CartPole-v1", recurrent_span=np.float64(8)).config.recurrent_span == 8


def test_schedules_of_numpys_numbers_can_be_saved(tmp_path):
    from agentzoo import Linear

    agent = DQN(
        "CartPole-v1", **OFF_POLICY, learning_rate=Linear(np.float32(0.5), np.float32(0.25))
    )
    assert DQN.load(agent.save(tmp_path / "agent")).config.learning_rate == Linear(0.5, 0.25)


class CountingVectorEnv(gym.vector.SyncVectorEnv):
    """A vector environment whose number of environments is a NumPy integer."""

    def __init__(self, makers):
        super().__init__(makers)
        self.num_envs = np.int64(len(makers))


def test_a_vector_environment_may_count_in_numpys_numbers(tmp_path):
    vector = CountingVectorEnv([probes.ConstantReward] * 2)
    agent = DQN(vector, **OFF_POLICY).learn(16, progress_bar=False)
    assert agent.n_envs == 2 and DQN.load(agent.save(tmp_path / "agent"), vector).n_envs == 2


@pytest.mark.parametrize(
    "arguments",
    [
        dict(n_envs=1.5),
        dict(n_envs="2"),
        dict(n_envs=True),
        dict(seed=-1),
        dict(seed=0.5),
        dict(n_actors=None),
    ],
)
def test_what_is_no_number_is_refused(arguments):
    with pytest.raises(ConfigurationError, match=f"{next(iter(arguments))}=.*. Choose an integer"):
        DQN("CartPole-v1", **arguments)


# Random keys of predict


@contextlib.contextmanager
def jax_operations():
    """Record which functions of JAX that run operations are called in this context."""
    called = []

    def profile(frame, event, _):
        path, name = frame.f_code.co_filename, frame.f_code.co_qualname
        if event == "call" and "/jax/_src/" in path:
            part = path.split("/jax/_src/")[1]
            if "bind" in name or part.startswith(("numpy/", "lax/")):
                called.append((part, name))

    sys.setprofile(profile)
    try:
        yield called
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(("cls", "arguments", "kinds"), AGENTS)
def test_predict_runs_one_compiled_program(cls, arguments, kinds, tmp_path):
    """`predict` runs one program, with random keys that are counted, and files keep the count."""
    agent = cls("CartPole-v1", **arguments)
    obs = np.zeros((64, 4))
    *_, key = jax.random.split(jax.random.key(agent.seed), 3)
    for count in range(3):
        expected, _ = agent.functions.predict(
            agent.params,
            agent.functions.initial_memory(64),
            obs,
            jax.random.fold_in(key, count),
            False,
        )
        np.testing.assert_array_equal(agent.predict(obs)[0], expected)
    agent.predict(obs, deterministic=True)  # which draws nothing
    assert agent.session.predictions == 3
    loaded = cls.load(agent.save(tmp_path / "agent"))
    for _ in range(2):
        np.testing.assert_array_equal(agent.predict(obs)[0], loaded.predict(obs)[0])
    with jax_operations() as called:
        for deterministic in (False, True):
            agent.predict(obs, deterministic=deterministic)
    assert not called, called
    with jax_operations() as called:
        jax.random.fold_in(key, 3)
    assert called  # they are seen
