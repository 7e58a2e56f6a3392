"""Detection of observations that are stacks of frames, which does not change what is learned."""

import gymnasium as gym
import haiku as hk
import jax
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import DQN, ConfigurationError, networks
from agentzoo.envs import make_envs
from agentzoo.envs import spaces as zoo_spaces
from agentzoo.replay import make_replay
from agentzoo.types import FrameStack
from tests.probes import Probe


class Screen(Probe):
    """A small screen of random pixels. The first pixel is the cue that the action has to fit."""

    observation_space = spaces.Box(0, 255, (12, 12), np.uint8)
    length = 3

    def observe(self):
        pixels = self.np_random.integers(0, 256, (12, 12), np.uint8)
        pixels[:, :6] = 255 * (self.cue > 0)
        return pixels

    def reward(self, action):
        return 5.0 if (action == 1) == (self.cue > 0) else -5.0


def stacked(padding_type="reset"):
    return wrappers.FrameStackObservation(Screen(), 4, padding_type=padding_type)


class Unknown(gym.Wrapper):
    """A wrapper that might do anything to the observations."""


@pytest.mark.parametrize(
    "make",
    [
        stacked,
        lambda: wrappers.TimeLimit(wrappers.RecordEpisodeStatistics(stacked("zero")), 2),
        lambda: wrappers.TransformReward(stacked(), lambda r: r / 5),
        lambda: SyncVectorEnv([stacked] * 2),
        lambda: wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([stacked] * 2)),
    ],
)
def test_stacks_are_found_below_wrappers_that_leave_them_alone(make):
    assert make_envs(make()).spec.observation_space == FrameStack(0, 255, (4, 12, 12), np.uint8)


@pytest.mark.parametrize(
    "make",
    [
        Screen,
        lambda: Unknown(stacked()),
        lambda: wrappers.TransformObservation(stacked(), lambda obs: 255 - obs, None),
        lambda: wrappers.MaxAndSkipObservation(stacked(), 2),
        lambda: SyncVectorEnv([lambda: Unknown(stacked())] * 2),
    ],
)
def test_what_might_not_be_a_stack_is_kept_whole(make):
    assert not isinstance(make_envs(make()).spec.observation_space, FrameStack)


def test_the_space_of_a_stack():
    stack, box = (
        FrameStack(0, 255, (4, 12, 12), np.uint8),
        spaces.Box(0, 255, (4, 12, 12), np.uint8),
    )
    assert stack != box and box != stack and stack != FrameStack(0, 255, (3, 12, 12), np.uint8)
    restored = zoo_spaces.from_json(zoo_spaces.to_json(stack))
    assert isinstance(restored, FrameStack) and restored == stack


FAST = dict(
    n_steps=2,
    learning_rate=3e-3,
    net_arch=(32,),
    learning_starts=40,
    batch_size=16,
    train_freq=8,
    gradient_steps=4,
    gamma=0.5,
    target_update_interval=40,
    exploration_final_eps=0.5,
    buffer_size=1_000,
)


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_learning_is_the_same_whether_frames_or_stacks_are_stored(mode, padding):
    def learned(wrap):
        def env():
            return wrap(stacked(padding))

        envs = env if mode is None else SyncVectorEnv([env] * 2, autoreset_mode=mode)
        agent = DQN(envs, n_envs=2, network=lambda obs: hk.Flatten()(obs / 255.0), **FAST).learn(
            160, progress_bar=False
        )
        return agent.spec.observation_space, jax.device_get(agent.params)

    (frames, params), (whole, others) = learned(lambda env: env), learned(Unknown)
    assert isinstance(frames, FrameStack) and not isinstance(whole, FrameStack)
    jax.tree.map(np.testing.assert_array_equal, params, others)


def test_an_agent_of_stacks_is_saved_and_goes_on_with_stacks_only(tmp_path):
    agent = DQN(stacked, **FAST).learn(80, progress_bar=False)
    loaded = DQN.load(agent.save(tmp_path / "agent"), stacked)
    assert isinstance(loaded.spec.observation_space, FrameStack)
    loaded.learn(40, progress_bar=False, reset_num_timesteps=False)
    with pytest.raises(ConfigurationError, match="FrameStack"):
        loaded.set_env(lambda: Unknown(stacked()))


@pytest.mark.parametrize("cnn", ["nature", "impala"])
def test_frames_become_channels(cnn):
    frames = np.random.default_rng(0).integers(
        0, 256, (2, 5, 40, 44, 3), np.uint8
    )  # [N, S, H, W, C]
    channels = np.concatenate([frames[:, i] for i in range(5)], axis=-1)
    stack, grey = (
        FrameStack(0, 255, frames.shape[1:], np.uint8),
        FrameStack(0, 255, (5, 40, 44), np.uint8),
    )

    def features(space, images):
        network = hk.without_apply_rng(
            hk.transform(lambda obs: networks.encode(networks.make_view(space), obs, cnn))
        )
        return network.apply(network.init(jax.random.key(0), images), images)

    for stacked_space, stacks, images in (
        (stack, frames, channels),
        (grey, frames[..., 0], channels[..., ::3]),
    ):
        expected = features(spaces.Box(0, 255, images.shape[1:], np.uint8), images)
        np.testing.assert_allclose(features(stacked_space, stacks), expected, atol=1e-5)


def test_sizes_of_the_torsos():
    def shapes(cnn):
        space = FrameStack(0, 255, (4, 84, 84), np.uint8)
        network = hk.transform(
            lambda obs: networks.torso(networks.make_view(space), cnn, (512,), "relu", obs)
        )
        params = jax.eval_shape(network.init, jax.random.key(0), networks.example(space))
        return [module["w"].shape for module in params.values()]

    assert shapes("nature") == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (7 * 7 * 64, 512)]
    impala = [
        (3, 3, 4, 16),
        *[(3, 3, 16, 16)] * 4,
        (3, 3, 16, 32),
        *[(3, 3, 32, 32)] * 9,
        (11 * 11 * 32, 256),
    ]
    assert sorted(shapes("impala")[:-1]) == sorted(impala[:-1]) and shapes("impala")[-1] == (
        11 * 11 * 32,
        512,
    )


def test_convolutions_are_chosen_by_a_hyperparameter():
    agent = DQN(stacked, cnn="impala", **FAST)
    before = jax.device_get(agent.params)
    agent.learn(80, progress_bar=False)
    assert len(before) == 15 + 2
    assert all(
        jax.tree.leaves(
            jax.tree.map(lambda x, y: bool((x != y).any()), before, jax.device_get(agent.params))
        )
    )
    with pytest.raises(
        ConfigurationError, match=r"cnn='resnet' is unknown\. Choose 'nature', 'impala'"
    ):
        DQN(stacked, cnn="resnet")


def test_rewards_are_clipped_for_learning_and_raw_in_the_score():
    for clip, learned in ((True, {-1.0, 1.0}), (False, {-5.0, 5.0})):
        agent = DQN(stacked, clip_reward=clip, **FAST).learn(160, progress_bar=False)
        buffer = make_replay(
            agent.spec, agent.config.buffer_size, agent.config.train_freq, agent.config.gamma
        )
        drawn = buffer.sample(agent.learner_state.replay, jax.random.key(0), 512)
        assert set(np.unique(drawn.r_t).tolist()) == learned
        assert set(agent.trainer.episodes.rewards) <= {-15.0, -5.0, 5.0, 15.0}
