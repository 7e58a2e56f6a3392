"""The interface of environments that are written in JAX as pure functions.

Gymnasium's `experimental.functional.FuncEnv` is similar but has more methods. Its `initial` and
`observation` correspond to `reset` here. Its `transition`, `observation`, `reward` and `terminal`
correspond to `step`, which computes shared values once and tells truncation from termination.
Parameters of an environment are fields of the object that implements `FunctionalEnv`.
"""

from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import jax.numpy as jnp

from agentzoo.types import Array, PyTree

State = TypeVar("State")


class Step(NamedTuple):
    """What the agent sees after an action.

    Attributes:
      obs: the observation of the state that the action led to, also on the last step of an episode.
      reward: float32 scalar.
      terminated: bool scalar, whether the state is terminal: no reward could follow.
      truncated: bool scalar, whether the episode ends for another reason, such as a time limit, so
        that more rewards could have followed.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array


class FunctionalEnv(Protocol[State]):
    """An environment as two pure functions, `reset` and `step`.

    The functions have no side effects, and no Python branch in them depends on an array. So they
    can be compiled, used in `jax.lax.scan`, and mapped over N environments with `jax.vmap`. `step`
    does not begin the next episode when one ends. The caller calls `reset` for this. The result of
    a step after the end of an episode is undefined.

    The state is a NamedTuple of arrays, or another pytree. Its shapes and dtypes never change. The
    environment itself is constant and hashable, for example a frozen dataclass. Equal environments
    share their compiled functions. An environment that can be rendered also has a method
    `render(state)`, which returns an RGB image.

    Attributes:
      observation_space: the space of observations.
      action_space: the space of actions.
    """

    @property
    def observation_space(self) -> gym.Space: ...  # noqa: D102

    @property
    def action_space(self) -> gym.Space: ...  # noqa: D102

    def reset(self, key: Array) -> tuple[State, PyTree]:
        """Begin an episode.

        Args:
          key: random key.

        Returns:
          The first state and the first observation.
        """
        ...

    def step(self, state: State, action: Array, key: Array) -> tuple[State, Step]:
        """Take an action.

        Args:
          state: the state in which the action is taken.
          action: an element of the action space.
          key: random key.

        Returns:
          The state that follows, and what the agent sees of it.
        """
        ...


@dataclass(frozen=True)
class TimeLimit(Generic[State]):
    """Truncates the episodes of a functional environment.

    Attributes:
      env: the environment.
      max_episode_steps: number of steps after which an episode is truncated.
    """

    env: FunctionalEnv[State]
    max_episode_steps: int

    @property
    def observation_space(self) -> gym.Space:
        """The space of the environment."""
        return self.env.observation_space

    @property
    def action_space(self) -> gym.Space:
        """The space of the environment."""
        return self.env.action_space

    def reset(self, key: Array) -> tuple[tuple[State, Array], PyTree]:
        """Begin an episode, and count its steps from 0."""
        state, obs = self.env.reset(key)
        return (state, jnp.int32(0)), obs

    def step(
        self, state: tuple[State, Array], action: Array, key: Array
    ) -> tuple[tuple[State, Array], Step]:
        """Take an action, and truncate the episode if it was the last one allowed."""
        inner, step = self.env.step(state[0], action, key)
        t = state[1] + 1
        return (inner, t), step._replace(truncated=step.truncated | (t >= self.max_episode_steps))
