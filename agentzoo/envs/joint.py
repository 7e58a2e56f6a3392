"""All environments in which an agent trains, as one standard `VectorEnv`."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector.utils import batch_space

from agentzoo.envs.base import Envs
from agentzoo.envs.gym_envs import GymEnvs
from agentzoo.envs.shares import DistantEnvs
from agentzoo.envs.use import TrainingEnv


class JointVectorEnv(gym.vector.VectorEnv):
    """Several vector environments with the same spaces, as one vector environment."""

    def __init__(self, envs: Sequence[gym.vector.VectorEnv]):
        self.envs = list(envs)
        first = self.envs[0]
        self.metadata, self.render_mode = first.metadata, first.render_mode
        self.num_envs = sum(env.num_envs for env in self.envs)
        self.single_observation_space = first.single_observation_space
        self.single_action_space = first.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        # The environments of each vector environment, as slices of 0 to `num_envs`.
        ends = np.cumsum([env.num_envs for env in self.envs]).tolist()
        each = zip(self.envs, ends, strict=True)
        self._slices = [slice(end - env.num_envs, end) for env, end in each]
        # The newest observations, because a `reset` with a mask may skip a vector environment.
        self._obs: list[Any] = [None] * len(self.envs)

    def reset(
        self,
        *,
        seed: Any = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes; environment i is seeded with `seed + i`, or `seed[i]`."""
        infos: list[dict[str, Any]] = [{} for _ in self.envs]
        mask = (options or {}).get("reset_mask")
        for i, (env, own) in enumerate(zip(self.envs, self._slices, strict=True)):
            if mask is not None and not mask[own].any():
                continue
            seeds: Any = seed[own] if isinstance(seed, list) else seed
            seeds = seeds + own.start if isinstance(seeds, int) else seeds
            chosen = options if mask is None else {**(options or {}), "reset_mask": mask[own]}
            self._obs[i], infos[i] = env.reset(seed=seeds, options=chosen)
        return self._joined(self._obs), self._joined_infos(infos)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action in each environment."""
        steps = [env.step(actions[own]) for env, own in zip(self.envs, self._slices, strict=True)]
        self._obs, *numbers, infos = (list(each) for each in zip(*steps, strict=True))
        reward, terminated, truncated = (np.concatenate(each) for each in numbers)
        return self._joined(self._obs), reward, terminated, truncated, self._joined_infos(infos)

    def render(self) -> tuple[Any, ...] | None:
        """Return the frames of all environments."""
        frames = [env.render() for env in self.envs]
        return None if None in frames else tuple(frame for each in frames for frame in each or ())

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close(**kwargs)

    def _joined(self, trees: Sequence[Any]) -> Any:
        """Concatenate the arrays of several vector environments."""
        return jax.tree.map(lambda *x: np.concatenate(x), *trees)

    def _joined_infos(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Concatenate the arrays of each name.

        Environments without an entry get zeros, and the mask of the entry is False for them.
        """
        joined: dict[str, Any] = {}
        for name in {name: None for info in infos for name in info}:
            values = [info.get(name) for info in infos]
            known = next(value for value in values if value is not None)
            if isinstance(known, dict) and name != "final_obs":
                joined[name] = self._joined_infos([value or {} for value in values])
            elif isinstance(known, dict | tuple) or np.shape(known):
                sizes = [env.num_envs for env in self.envs]
                each = zip(values, sizes, strict=True)
                joined[name] = self._joined([_zeros(known, n) if x is None else x for x, n in each])
        return joined


def _zeros(tree: Any, number: int) -> Any:
    """Return arrays like those of a tree, with `number` rows of zeros, or of None for objects."""

    def zeros(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.full((number, *x.shape[1:]), None if x.dtype == object else 0, x.dtype)

    return jax.tree.map(zeros, tree)


def as_vector_env(envs: Envs, busy: Callable[[], bool]) -> TrainingEnv:
    """Return the environments as one `VectorEnv`.

    The environments of actors in other processes cannot be reached. New environments, made in this
    process, replace them.

    Args:
      envs: the environments.
      busy: function that returns whether actors are stepping the environments.
    """
    shares = getattr(envs, "shares", [envs])
    if isinstance(envs, DistantEnvs):
        shares = [shares[0], *(envs.make() for _ in shares[1:])]
    if all(isinstance(share, GymEnvs) for share in shares):
        made = [env for share in shares for env in share.envs]
        env = gym.vector.SyncVectorEnv([lambda env=env: env for env in made])
    else:
        env = shares[0].env if len(shares) == 1 else JointVectorEnv([share.env for share in shares])
    return TrainingEnv(env, envs.disturb, busy)
