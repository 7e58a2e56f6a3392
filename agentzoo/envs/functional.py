"""Environments as pure functions, to be compiled together with an agent, and how they become ordinary ones.

Gymnasium's `experimental.functional.FuncEnv` has the same spirit and cuts finer: `initial` and `observation` are `reset` here, and
`transition`, `observation`, `reward` and `terminal` are `step`, which computes what they share once and can tell a truncation from a
termination. Parameters of an environment are fields of the object that implements the protocol.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import jax
import numpy as np

from agentzoo.envs import spaces
from agentzoo.types import Array, PyTree

State = TypeVar("State")


class Step(NamedTuple):
    """What follows from an action.

    Attributes:
      obs: the observation of the state that was reached, also on the last step of an episode.
      reward: a float32 scalar.
      terminated: a bool scalar, whether that state ends the task; nothing comes after it.
      truncated: a bool scalar, whether the episode ends for another reason, such as a time limit; more would have come.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array


class FunctionalEnv(Protocol[State]):
    """One environment whose state is a value.

    `reset` and `step` are pure, free of side effects and of decisions in Python that depend on arrays, so that they can be compiled,
    put into `jax.lax.scan`, and mapped over N environments with `jax.vmap`. They do not begin another episode when one ends: who calls
    them chooses between the state reached and that of a reset. What follows a step after the end is not defined.

    A state is a NamedTuple of arrays (or another pytree) whose shapes and dtypes never change. The object itself is constant and
    hashable, a frozen dataclass for example; equal ones share their compiled functions.

    Attributes:
      observation_space: of one environment.
      action_space: of one environment.
    """

    @property
    def observation_space(self) -> gym.Space: ...  # noqa: D102

    @property
    def action_space(self) -> gym.Space: ...  # noqa: D102

    def reset(self, key: Array) -> tuple[State, PyTree]:
        """Begins an episode; returns its state and first observation."""
        ...

    def step(self, state: State, action: Array, key: Array) -> tuple[State, Step]:
        """Takes an action; returns the state that follows, and what can be seen of it."""
        ...


class FunctionalGymEnv(gym.Env):
    """A functional environment as a `gym.Env`, with `reset` and `step` compiled.

    Args:
      env: the functional environment. If it has a method `render(state)`, which returns an RGB image, it can be rendered.
      render_mode: "rgb_array" or None.
    """

    def __init__(self, env: FunctionalEnv, render_mode: str | None = None):
        modes = ["rgb_array"] if hasattr(env, "render") else []
        self.metadata = {"render_modes": modes, "render_fps": 10}
        if render_mode not in (None, *modes):
            raise ValueError(f"render_mode={render_mode!r} is unknown; choose one of {', '.join(map(repr, [None, *modes]))}.")
        self.env, self.render_mode = env, render_mode
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Begins an episode; without a seed the random numbers go on where they were."""
        super().reset(seed=seed, options=options)
        key = jax.random.key(self.np_random.integers(2**32, dtype=np.uint32))
        self._key, self._state, obs = _reset(self.env, key)
        return _element(self.observation_space, obs), {}

    def step(self, action: Any) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Takes an action."""
        action = np.asarray(action, spaces.dtype(self.action_space))
        self._key, self._state, step = _step(self.env, self._key, self._state, action)
        obs, reward, terminated, truncated = jax.device_get(step)
        return _element(self.observation_space, obs), float(reward), bool(terminated), bool(truncated), {}

    def render(self) -> np.ndarray | None:
        """The current state as an RGB image."""
        return np.array(self.env.render(self._state)) if self.render_mode else None  # type: ignore[attr-defined]


@partial(jax.jit, static_argnums=0)
def _reset(env: FunctionalEnv[State], key: Array) -> tuple[Array, State, PyTree]:
    reset_key, key = jax.random.split(key)
    return key, *env.reset(reset_key)


@partial(jax.jit, static_argnums=0)
def _step(env: FunctionalEnv[State], key: Array, state: State, action: Array) -> tuple[Array, State, Step]:
    step_key, key = jax.random.split(key)
    return key, *env.step(state, action, step_key)


def _element(space: gym.Space, arrays: PyTree) -> PyTree:
    """Arrays as an element of a space, of the type that it promises and free to be written to."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _element(part, arrays[name]) for name, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_element(part, array) for part, array in zip(space, arrays, strict=True))
    element = np.array(arrays, space.dtype)
    return element[()] if isinstance(space, gym.spaces.Discrete) else element
