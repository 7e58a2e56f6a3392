"""Environments of EnvPool. CI skips these tests, because EnvPool is large."""

import numpy as np
import pytest

from agentzoo import DQN
from agentzoo.envs import make_envs
from agentzoo.types import FrameStack
from tests.probes import take_actions

envpool = pytest.importorskip("envpool")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*precision lowered", "ignore:EnvPool seeds are fixed"
)


def test_dummy_steps_are_marked():
    """Pushed to one side, the pole falls after about 10 steps. A dummy step follows."""
    envs = make_envs(envpool.make_gymnasium("CartPole-v1", num_envs=2, seed=1))
    out = take_actions(envs, np.ones((60, 2), int), seed=None)
    assert (out.mask[1:] != out.last_t[:-1]).all() and out.mask[0].all()
    np.testing.assert_array_equal(out.r_t, out.mask)
    np.testing.assert_array_equal(out.discount_t, ~out.last_t)
    assert out.last_t.sum() >= 8
    # The successors are the true last observations: the pole has fallen.
    assert (np.abs(out.obs_t[out.last_t][:, 2]) > 0.2).all()
    assert (np.abs(out.obs_tm1[out.first_tm1 & out.mask]) <= 0.05).all()


def test_atari_is_a_stack_of_frames():
    envs = make_envs(envpool.make_gymnasium("Pong-v5", num_envs=2, seed=1))
    assert envs.spec.observation_space == FrameStack(0, 255, (4, 84, 84), np.uint8)
    coloured = make_envs(envpool.make_gymnasium("Pong-v5", num_envs=1, seed=1, gray_scale=False))
    assert not isinstance(coloured.spec.observation_space, FrameStack)


def test_trains():
    agent = DQN(envpool.make_gymnasium("CartPole-v1", num_envs=4, seed=1), learning_starts=100)
    agent.learn(1_000, progress_bar=False)
    assert agent.num_timesteps >= 1_000 and agent.metrics["train/n_updates"] > 0
