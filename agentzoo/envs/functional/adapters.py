"""Adapters for functional environments of other libraries.

They adapt Gymnasium's `FuncEnv` (`phys2d/...` and `tabular/...`), gymnax and Brax.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array, ConfigurationError, PyTree


class FuncEnvAdapter:
    """A `FuncEnv` of `gymnasium.experimental.functional`, stepped as Gymnasium's adapter does.

    Args:
      env: the `FuncEnv`. Its episodes are never truncated. `agentzoo.envs.TimeLimit` adds a time
        limit, as `gymnasium.make` does.
    """

    def __init__(self, env: Any):
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def __repr__(self) -> str:
        return f"FuncEnvAdapter({type(self.env).__name__}, {self.env.default_params})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        state = jax.tree.map(jnp.asarray, self.env.initial(key))
        return state, self.env.observation(state, key)

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Take an action."""
        after = _as_before(self.env.transition(state, action, key), state)
        return after, Step(
            obs=self.env.observation(after, key),
            reward=jnp.reshape(self.env.reward(state, action, after, key), ()),
            terminated=jnp.reshape(self.env.terminal(after, key), ()),
            truncated=jnp.bool_(False),
        )


class GymnaxAdapter:
    """An environment of gymnax, 0.0.9 or 1.0.

    gymnax 0.0 does not tell a time limit from a termination. The adapter treats the end of an
    episode as a truncation if the episode would go on without `max_steps_in_episode`.

    Args:
      env: the environment that `gymnax.make` returns.
      params: the parameters that `gymnax.make` returns, by default the environment's own.
    """

    def __init__(self, env: Any, params: Any = None):
        self.env = env
        self.params = env.default_params if params is None else params
        self.observation_space = _space(env.observation_space(self.params))
        self.action_space = _space(env.action_space(self.params))

    def __repr__(self) -> str:
        return f"GymnaxAdapter({self.env.name}, {self.params})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        obs, state = self.env.reset_env(key, self.params)
        return jax.tree.map(jnp.asarray, state), obs

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Take an action, without the reset at the end of an episode in gymnax's own `step`."""
        obs, after, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        if hasattr(self.env, "is_truncated"):  # since 1.0
            truncated = self.env.is_truncated(after, self.params)
        else:
            endless = self.params
            if hasattr(endless, "max_steps_in_episode"):
                endless = endless.replace(max_steps_in_episode=jnp.iinfo(jnp.int32).max)
            ended = terminated
            terminated = ended & self.env.is_terminal(after, endless)
            truncated = ended & ~terminated
        return _as_before(after, state), Step(
            obs=obs,
            reward=jnp.reshape(reward, ()),
            terminated=jnp.reshape(terminated, ()),
            truncated=jnp.reshape(truncated, ()),
        )


class BraxAdapter:
    """An environment of Brax, with actions in [-1, 1].

    Args:
      env: what `brax.envs.create(name, auto_reset=False)` returns, with a time limit of
        `episode_length` steps, or what `brax.envs.get_environment` returns, without a time limit.

    Raises:
      ConfigurationError: if the environment resets itself at the end of an episode, or is a batch
        of environments.
    """

    def __init__(self, env: Any):
        # Brax's wrappers, from the outermost to the environment itself.
        part, limit = env, "none"
        while hasattr(part, "env"):
            if type(part).__name__ in ("AutoResetWrapper", "VmapWrapper"):
                raise ConfigurationError(
                    f"The environment has Brax's {type(part).__name__}, which hides the last "
                    "observation of an episode or steps several environments. Make it with "
                    "brax.envs.create(name, auto_reset=False), without batch_size, and use n_envs."
                )
            limit, part = getattr(part, "episode_length", limit), part.env
        settings = {
            name.lstrip("_"): value for name, value in vars(part).items() if _is_plain(value)
        }
        settings |= {"backend": env.backend, "episode_length": limit}
        self.env = env
        self._name = f"{type(part).__name__}, {settings}"
        self.observation_space = _box(env.observation_size)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)

    def __repr__(self) -> str:
        return f"BraxAdapter({self._name})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        state = self.env.reset(key)
        return state, state.obs

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Take an action."""
        copied = jax.tree.map(lambda x: x, state)  # because Brax writes into dictionaries
        after = self.env.step(copied, action)
        truncated = after.info.get("truncation", jnp.zeros(())) > 0
        terminated = (after.done > 0) & ~truncated
        return _as_before(after, state), Step(after.obs, after.reward, terminated, truncated)


def adapt(env: Any) -> Any:
    """Return an environment of Gymnasium, gymnax or Brax as a functional environment.

    Args:
      env: an environment, or a pair of environment and parameters that `gymnax.make` returned. Any
        other object is returned as it is.
    """
    if all(hasattr(env, name) for name in ("observation_size", "action_size", "backend")):
        return BraxAdapter(env)
    if isinstance(env, tuple) and len(env) == 2 and hasattr(env[0], "step_env"):
        return GymnaxAdapter(*env)
    if hasattr(env, "step_env"):
        return GymnaxAdapter(env)
    if all(hasattr(env, name) for name in ("initial", "transition", "terminal")):
        return FuncEnvAdapter(env)
    return env


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number or a string, or a tuple of these."""
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(x, bool | int | float | str) for x in values)


def _as_before(after: PyTree, before: PyTree) -> PyTree:
    """Return a state with the dtypes of the state before it, as `jax.lax.scan` needs them."""
    return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, before)


def _box(size: Any) -> gym.Space:
    """Return the space of Brax's observations from their size, or from the sizes of their parts."""
    if isinstance(size, Mapping):
        return gym.spaces.Dict({name: _box(part) for name, part in size.items()})
    return gym.spaces.Box(
        -np.inf, np.inf, (size,) if isinstance(size, int) else tuple(size), np.float32
    )


def _space(space: Any) -> gym.Space:
    """Return a space of gymnax as a space of Gymnasium."""
    if isinstance(space, gym.Space):
        return space
    kind = type(space).__name__
    if kind == "Discrete":
        return gym.spaces.Discrete(int(space.n))
    if kind == "Box":
        low = np.broadcast_to(np.asarray(space.low, space.dtype), space.shape)
        high = np.broadcast_to(np.asarray(space.high, space.dtype), space.shape)
        return gym.spaces.Box(low, high, tuple(space.shape), np.dtype(space.dtype).type)
    if kind == "Dict":
        return gym.spaces.Dict({name: _space(part) for name, part in space.spaces.items()})
    if kind == "Tuple":
        return gym.spaces.Tuple([_space(part) for part in space.spaces])
    raise ConfigurationError(
        f"gymnax's space {space} is not supported. Use Discrete, Box, Dict or Tuple."
    )
