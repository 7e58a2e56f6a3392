"""Detection of environments that observe stacks of frames.

A replay buffer stores each frame of such observations once.
"""

import gymnasium as gym
from gymnasium import spaces, wrappers

from agentzoo.envs.use import TrainingEnv
from agentzoo.types import FrameStack

# Wrappers that do not change observations. All other wrappers are assumed to change them.
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
    """Return an environment's observation space, as a `FrameStack` if it is known to be one."""
    outer = env
    while isinstance(outer, _TRANSPARENT):
        outer = outer.env
    return _as_stack(env.observation_space, isinstance(outer, wrappers.FrameStackObservation))


def single_observation_space(env: gym.vector.VectorEnv) -> spaces.Space:
    """Return the observation space of each environment, as a `FrameStack` if it is one."""
    outer = env
    while isinstance(outer, _TRANSPARENT_VECTOR):
        outer = outer.env
    if isinstance(outer, gym.vector.SyncVectorEnv):
        stacked = all(isinstance(observation_space(one), FrameStack) for one in outer.envs)
    elif type(outer).__name__ == "AtariGymnasiumEnvPool":
        # Colours would be on the same axis as the frames.
        stacked = bool(outer.spec.config.gray_scale)  # type: ignore[union-attr]
    else:  # ale-py's vector environment always stacks frames
        stacked = type(outer).__name__ == "AtariVectorEnv"
    return _as_stack(env.single_observation_space, stacked)


def _as_stack(space: spaces.Space, stacked: bool) -> spaces.Space:
    """Return the space, as a `FrameStack` if it is a Box of stacked frames."""
    if not (stacked and isinstance(space, spaces.Box)):
        return space
    return FrameStack(space.low, space.high, space.shape, space.dtype.type)  # type: ignore[arg-type]
