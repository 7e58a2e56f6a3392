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
    """What follows from an action.

    Attributes:
      obs: the observation of the state that was reached, also on the last step of an episode.
      reward: a float32 scalar.
      terminated: a bool scalar, whether that state ends the task; nothing comes after it.
      truncated: a bool scalar, whether the episode ends for another reason, such as a time limit;
        more would have come.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array


class FunctionalEnv(Protocol[State]):
    """One environment whose state is a value.

    `reset` and `step` are pure, free of side effects and of decisions in Python that depend on
    arrays, so that they can be compiled, put into `jax.lax.scan`, and mapped over N environments
    with `jax.vmap`. They do not begin another episode when one ends: who calls them chooses between
    the state reached and that of a reset. What follows a step after the end is not defined.

    A state is a NamedTuple of arrays (or another pytree) whose shapes and dtypes never change. The
    object itself is constant and hashable, a frozen dataclass for example; equal ones share their
    compiled functions.

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


@dataclass(frozen=True)
class TimeLimit(Generic[State]):
    """Truncates the episodes of a functional environment.

    Attributes:
      env: the environment.
      max_episode_steps: after how many steps.
    """

    env: FunctionalEnv[State]
    max_episode_steps: int

    @property
    def observation_space(self) -> gym.Space:
        """That of the environment."""
        return self.env.observation_space

    @property
    def action_space(self) -> gym.Space:
        """That of the environment."""
        return self.env.action_space

    def reset(self, key: Array) -> tuple[tuple[State, Array], PyTree]:
        """Begins an episode and its count of steps."""
        state, obs = self.env.reset(key)
        return (state, jnp.int32(0)), obs

    def step(
        self, state: tuple[State, Array], action: Array, key: Array
    ) -> tuple[tuple[State, Array], Step]:
        """Takes an action."""
        inner, step = self.env.step(state[0], action, key)
        t = state[1] + 1
        return (inner, t), step._replace(truncated=step.truncated | (t >= self.max_episode_steps))
