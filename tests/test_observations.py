"""How networks take the parts of an observation, and what `print(agent)` shows of it."""

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import (
    DQN,
    IMPALA,
    MPO,
    PPO,
    QRDQN,
    SAC,
    ConfigurationError,
    evaluate_policy,
    networks,
)
from agentzoo import config as configs
from agentzoo.envs.functional import Step
from agentzoo.networks.observations import Image
from agentzoo.runners.programs import InPlace, Interruptible
from agentzoo.types import FrameStack
from tests import probes

BYTE = np.uint8
OFF_POLICY = dict(
    learning_starts=4, train_freq=4, gradient_steps=1, batch_size=8, buffer_size=100, net_arch=(8,)
)
AGENTS = {
    DQN: OFF_POLICY,
    QRDQN: OFF_POLICY,
    SAC: OFF_POLICY,
    MPO: OFF_POLICY,
    PPO: dict(n_steps=8, batch_size=8, n_epochs=1, net_arch=(8,)),
    IMPALA: dict(n_steps=8, net_arch=(8,), cnn="nature"),
}
EVERY_AGENT = pytest.mark.parametrize("algorithm", AGENTS)


def box(low, high, *shape, dtype=BYTE):
    return spaces.Box(low, high, shape, dtype)


def make(algorithm, space, **options):
    return algorithm(lambda: probes.Spaced(space), **{**AGENTS[algorithm], **options})


def text(space, *options):
    return networks.describe(networks.make_view(space, *options))[""]


# decisions


@pytest.mark.parametrize("space, sizes", [
    (box(0, 255, 210, 160, 3), "210 x 160 pixels with 3 channels"),
    (box(0, 255, 3, 210, 160), "210 x 160 pixels with 3 channels"),
    (box(0, 255, 84, 84, 1), "84 x 84 pixels with 1 channel"),
    (box(0, 255, 1, 84, 84), "84 x 84 pixels with 1 channel"),
    (box(0, 255, 4, 84, 84), "84 x 84 pixels with 4 channels"),
    (box(0, 255, 84, 84), "84 x 84 pixels with 1 channel"),
    (box(0, 255, 84, 84, 12), "84 x 84 pixels with 12 channels"),
    (box(0, 255, 12, 84, 84), "84 x 84 pixels with 12 channels"),
    (box(0, 255, 210, 160, 12), "210 x 160 pixels with 12 channels"),
    (box(0, 255, 12, 210, 160), "210 x 160 pixels with 12 channels"),
    (box(0, 255, 10, 10, 4), "10 x 10 pixels with 4 channels"),
    (box(0, 255, 10, 10, 10), "10 x 10 pixels with 10 channels"),
    (box(0, 255, 12, 12, 20), "12 x 12 pixels with 20 channels"),
    (box(0, 255, 4, 84, 84, 3), "84 x 84 pixels with 12 channels"),
    (FrameStack(0, 255, (4, 84, 84), BYTE), "84 x 84 pixels with 4 channels"),
    (FrameStack(0, 255, (2, 84, 84, 3), BYTE), "84 x 84 pixels with 6 channels"),
    (FrameStack(0, 255, (2, 3, 84, 84), BYTE), "84 x 84 pixels with 6 channels"),
    (FrameStack(0, 255, (12, 84, 84), BYTE), "84 x 84 pixels with 12 channels"),
], ids=str)  # fmt: skip
def test_what_is_an_image(space, sizes):
    assert text(space) == f"an image of {sizes}, divided by 255"


@pytest.mark.parametrize("space, expected", [
    (box(0, 1, 8, 8, 12), "768 integers, scaled from [0, 1]"),
    (box(0, 1, 84, 84, 3), "21168 integers, scaled from [0, 1]"),
    (box(0, 255, 8, 8, 12), "768 integers, each as its 8 bits"),
    (box(0, 255, 7, 7, 20), "980 integers, each as its 8 bits"),
    (box(0, 255, 7, 7, 3), "147 integers, each as its 8 bits"),
    (box(0, 255, 128), "128 integers, each as its 8 bits"),
    (box(0, 255, 8, 84), "672 integers, each as its 8 bits"),
    (box(0, 255, 2, 10, 9, 3), "540 integers, each as its 8 bits"),
    (FrameStack(0, 255, (4, 128), BYTE), "512 integers, each as its 8 bits"),
    (box(-128, 127, 84, 84, 3, dtype=np.int8), "21168 integers, each as its 8 bits"),
    (box(0, 254, 2), "2 integers, scaled from [0, 254]"),
    (box(0, 255, 84, 84, 3, dtype=np.int32), "21168 integers, scaled from [0, 255]"),
    (
        spaces.Box(np.array([0, 0]), np.array([9, 255]), dtype=BYTE),
        "2 integers, scaled from [0, 9] or each as its 8 bits",
    ),
    (box(-(2**31), 2**31 - 1, 2, dtype=np.int32), "2 integers, unscaled"),
    (box(0, 2**63 - 1, 2, dtype=np.int64), "2 integers, unscaled"),
    (box(0, 1, 84, 84, 3, dtype=np.float32), "21168 numbers, unscaled"),
    (box(0, 255, 84, 84, 3, dtype=np.float32), "21168 numbers, unscaled"),
    (box(0, 1, 10, 10, 4, dtype=bool), "400 booleans, unscaled"),
    (spaces.MultiBinary([10, 10, 4]), "400 bits"),
    (spaces.Discrete(4), "one of 4 categories, one-hot"),
    (spaces.MultiDiscrete([2, 3]), "2 categories, one-hot (5 numbers)"),
], ids=str)  # fmt: skip
def test_what_is_no_image(space, expected):
    assert text(space) == expected


def test_users_decide():
    codes, camera = box(0, 255, 7, 7, 3), box(0, 255, 84, 84, 3)
    assert text(codes, True) == "an image of 7 x 7 pixels with 3 channels, divided by 255"
    assert text(box(0, 1, 8, 8, 12), True) == "an image of 8 x 8 pixels with 12 channels, as it is"
    assert (
        text(box(0, 255, 7, 7, 20), True)
        == "an image of 7 x 7 pixels with 20 channels, divided by 255"
    )
    assert (
        text(box(0, 9, 12, 12), True) == "an image of 12 x 12 pixels with 1 channel, divided by 9"
    )
    assert text(box(0, 1, 84, 84, 3, dtype=np.float32), True).endswith("3 channels, as it is")
    assert text(box(-np.inf, np.inf, 84, 84, 3, dtype=np.float32), True).endswith(
        "3 channels, as it is"
    )
    assert text(camera, False) == "21168 integers, each as its 8 bits"
    assert text(camera, False, False) == text(camera, (), False) == "21168 integers, unscaled"
    assert (
        text(camera, "auto", False) == "an image of 84 x 84 pixels with 3 channels, divided by 255"
    )
    assert (
        text(box(0, 1, 8, 8, 12), True, False)
        == "an image of 8 x 8 pixels with 12 channels, divided by 255"
    )
    parts = spaces.Dict(
        camera=camera,
        robot=spaces.Dict(codes=codes),
        tuple=spaces.Tuple([camera]),
        speed=box(-1, 1, 3, 3, dtype=float),
    )

    def images(choice):
        return {
            name
            for name, what in networks.describe(networks.make_view(parts, choice)).items()
            if "image" in what
        }

    assert images("auto") == {"camera", "tuple/0"}
    assert images("camera") == {"camera"}
    assert images(("robot/codes", "tuple/0")) == {"robot/codes", "tuple/0"}
    assert (
        images(True) == {"camera", "robot/codes", "tuple/0", "speed"}
        and images(False) == images(()) == set()
    )


@EVERY_AGENT
@pytest.mark.parametrize(
    "images, space, message",
    [
        (
            "eye",
            spaces.Dict(camera=box(0, 255, 9, 9, 3)),
            "names 'eye', which is no Box of the observation. Choose from 'camera'.",
        ),
        (
            ("camera", "speed"),
            spaces.Dict(camera=box(0, 255, 9, 9, 3), speed=box(0, 9, 3)),
            "cannot be an image",
        ),
        ("camera", box(0, 255, 9, 9, 3), "Choose from True and False"),
        (True, box(0, 255, 128), "images=True, but no part of Box"),
        (
            3,
            box(0, 255, 9, 9, 3),
            "images=3 has the wrong type. Choose True, False, a string or a tuple of strings",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_an_image_is_refused_before_training(algorithm, images, space, message):
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        make(algorithm, space, images=images)


# values


@pytest.mark.parametrize("order", ["HW", "HWC", "CHW", "SHW", "SHWC", "SCHW"])
def test_images_are_laid_out_alike(order):
    sizes = dict(H=13, W=11, S=5, C=3)
    kept = [axis for axis in sizes if axis in order]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *(sizes[axis] for axis in kept)), BYTE)
    given = pixels.transpose(0, *(1 + kept.index(axis) for axis in order))
    view = networks.make_view(
        (FrameStack if "S" in order else spaces.Box)(0, 255, given.shape[1:], BYTE)
    )
    assert isinstance(view, Image) and view.axes == order
    np.testing.assert_allclose(
        view(jnp.array(given)), pixels.reshape(2, 13, 11, -1) / 255, rtol=1e-6
    )


@pytest.mark.parametrize("space, x, expected", [
    (box(0, 1, 2), [0, 1], [0, 1]),
    (box(0, 9, 2), [3, 9], [1 / 3, 1]),
    (box(-5, 5, 2, dtype=np.int8), [-5, 1], [-1, 0.2]),
    (box(-1, 4, 2, dtype=np.int32), [-1, 2], [-0.25, 0.5]),
    (box(100, 110, 2, dtype=np.int64), [100, 105], [0, 0.5]),
    (box(7, 7, 1), [7], [0]),
    (box(0, 255, 2), [5, 255], [0, 0, 0, 0, 0, 1, 0, 1] + [1] * 8),
    (box(-128, 127, 1, dtype=np.int8), [-1], [1] * 8),
    (
        spaces.Box(np.array([0, 0]), np.array([255, 4]), dtype=BYTE),
        [3, 1],
        [0.25, 0, 0, 0, 0, 0, 0, 1, 1],
    ),
    (box(-(2**31), 2**31 - 1, 2, dtype=np.int32), [-7, 9], [-7, 9]),
    (box(0, 65_535, 1, dtype=np.uint16), [9], [9]),
    (box(-100, 100, 2, dtype=np.float32), [-3.5, 100], [-3.5, 100]),
    (box(0, 1, 2, dtype=bool), [True, False], [1, 0]),
    (spaces.MultiBinary(2), [1, 0], [1, 0]),
    (spaces.Discrete(3, start=5), 6, [0, 1, 0]),
    (spaces.MultiDiscrete([2, 3], start=[1, 0]), [2, 0], [0, 1, 1, 0, 0]),
], ids=str)  # fmt: skip
def test_numbers_are_scaled_by_their_bounds(space, x, expected):
    obs = jnp.array(np.array(x, space.dtype))[None]
    np.testing.assert_allclose(
        networks.encode(networks.make_view(space), obs)[0], expected, rtol=1e-6
    )
    if isinstance(space, spaces.Box):
        unscaled = networks.encode(networks.make_view(space, "auto", False), obs)[0]
        np.testing.assert_array_equal(unscaled, np.array(x, np.float32))


def test_numbers_that_are_normalised_are_not_scaled_again():
    space = spaces.Dict(board=box(0, 1, 8, 8, 12), camera=box(0, 255, 12, 12), pair=box(0, 255, 2))
    view = networks.make_view(space)
    statistics = networks.init_statistics(space, view)
    obs = {
        "board": np.zeros((2, 8, 8, 12), BYTE),
        "camera": np.ones((2, 12, 12), BYTE),
        "pair": np.array([[10, 0], [30, 0]], BYTE),
    }
    statistics = networks.update_statistics(view, statistics, obs, np.ones(2))
    normalised = networks.normalize(view, statistics, obs)
    np.testing.assert_allclose(normalised["pair"][:, 0], [-1, 1], rtol=1e-3)
    np.testing.assert_array_equal(normalised["camera"], obs["camera"])
    np.testing.assert_allclose(view["pair"](normalised["pair"]), normalised["pair"])
    assert normalised["board"].shape == (2, 8, 8, 12) and jnp.issubdtype(
        normalised["board"].dtype, jnp.floating
    )


# learning


class Sign(probes.Probe):
    """A sign on a board says which of five actions is right.

    The sign is a code at a fixed place, or a 1 whose place tells the action.
    """

    action_space = spaces.Discrete(5)

    def __init__(self, shape, high):
        self.observation_space = box(0, high, *shape)

    def observe(self):
        self.right = int(self.np_random.integers(5))
        board = np.zeros(self.observation_space.shape, BYTE)
        if self.observation_space.high.max() == 1:
            board[self.right, 3, 2] = 1
        else:
            board[4, 4, 0] = 2 * self.right + 1
        return board

    def step(self, action):
        return self.observation_space.sample(), float(action == self.right), True, False, {}


@pytest.mark.learning
@pytest.mark.parametrize("shape, high", [((8, 8, 12), 1), ((7, 7, 3), 255)], ids=["board", "codes"])
@pytest.mark.parametrize(
    "algorithm, options, steps",
    [
        (
            DQN,
            dict(
                learning_starts=100,
                n_steps=1,
                net_arch=(32,),
                train_freq=8,
                gamma=0.5,
                target_update_interval=100,
            ),
            2_000,
        ),
        (PPO, dict(n_steps=64, n_envs=4, n_epochs=10, learning_rate=3e-3, net_arch=(32,)), 2_048),
    ],
    ids=["dqn", "ppo"],
)
def test_a_bandit_on_bytes_is_learned(algorithm, options, steps, shape, high):
    agent = algorithm(lambda: Sign(shape, high), **options).learn(steps, progress_bar=False)
    assert evaluate_policy(agent, lambda: Sign(shape, high), 50)[0] == 1.0


@EVERY_AGENT
def test_every_agent_learns_from_bytes_and_is_saved(algorithm, tmp_path):
    space = spaces.Dict(
        board=box(0, 1, 8, 8, 12),
        codes=box(0, 255, 7, 7, 3),
        camera=box(0, 255, 3, 12, 12),
        grid=box(-1, 1, 3, 3, dtype=np.int8),
    )
    space.seed(0)
    options = {"normalize_obs": True} if hasattr(algorithm.Config(), "normalize_obs") else {}
    agent = make(
        algorithm, space, n_envs=2, images=["codes", "camera"], scale_obs=False, **options
    ).learn(32, progress_bar=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(agent.params)))
    loaded = agentzoo.load(agent.save(tmp_path / "agent"))
    assert (
        loaded.config == agent.config
        and loaded.config.images == ("codes", "camera")
        and not loaded.config.scale_obs
    )
    assert "codes: an image of 7 x 7 pixels with 3 channels, divided by 255" in str(
        loaded
    ) and "board: 768 integers, unscaled" in str(loaded)
    one = space.sample()
    np.testing.assert_array_equal(
        loaded.predict(one, deterministic=True)[0], agent.predict(one, deterministic=True)[0]
    )


@EVERY_AGENT
def test_every_agent_learns_from_bytes(algorithm):
    parts = {"board": ((8, 8, 12), 1), "codes": ((7, 7, 20), 255), "camera": ((12, 12), 255)}
    space = spaces.Dict({name: box(0, high, *shape) for name, (shape, high) in parts.items()})
    agent = make(algorithm, space).learn(16, progress_bar=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(agent.params)))
    assert re.findall(r"(\w+): an image of", str(agent)) == ["camera"]


class BoardState(NamedTuple):
    right: jax.Array


@dataclass(frozen=True)
class Board:
    """The same task as a functional environment."""

    shape: tuple[int, ...]
    high: int
    action_space = spaces.Discrete(3)

    @property
    def observation_space(self):
        return box(0, self.high, *self.shape)

    def reset(self, key):
        right = jax.random.randint(key, (), 0, 3)
        return BoardState(right), self._board(right)

    def step(self, state, action, key):
        reward = jnp.float32(action == state.right)
        return state, Step(self._board(state.right), reward, jnp.bool_(True), jnp.bool_(False))

    def _board(self, right):
        return jnp.zeros(self.shape, jnp.uint8).at[0, 0, right].set(1)


@pytest.mark.parametrize(
    ("algorithm", "shape"),
    [*((algorithm, (12, 12, 3)) for algorithm in AGENTS), (DQN, (7, 7, 20)), (PPO, (7, 7, 20))],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_agent_learns_from_bytes_of_compiled_environments(algorithm, shape):
    agent = algorithm(Board(shape, 255), n_envs=2, runner="device", **AGENTS[algorithm])
    agent.learn(32, progress_bar=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(agent.params)))
    assert ("an image of" in str(agent)) == (shape == (12, 12, 3)) and "runner device" in str(agent)


# networks that end with nothing


@EVERY_AGENT
def test_a_network_without_features_is_refused(algorithm):
    small = box(0, 255, 24, 30, 3)
    with pytest.raises(
        ConfigurationError, match="cnn='efficient' leaves no features of an image of 24 x 30"
    ):
        make(algorithm, small, cnn="efficient")
    with pytest.raises(
        ConfigurationError,
        match=r"an array of shape \(1, 0\) .* Return features \[1, F\] with F of at least 1",
    ):
        make(algorithm, small, network=lambda obs: hk.Flatten()(obs)[:, :0].astype(float))
    with pytest.raises(ConfigurationError, match="holds no numbers"):
        make(algorithm, spaces.Tuple([box(0, 1, 0)]))


@pytest.mark.parametrize(
    "cnn, size", [("nature", 1), ("nature", 36), ("impala", 1), ("efficient", 25)]
)
def test_the_smallest_images_of_each_network(cnn, size):
    view = networks.make_view(box(0, 255, size, size, 3), True)
    network = hk.transform(lambda obs: networks.encode(view, obs, cnn))

    def features(key, obs):
        return network.apply(network.init(key, obs), key, obs)

    shape = jax.eval_shape(
        features, jax.random.key(0), jnp.zeros((2, size, size, 3), jnp.uint8)
    ).shape
    assert shape[0] == 2 and shape[1] > 0


# print


@EVERY_AGENT
def test_print_shows_what_was_decided(algorithm):
    space = spaces.Dict(
        camera=box(0, 255, 3, 12, 14), codes=box(0, 255, 7, 7, 3), place=spaces.Discrete(4)
    )
    agent = make(algorithm, space, n_envs=3)
    size = sum(leaf.size for leaf in jax.tree.leaves(agent.params))
    for line in (
        f"{algorithm.__name__} after 0 steps",
        "environment      without an id; 3 environments, runner host",
        "observation      Dict(",
        "camera: an image of 12 x 14 pixels with 3 channels, divided by 255",
        "codes: 147 integers, each as its 8 bits",
        "place: one of 4 categories, one-hot",
        "action           Discrete(2)",
        f"network          {size:,} parameters on ",
        "w [3, 3, 3, 16]",
        "net_arch=(8,)",
    ):
        assert line in str(agent)
    assert "gamma" not in str(agent)
    assert repr(agent).startswith(
        f"{algorithm.__name__}(n_envs=3, seed=0, "
    ) and "net_arch=(8,)" in repr(agent)
    mine = make(
        algorithm, space, network=lambda obs: hk.Linear(3)(hk.Flatten()(obs["codes"] / 255.0))
    )
    assert "passed to your network '<lambda>' as it is" in str(mine) and "an image" not in str(mine)


def test_print_of_an_agent_with_an_id_and_of_one_that_was_loaded(tmp_path):
    agent = SAC("Pendulum-v1", normalize_obs=True)
    assert repr(agent) == "SAC('Pendulum-v1', n_envs=1, seed=0, normalize_obs=True)"
    assert "Pendulum-v1; 1 environment, runner host" in str(agent) and "3 numbers, unscaled" in str(
        agent
    )
    assert "hyperparameters  normalize_obs=True, the others at their defaults" in str(agent)
    assert "hyperparameters  defaults" in str(DQN("CartPole-v1"))
    assert "Pendulum-v1; made for 1 environment, but no environment is set" in str(
        SAC.load(agent.save(tmp_path / "agent"))
    )


# files of earlier versions


def test_files_of_earlier_versions_keep_what_they_took_for_images(tmp_path, monkeypatch):
    """Those versions divided bytes with three axes by 255, and left other integers unscaled."""

    def save_as_before(agent):
        plain = configs.to_json
        with monkeypatch.context() as patch:
            left_out = ("images", "scale_obs")
            patch.setattr(
                configs,
                "to_json",
                lambda config: {k: v for k, v in plain(config).items() if k not in left_out},
            )
            return agent.save(tmp_path / "agent")

    camera, codes, memory = box(0, 1, 10, 10, 4), box(0, 255, 7, 7, 3), box(0, 255, 128)
    for space, images in (
        (camera, True),
        (memory, False),
        (box(0, 255, 84, 84), False),
        (FrameStack(0, 255, (4, 12, 12), BYTE), True),
        (spaces.Dict(codes=codes, inner=spaces.Tuple([camera, memory])), ("codes", "inner/0")),
        (spaces.Dict(memory=memory), False),
        (spaces.Discrete(3), False),
    ):
        space.seed(0)
        agent = make(DQN, space, images=images, scale_obs=False, net_arch=(8,))
        loaded = agentzoo.load(save_as_before(agent))
        assert (loaded.config.images, loaded.config.scale_obs) == (images, False)
        np.testing.assert_array_equal(loaded.values(space.sample()).shape, (2,))
        one = space.sample()
        np.testing.assert_array_equal(loaded.values(one), agent.values(one))
    for shape, axis in (((10, 10, 10), "first"), ((8, 8, 12), "first"), ((7, 7, 20), "first")):
        path = save_as_before(make(DQN, box(0, 1, *shape), images=True, scale_obs=False))
        with pytest.raises(
            ConfigurationError,
            match=rf"the {axis} axis of images of shape \[{shape[0]}.*Train the agent again",
        ):
            agentzoo.load(path)


def test_the_command_line_takes_names():
    from agentzoo.cli.options import parse_train

    for arguments, images in (
        (["False"], False),
        (["auto"], "auto"),
        (["camera"], "camera"),
        (["camera", "wrist"], ("camera", "wrist")),
    ):
        options = ["--env", "CartPole-v1", "--images", *arguments]
        config = configs.make_config(DQN.Config, parse_train(DQN, "dqn", options)[1])
        assert config.images == images and config == configs.from_json(
            DQN.Config, json.loads(json.dumps(configs.to_json(config))), {}
        )


@pytest.mark.parametrize("algorithm", AGENTS)
def test_bytes_reach_the_programs(algorithm, monkeypatch):
    """Images are scaled inside compiled programs, so that the device receives bytes."""
    images = spaces.Box(0, 255, (12, 12, 3), np.uint8)
    seen = []

    def record(cls, name, observations):
        original = getattr(cls, name)

        def recorded(self, *arguments):
            seen.append((name, observations(arguments).dtype))
            return original(self, *arguments)

        monkeypatch.setattr(cls, name, recorded)

    record(Interruptible, "__call__", lambda arguments: arguments[2])
    record(InPlace, "arguments", lambda arguments: arguments[1].obs_tm1)
    agent = make(algorithm, images).learn(32, progress_bar=False)
    agent.predict(images.sample())
    assert set(seen) == {("__call__", np.dtype(BYTE)), ("arguments", np.dtype(BYTE))}
