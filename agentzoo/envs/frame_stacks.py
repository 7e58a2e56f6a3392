"""Which environments observe stacks of frames, so that a replay can store each frame once."""

import gymnasium as gym
from gymnasium import spaces, wrappers

from agentzoo.envs.use import TrainingEnv
from agentzoo.types import FrameStack

# Wrappers that hand observations on as they are. Any other might change them, and is taken to.
_TRANSPARENT = (
    gym.ActionWrapper,
    gym.RewardWrapper,
    wrappers.HumanRendering,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.TimeLimit,
)
_TRANSPARENT_VECTOR = (
    TrainingEnv,
    gym.vector.VectorActionWrapper,
    gym.vector.VectorRewardWrapper,
    wrappers.vector.RecordEpisodeStatistics,
)


def observation_space(env: gym.Env) -> spaces.Space:
    """The observation space of an environment, as a `FrameStack` if it is known to be one."""
    outer = env
    while isinstance(outer, _TRANSPARENT):
        outer = outer.env
    return _of(env.observation_space, isinstance(outer, wrappers.FrameStackObservation))


def single_observation_space(env: gym.vector.VectorEnv) -> spaces.Space:
    """The observation space of each environment in a vector environment, as a `FrameStack` if it is known to be one."""
    outer = env
    while isinstance(outer, _TRANSPARENT_VECTOR):
        outer = outer.env
    if isinstance(outer, gym.vector.SyncVectorEnv):
        stacked = all(isinstance(observation_space(one), FrameStack) for one in outer.envs)
    elif type(outer).__name__ == "AtariGymnasiumEnvPool":  # colours would be put on the same axis
        stacked = bool(outer.spec.config.gray_scale)  # type: ignore[union-attr]
    else:  # ale-py's own always stacks
        stacked = type(outer).__name__ == "AtariVectorEnv"
    return _of(env.single_observation_space, stacked)


def _of(space: spaces.Space, stacked: bool) -> spaces.Space:
    if not (stacked and isinstance(space, spaces.Box)):
        return space
    return FrameStack(space.low, space.high, space.shape, space.dtype.type)  # type: ignore[arg-type]
