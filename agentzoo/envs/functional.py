"""Environments as pure functions, to be compiled together with an agent, and how they become ordinary ones.

Gymnasium's `experimental.functional.FuncEnv` has the same spirit and cuts finer: `initial` and
`observation` are `reset` here, and `transition`, `observation`, `reward` and `terminal` are `step`,
which computes what they share once and can tell a truncation from a termination. Parameters of an
environment are fields of the object that implements the protocol.
"""

from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import jax
import jax.numpy as jnp

from agentzoo.envs import spaces
from agentzoo.types import Array, ConfigurationError, PyTree

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


class World(NamedTuple):
    """A functional environment in the middle of an episode.

    All that can happen follows from it and the actions.

    Attributes:
      key: the randomness of the rest of this episode, and of those that follow.
      t: int32, steps since the episode began.
      state: of the environment.
    """

    key: Array
    t: Array
    state: PyTree


def begin(env: FunctionalEnv, key: Array) -> tuple[World, PyTree]:
    """Begins an episode; returns the world and its first observation."""
    reset_key, key = jax.random.split(key)
    state, obs = env.reset(reset_key)
    return World(key, jnp.int32(0), state), _typed(env.observation_space, obs)


def advance(env: FunctionalEnv, world: World, action: Array) -> tuple[World, Step]:
    """Takes an action. The world that follows may be at the end of its episode."""
    step_key = jax.random.fold_in(
        world.key, world.t + 2
    )  # 0 and 1 begin the next episode; not computed for environments without chance
    state, (obs, reward, terminated, truncated) = env.step(world.state, action, step_key)
    step = Step(
        _typed(env.observation_space, obs),
        jnp.float32(reward),
        jnp.bool_(terminated),
        jnp.bool_(truncated),
    )
    return World(world.key, world.t + 1, state), step


def begin_all(env: FunctionalEnv, keys: Array) -> tuple[World, PyTree]:
    """Begins an episode in each of N environments; returns worlds and observations `[N, ...]`."""
    return jax.vmap(partial(begin, env))(keys)


def advance_all(env: FunctionalEnv, worlds: World, actions: Array) -> tuple[World, PyTree, Step]:
    """Takes an action in each of N environments, and begins the next episode where one ends.

    Returns:
      The worlds, the observations to act on next, and the steps, whose observations are the true
      successors.
    """
    worlds, step = jax.vmap(partial(advance, env))(worlds, actions)
    ended = step.terminated | step.truncated

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

    def begin_some() -> tuple[World, PyTree]:
        return jax.tree.map(choose, begin_all(env, worlds.key), (worlds, step.obs))

    worlds, obs = jax.lax.cond(ended.any(), begin_some, lambda: (worlds, step.obs))
    return worlds, obs, step


def _typed(space: gym.Space, obs: PyTree) -> PyTree:
    """An observation in the dtypes that agents see."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _typed(part, obs[name]) for name, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_typed(part, obs[i]) for i, part in enumerate(space))
    dtype = spaces.dtype(space)
    wrong_kind = dtype.kind in "biu" and jnp.asarray(obs).dtype.kind not in "biu"
    if jnp.shape(obs) != space.shape or wrong_kind:
        raise ConfigurationError(
            f"The functional environment returned an observation of shape {jnp.shape(obs)} and dtype "
            f"{jnp.asarray(obs).dtype}, but its observation_space promises {space}; correct one of the two."
        )
    return jnp.asarray(obs, dtype)
