"""Atari games have the same preprocessing in all kinds of environments."""

import importlib.util

import numpy as np
import pytest
from gymnasium import spaces

from agentzoo import DQN, QRDQN, ConfigurationError, evaluate_policy, make_env
from agentzoo.envs import GymEnvs, VectorEnvs, atari, make_envs
from agentzoo.types import FrameStack
from tests.probes import take_actions

PONG = "ALE/Pong-v5"
SCREENS = FrameStack(0, 255, (4, 84, 84), np.uint8)


def short(num_envs, frames=40):
    """Make games that are truncated after a number of frames, with 4 frames a step."""
    return atari.make_vec(PONG, num_envs, max_num_frames_per_episode=frames)


def test_both_ways_of_stepping_see_the_same():
    vector = atari.make_vec(PONG, 1, noop_max=0, repeat_action_probability=0.0)
    single = make_env(PONG, repeat_action_probability=0.0)
    single.env.noop_max = 0
    (ours,), (theirs, _) = vector.reset(seed=0)[0], single.reset(seed=0)
    scores = []
    for action in np.random.default_rng(0).integers(6, size=200):
        assert ours.dtype == theirs.dtype == np.uint8
        assert (
            np.abs(ours.astype(int) - theirs).max() <= 1
        )  # two builds of OpenCV round differently
        (ours,), (r_t,), *_ = vector.step(np.array([action]))
        theirs, reward, *_ = single.step(action)
        assert r_t == reward
        scores.append(reward)
    assert -1 in scores
    vector.close()


def test_actions_stick_and_frames_are_skipped_once():
    env = make_env(PONG)
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.25
    env.reset(seed=0)
    before = env.unwrapped.ale.getEpisodeFrameNumber()
    env.step(0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() == before + 4
    vector = make_envs(PONG, 2).env
    assert vector.spec.kwargs["repeat_action_probability"] == 0.25
    _, info = vector.reset(seed=0)
    *_, after = vector.step(np.zeros(2, int))
    assert (after["episode_frame_number"] == info["episode_frame_number"] + 4).all()


@pytest.mark.parametrize(("env_id", "kind"), [(PONG, VectorEnvs), ("PongNoFrameskip-v4", GymEnvs)])
def test_observations_are_stacks_of_frames(env_id, kind):
    envs = make_envs(env_id, 2)
    assert (
        isinstance(envs, kind)
        and envs.spec.observation_space == SCREENS
        and envs.spec.action_space == spaces.Discrete(6)
    )
    obs = envs.reset(0)
    assert obs.shape == (2, 4, 84, 84) and not obs[:, :3].any() and obs[:, 3].any()
    envs.close()


def test_episodes_that_are_cut_off_keep_their_last_observation():
    envs = VectorEnvs(short(2))
    out = take_actions(envs, [np.full(2, t % 6) for t in range(25)])
    assert out.mask.all() and out.discount_t.all()
    assert np.flatnonzero(out.last_t[:, 0]).tolist() == [9, 19]
    assert np.flatnonzero(out.first_tm1[:, 0]).tolist() == [0, 10, 20]
    # A successor shares three frames with its source, also where the episode is cut off.
    np.testing.assert_array_equal(out.obs_t[:, :, :3], out.obs_tm1[:, :, 1:])
    first = out.first_tm1[1:]
    np.testing.assert_array_equal(out.obs_t[:-1][~first], out.obs_tm1[1:][~first])
    assert not out.obs_tm1[1:, :, :3][first].any()


def test_rewards_are_raw_scores():
    envs = make_envs("ALE/MsPacman-v5", 2)
    assert take_actions(envs, np.full((120, 2), 3)).r_t.max() == 10


@pytest.mark.parametrize("ends", [False, True])
def test_the_loss_of_a_life_ends_an_episode_if_that_is_asked_for(ends):
    env = make_env("ALE/Breakout-v5", terminal_on_life_loss=ends)
    _, info = env.reset(seed=0)
    while info["lives"] == 5:
        _, _, terminated, _, info = env.step(1)
    assert terminated == ends


@pytest.mark.learning
@pytest.mark.parametrize("kind", [DQN, QRDQN])
def test_agents_learn_from_the_screen(kind, tmp_path):
    settings = dict(
        preset="pixels",
        buffer_size=500,
        learning_starts=20,
        train_freq=8,
        batch_size=4,
        target_update_interval=16,
        seed=3,
    )
    agent = kind(short(2, frames=24), **settings).learn(48, progress_bar=False)
    assert agent.learner_state.n_updates == 2
    assert agent.learner_state.replay.frames.dtype == np.uint8
    loaded = kind.load(agent.save(tmp_path / "agent"), PONG)
    observation, _ = make_env(PONG).reset(seed=0)
    np.testing.assert_array_equal(loaded.values(observation), agent.values(observation))
    assert evaluate_policy(loaded, short(1), 1) == (0.0, 0.0)


def test_what_to_do_if_there_is_no_such_game_or_no_emulator(monkeypatch):
    with pytest.raises(ConfigurationError, match="Did you mean 'ALE/Pong-v5'"):
        make_env("ALE/Pung-v5")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for env_id in ("ALE/Pung-v5", "PungNoFrameskip-v4"):
        with pytest.raises(ConfigurationError, match=r"pip install 'agentzoo\[atari\]'"):
            make_envs(env_id)
