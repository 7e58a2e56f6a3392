"""Stepping of functional environments: random keys, and resets where an episode ends."""

from functools import partial
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp

from agentzoo.envs import spaces
from agentzoo.envs.functional.api import FunctionalEnv, Step
from agentzoo.types import Array, ConfigurationError, PyTree


class EnvState(NamedTuple):
    """The state of one functional environment between two steps.

    Together with the actions, it determines everything that follows. Saved files contain the names
    of its fields.

    Attributes:
      key: random key of the rest of this episode and of all later episodes.
      t: int32, number of steps since the episode began.
      state: what the environment's own `reset` or `step` returned as its state.
    """

    key: Array
    t: Array
    state: PyTree


def begin(env: FunctionalEnv, key: Array) -> tuple[EnvState, PyTree]:
    """Begin an episode, and return the state of the environment and the first observation."""
    reset_key, key = jax.random.split(key)
    state, obs = env.reset(reset_key)
    return EnvState(key, jnp.int32(0), state), _as_stored(env.observation_space, obs)


def advance(env: FunctionalEnv, env_state: EnvState, action: Array) -> tuple[EnvState, Step]:
    """Take an action, and return the state that follows, which may be the last of its episode."""
    # Step t has the key number t + 2. The numbers 0 and 1 belong to the next reset, because
    # `split` in `begin` derives its two keys from the same key. XLA removes this line from
    # programs of environments that do not use the key.
    step_key = jax.random.fold_in(env_state.key, env_state.t + 2)
    state, result = env.step(env_state.state, action, step_key)
    step = Step(*result)
    step = Step(
        obs=_as_stored(env.observation_space, step.obs),
        reward=jnp.float32(step.reward),
        terminated=jnp.bool_(step.terminated),
        truncated=jnp.bool_(step.truncated),
    )
    return EnvState(env_state.key, env_state.t + 1, state), step


def begin_all(env: FunctionalEnv, keys: Array) -> tuple[EnvState, PyTree]:
    """Begin an episode in each of N environments.

    Args:
      env: the environment.
      keys: `[N]`, one random key for each environment.

    Returns:
      The states and the first observations, both `[N, ...]`.
    """
    return jax.vmap(partial(begin, env))(keys)


def advance_all(
    env: FunctionalEnv, env_states: EnvState, actions: Array
) -> tuple[EnvState, PyTree, Step]:
    """Take an action in each of N environments, and begin the next episode where one ends.

    Args:
      env: the environment.
      env_states: `[N, ...]`, the states.
      actions: `[N, ...]`, the actions.

    Returns:
      The states that follow, the observations to act on next, and the steps, all `[N, ...]`.
      Where an episode ends, the state and the observation are those of the next episode, and
      `obs` of the step is the last observation of the episode that ended.
    """
    env_states, step = jax.vmap(partial(advance, env))(env_states, actions)
    ended = step.terminated | step.truncated

    def choose(new: Array, old: Array) -> Array:  # [N, ...]
        # `ended` gets trailing axes of size 1, so that it broadcasts against `old`.
        return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

    def begin_some() -> tuple[EnvState, PyTree]:
        return jax.tree.map(choose, begin_all(env, env_states.key), (env_states, step.obs))

    env_states, obs = jax.lax.cond(ended.any(), begin_some, lambda: (env_states, step.obs))
    return env_states, obs, step


def _as_stored(space: gym.Space, obs: PyTree) -> PyTree:
    """Return an observation in the dtypes in which agents store it.

    Raises:
      ConfigurationError: if the shape or the kind of dtype does not match the space.
    """
    if isinstance(space, gym.spaces.Dict):
        return {name: _as_stored(part, obs[name]) for name, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_as_stored(part, obs[i]) for i, part in enumerate(space))
    dtype = spaces.dtype(space)
    wrong_kind = dtype.kind in "biu" and jnp.asarray(obs).dtype.kind not in "biu"
    if jnp.shape(obs) != space.shape or wrong_kind:
        raise ConfigurationError(
            f"The functional environment returned an observation of shape {jnp.shape(obs)} and "
            f"dtype {jnp.asarray(obs).dtype}, but its observation_space is {space}. Correct one "
            "of the two."
        )
    return jnp.asarray(obs, dtype)
