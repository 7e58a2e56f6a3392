"""Ordinary Gymnasium environments, stepped one after the other in the calling thread."""

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from agentzoo.envs import checking, frame_stacks, spaces
from agentzoo.envs.base import EnvStep
from agentzoo.envs.infos import Info, plain
from agentzoo.envs.use import Used
from agentzoo.types import ConfigurationError, EnvSpec, InvalidStep, PyTree


class GymEnvs(Used):
    """Steps ordinary environments, and resets each one as soon as its episode ends.

    Args:
      envs: the environments, which have the same spaces.

    Raises:
      ConfigurationError: if an environment has no spaces, if it is there twice, or if agents do not
        support the spaces.
    """

    def __init__(self, envs: Sequence[gym.Env]):
        self.envs = list(envs)
        self.spec = _common_spec(self.envs)
        space = self.spec.observation_space
        self._check = checking.make_check(space)
        self._infos: list[Info] = [{} for _ in self.envs]
        self._empty = spaces.make_empty(space, len(self.envs))
        self._empty_reward = functools.partial(np.empty, len(self.envs), np.dtype(np.float32))
        self._ones, self._none = np.ones(len(self.envs), np.float32), np.zeros(len(self.envs), bool)
        self._mask = np.ones(len(self.envs), bool)  # none of these environments has dummy steps
        # For a single array, `__setitem__` saves a call of Python at each observation.
        is_array = not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)
        self._write = np.ndarray.__setitem__ if is_array else spaces.write

    def reset(self, seed: int | None = None) -> PyTree:
        """Begin new episodes; environment i is seeded with `seed + i`."""
        self._claim(self.envs)
        seeds = [None if seed is None else seed + i for i in range(len(self.envs))]
        first = [self._begin(n, env, seed=seeds[n]) for n, env in enumerate(self.envs)]
        return spaces.stack(self.spec.observation_space, first)

    def _begin(self, n: int, env: gym.Env, **arguments: Any) -> Any:
        """Reset environment n, and return its first observation."""
        try:
            obs, _ = checking.unpack_reset(env.reset(**arguments))
            self._check(obs)
        except InvalidStep as error:
            raise InvalidStep(error.problem, n) from None
        return obs

    def step(self, actions: np.ndarray) -> EnvStep:
        """Take one action in each environment; see `Envs.step`."""
        write = self._write
        obs = successor = self._empty()
        reward, final_infos = self._empty_reward(), {}
        discount, last = self._ones, self._none
        elements = spaces.split(self.spec.action_space, actions)
        for n, env in enumerate(self.envs):
            result = env.step(elements[n])
            try:
                element, r, terminated, truncated, info = checking.read_step(result, self._check)
            except InvalidStep as error:
                raise InvalidStep(error.problem, n) from None
            reward[n] = r
            self._infos[n] = info
            write(successor, n, element)
            if terminated or truncated:
                if not final_infos:  # the first environment whose episode ends
                    obs = spaces.copy(self.spec.observation_space, successor)
                    discount, last = self._ones.copy(), self._none.copy()
                discount[n], last[n] = not terminated, True
                final_infos[n] = plain(info)
                element = self._begin(n, env)
            if obs is not successor:
                write(obs, n, element)
        return EnvStep(
            obs=obs,
            first=last,  # an episode begins where one ended
            successor=successor,
            reward=reward,
            discount=discount,
            last=last,
            mask=self._mask,
            final_infos=final_infos,
        )

    def infos(self) -> list[Info]:
        """Return the `info` of each environment's newest step."""
        return [info if isinstance(info, dict) else {} for info in self._infos]

    def render(self) -> None:
        """Render the environments."""
        for env in self.envs:
            env.render()

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


def _common_spec(envs: Sequence[gym.Env]) -> EnvSpec:
    """Return the spec of N different environments with the same spaces.

    Raises:
      ConfigurationError: as `GymEnvs` does.
    """
    for env in envs:
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gym.Space):
                raise ConfigurationError(
                    f"The environment {type(env.unwrapped).__name__} has no {name}. Set it to a "
                    "space of gymnasium.spaces."
                )
    # The spaces of each environment.
    pairs = [
        (spaces.plain(frame_stacks.observation_space(env)), spaces.plain(env.action_space))
        for env in envs
    ]
    spec = EnvSpec(*pairs[0], num_envs=len(envs))
    spaces.check_observation_space(spec.observation_space)
    for i, env in enumerate(envs):
        if env in envs[:i]:
            raise ConfigurationError(
                "The environment factory returned the same environment twice. Make a new "
                "environment at each call."
            )
        if pairs[i] != pairs[0]:
            raise ConfigurationError(
                "The environments have different spaces. Use environments with the same "
                "observation space and the same action space."
            )
    return spec
