"""Any Gymnasium environment as N environments with one meaning of `step`.

A `Step` always holds the true successor observation, tells termination from truncation, and marks the dummy step with which
Gymnasium's NEXT_STEP vector environments begin an episode.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from agentzoo.envs import spaces
from agentzoo.types import ConfigurationError, EnvSpec, PyTree


class Step(NamedTuple):
    """What N environments answered; leading axis `[N]`."""

    obs_t: PyTree  # the true successor, also where the episode ended
    r_t: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    mask: np.ndarray  # False where the step never happened
    next_obs: PyTree  # what to act on next: the new episode's first observation where one began
    first: np.ndarray  # True where `next_obs` begins an episode


class Envs(Protocol):
    """N environments as a runner steps them."""

    spec: EnvSpec

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes; returns the observations `[N, ...]`."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Takes one action in each environment."""
        ...

    def render(self) -> None:
        """Renders the environments."""
        ...

    def close(self) -> None:
        """Closes the environments."""
        ...


class GymEnvs:
    """Steps ordinary environments one after the other, and resets each as soon as its episode ends."""

    def __init__(self, envs: Sequence[gym.Env]):
        self.envs = list(envs)
        self.spec = EnvSpec(self.envs[0].observation_space, self.envs[0].action_space, len(self.envs))
        spaces.check_observation_space(self.spec.observation_space)
        for i, env in enumerate(self.envs):
            if env in self.envs[:i]:
                raise ConfigurationError("The environment factory returned the same environment twice; it must make a new one at each call.")
            if (env.observation_space, env.action_space) != self.spec[:2]:
                raise ConfigurationError("The environments differ in their spaces; an agent needs them to be alike.")
        self._offset = getattr(self.spec.action_space, "start", 0)

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes; environment i is seeded with `seed + i`."""
        space = self.spec.observation_space
        obs = spaces.stack(space, [env.reset(seed=None if seed is None else seed + i)[0] for i, env in enumerate(self.envs)])
        spaces.check_batch(space, obs, "The observation")
        return obs

    def step(self, actions: np.ndarray) -> Step:
        """Takes one action in each environment."""
        results = [env.step(action) for env, action in zip(self.envs, actions + self._offset, strict=True)]
        obs, rewards, terminated, truncated, _ = zip(*results, strict=True)
        terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
        obs_t = next_obs = spaces.stack(self.spec.observation_space, obs)
        first = terminated | truncated
        if first.any():
            obs = [env.reset()[0] if ended else o for env, ended, o in zip(self.envs, first, obs, strict=True)]
            next_obs = spaces.stack(self.spec.observation_space, obs)
        return Step(obs_t, np.array(rewards, float), terminated, truncated, np.ones_like(first), next_obs, first)

    def render(self) -> None:
        """Renders the environments."""
        for env in self.envs:
            env.render()

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


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
        self.spec = EnvSpec(env.single_observation_space, env.single_action_space, env.num_envs)
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

    def step(self, actions: np.ndarray) -> Step:
        """Takes one action in each environment."""
        space = self.spec.observation_space
        obs, reward, terminated, truncated, info = self.env.step(actions + self._offset)
        terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
        ended, dummy = terminated | truncated, self._ended
        obs_t = next_obs = spaces.copy(space, obs)
        first, mask = ended, np.ones_like(ended)
        if self.mode == AutoresetMode.NEXT_STEP:
            first, mask, self._ended = dummy, ~dummy, ended
        elif ended.any() and self.mode == AutoresetMode.SAME_STEP:
            obs_t = _with_final(space, next_obs, info, ended)
        elif ended.any():
            obs, _ = self.env.reset(options={"reset_mask": ended.copy()})
            next_obs = spaces.copy(space, obs)
        return Step(obs_t, np.array(reward, float), terminated, truncated, mask, next_obs, first)

    def render(self) -> None:
        """Renders the environments."""
        self.env.render()

    def close(self) -> None:
        """Closes the environments."""
        self.env.close()


def _with_final(space: gym.Space, obs: PyTree, info: dict[str, Any], ended: np.ndarray) -> PyTree:
    """Puts the last observations of ended episodes in the place of the first ones of the next."""
    if "final_obs" not in info:
        raise ConfigurationError(
            "The vector environment resets in the same step but gives no info['final_obs'], so the last observation of an episode is "
            "lost; add it, or use another autoreset mode."
        )

    def element(tree, i):
        if isinstance(tree, dict):
            return {name: element(part, i) for name, part in tree.items()}
        return tuple(element(part, i) for part in tree) if isinstance(tree, tuple) else tree[i]

    return spaces.stack(space, [element(info["final_obs"] if last else obs, i) for i, last in enumerate(ended)])
