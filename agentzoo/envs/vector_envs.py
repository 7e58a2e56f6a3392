"""Gymnasium's vector environments, in any of their three autoreset modes, with the one meaning of `step` that `Envs` describes.

A vector environment of mode NEXT_STEP begins an episode with a dummy step: the mask marks it, and nothing is learned from it.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from agentzoo.envs import frame_stacks, spaces
from agentzoo.types import ConfigurationError, EnvSpec, PyTree, Trajectory


class VectorEnvs:
    """Steps a user's `VectorEnv` in any of Gymnasium's three autoreset modes."""

    def __init__(self, env: gym.vector.VectorEnv):
        mode = (env.metadata or {}).get("autoreset_mode")
        try:
            self.mode = AutoresetMode(mode)
        except ValueError:
            raise ConfigurationError(
                f"The vector environment's metadata['autoreset_mode'] is {mode!r}, so it is not known when it resets; set it to one "
                f"of gymnasium.vector.AutoresetMode."
            ) from None
        self.env = env
        self.spec = EnvSpec(frame_stacks.single_observation_space(env), env.single_action_space, env.num_envs)
        spaces.check_observation_space(self.spec.observation_space)
        self._offset = getattr(self.spec.action_space, "start", 0)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes in all environments."""
        obs, _ = self.env.reset(seed=seed)
        self._ended = np.zeros(self.spec.num_envs, bool)
        obs = spaces.copy(self.spec.observation_space, obs)
        spaces.check_batch(self.spec.observation_space, obs, "The observation")
        return obs

    def step(self, actions: np.ndarray, out: Trajectory, t: int) -> None:
        """Takes one action in each environment; see `Envs`."""
        space, write = self.spec.observation_space, spaces.write
        obs, reward, terminated, truncated, info = self.env.step(actions + self._offset)
        ended = np.logical_or(terminated, truncated)
        write(space, out.obs_t, t, obs)
        out.r_t[t], out.discount_t[t], out.last_t[t] = reward, np.logical_not(terminated), ended
        out.first_tm1[t + 1] = ended
        if self.mode == AutoresetMode.NEXT_STEP:
            out.mask[t], out.first_tm1[t + 1], self._ended = ~self._ended, self._ended, ended
        elif ended.any() and self.mode == AutoresetMode.SAME_STEP:
            for n in np.flatnonzero(ended):
                write(space, out.obs_t, (t, n), _final_obs(info, int(n)))
        elif ended.any():
            obs, _ = self.env.reset(options={"reset_mask": ended})
        write(space, out.obs_tm1, t + 1, obs)

    def render(self) -> None:
        """Renders the environments."""
        self.env.render()

    def close(self) -> None:
        """Closes the environments."""
        self.env.close()


def _final_obs(info: dict[str, Any], n: int) -> Any:
    """The last observation of environment n, whose episode has ended."""
    if "final_obs" not in info:
        raise ConfigurationError(
            "The vector environment resets in the same step but gives no info['final_obs'], so the last observation of an episode is "
            "lost; add it, or use another autoreset mode."
        )

    def pick(tree):
        if isinstance(tree, dict):
            return {name: pick(part) for name, part in tree.items()}
        return tuple(pick(part) for part in tree) if isinstance(tree, tuple) else tree[n]

    return pick(info["final_obs"])
