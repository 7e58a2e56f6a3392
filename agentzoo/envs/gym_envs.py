"""Any Gymnasium environment as N environments with one meaning of `step`.

Steps are written into the arrays of a `Trajectory`, always with the true successor observation,
with termination and truncation apart, and with a mask for dummy steps (`VectorEnvs` knows some).
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from agentzoo.envs import checking, frame_stacks, spaces
from agentzoo.envs.infos import Info, plain
from agentzoo.envs.use import Used
from agentzoo.types import ConfigurationError, EnvSpec, InvalidStep, PyTree, Trajectory


def make_buffers(spec: EnvSpec, length: int) -> Trajectory:
    """NumPy arrays `[T, N, ...]` for `step` to write into; `obs_tm1` and `first_tm1` have one row more, for what comes next."""
    shape = (length, spec.num_envs)
    return Trajectory(
        obs_tm1=spaces.empty(spec.observation_space, length + 1, spec.num_envs),
        a_tm1=spaces.empty(spec.action_space, *shape),
        r_t=np.empty(shape, np.float32),
        discount_t=np.empty(shape, np.float32),
        obs_t=spaces.empty(spec.observation_space, *shape),
        last_t=np.empty(shape, bool),
        first_tm1=np.empty((length + 1, spec.num_envs), bool),
        mask=np.ones(shape, bool),
    )


class Envs(Protocol):
    """N environments as a runner steps them.

    Attributes:
      spec: what an agent knows of them.
    """

    spec: EnvSpec

    @property
    def disturbed(self) -> bool:
        """Whether somebody else has used the environments since they were reset; see `Used`."""
        ...

    def disturb(self) -> None:
        """Says that somebody else has used the environments."""
        ...

    def occupy(self, busy: bool) -> None:
        """Says whether actors in threads are stepping the environments, so that nobody else can."""
        ...

    def infos(self) -> list[Info]:
        """Returns the `info` of each environment's newest step."""
        ...

    def pop_finals(self) -> dict[tuple[int, int], Info]:
        """Returns the `info` of each step that has ended an episode since the last call.

        The keys are row t and environment n.
        """
        ...

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes; returns the observations `[N, ...]`.

        Raises:
          InvalidStep: if an environment returns what its observation space does not allow.
        """
        ...

    def step(self, actions: np.ndarray, out: Trajectory, t: int) -> None:
        """Takes one action in each environment, and writes what follows into row t of `out` (made by `make_buffers`).

        The observations to act on next, and whether they begin an episode, go to row t + 1 of
        `obs_tm1` and `first_tm1`.

        Raises:
          InvalidStep: if an environment returns what cannot be stored as it is; see
            `agentzoo.envs.checking`.
        """
        ...

    def render(self) -> None:
        """Renders the environments."""
        ...

    def close(self) -> None:
        """Closes the environments."""
        ...


_assign = np.ndarray.__setitem__  # (array, index, element), without a call of Python


class GymEnvs(Used):
    """Steps ordinary environments one after the other, and resets each as soon as its episode ends."""

    def __init__(self, envs: Sequence[gym.Env]):
        self.envs = list(envs)
        for env in self.envs:
            for name in ("observation_space", "action_space"):
                if not isinstance(getattr(env, name, None), gym.Space):
                    raise ConfigurationError(
                        f"The environment {type(env.unwrapped).__name__} has no {name}; set it to a space of gymnasium.spaces."
                    )
        kinds = [
            (spaces.plain(frame_stacks.observation_space(env)), spaces.plain(env.action_space))
            for env in self.envs
        ]
        self.spec = EnvSpec(*kinds[0], len(self.envs))
        spaces.check_observation_space(self.spec.observation_space)
        for i, env in enumerate(self.envs):
            if env in self.envs[:i]:
                raise ConfigurationError(
                    "The environment factory returned the same environment twice; it must make a new one at each call."
                )
            if kinds[i] != kinds[0]:
                raise ConfigurationError(
                    "The environments differ in their spaces; an agent needs them to be alike."
                )
        self._check = checking.make_check(self.spec.observation_space)
        self._infos: list[Info] = [{} for _ in self.envs]
        self._finals: dict[tuple[int, int], Info] = {}

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes; environment i is seeded with `seed + i`."""
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

    def step(self, actions: np.ndarray, out: Trajectory, t: int) -> None:
        """Takes one action in each environment; see `Envs`."""
        space, action_space = self.spec.observation_space, self.spec.action_space
        write = (
            _assign if isinstance(out.obs_t, np.ndarray) else functools.partial(spaces.write, space)
        )
        elements = spaces.split(action_space, spaces.to_elements(action_space, actions))
        for n, env in enumerate(self.envs):
            result = env.step(elements[n])
            try:
                obs, reward, terminated, truncated, info = checking.read_step(result, self._check)
            except InvalidStep as error:
                raise InvalidStep(error.problem, n) from None
            ended = terminated or truncated
            out.r_t[t, n] = reward
            self._infos[n] = info
            if ended:
                self._finals[t, n] = plain(info)
            write(out.obs_t, (t, n), obs)
            out.discount_t[t, n], out.last_t[t, n] = not terminated, ended
            write(out.obs_tm1, (t + 1, n), self._begin(n, env) if ended else obs)
            out.first_tm1[t + 1, n] = ended

    def infos(self) -> list[Info]:
        """Returns the `info` of each environment's newest step."""
        return [info if isinstance(info, dict) else {} for info in self._infos]

    def pop_finals(self) -> dict[tuple[int, int], Info]:
        """Returns the `info` of each step that has ended an episode; see `Envs`."""
        finals, self._finals = self._finals, {}
        return finals

    def render(self) -> None:
        """Renders the environments."""
        for env in self.envs:
            env.render()

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()
