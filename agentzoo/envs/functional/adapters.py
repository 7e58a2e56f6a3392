"""Functional environments of others: Gymnasium's `FuncEnv` (`phys2d/...`, `tabular/...`), and those of gymnax and Brax."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array, ConfigurationError, PyTree


class FuncEnvAdapter:
    """An environment of `gymnasium.experimental.functional`, stepped as Gymnasium's own adapter does.

    Args:
      env: a `FuncEnv`. It has no truncation; `agentzoo.envs.TimeLimit` adds one, as
        `gymnasium.make` does.
    """

    def __init__(self, env: Any):
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def __repr__(self) -> str:
        return f"FuncEnvAdapter({type(self.env).__name__}, {self.env.default_params})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begins an episode."""
        state = jax.tree.map(jnp.asarray, self.env.initial(key))
        return state, self.env.observation(state, key)

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Takes an action."""
        after = _as_before(self.env.transition(state, action, key), state)
        reward, terminated = (
            self.env.reward(state, action, after, key),
            self.env.terminal(after, key),
        )
        return after, Step(
            self.env.observation(after, key),
            jnp.reshape(reward, ()),
            jnp.reshape(terminated, ()),
            jnp.bool_(False),
        )


class GymnaxAdapter:
    """An environment of gymnax, 0.0.9 or 1.0.

    gymnax 0.0 does not tell a time limit from a termination: what is not over without
    `max_steps_in_episode` was truncated.

    Args:
      env: what `gymnax.make` returns first.
      params: what it returns second; those of the environment by default.
    """

    def __init__(self, env: Any, params: Any = None):
        self.env, self.params = env, env.default_params if params is None else params
        self.observation_space = _space(env.observation_space(self.params))
        self.action_space = _space(env.action_space(self.params))

    def __repr__(self) -> str:
        return f"GymnaxAdapter({self.env.name}, {self.params})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begins an episode."""
        obs, state = self.env.reset_env(key, self.params)
        return jax.tree.map(jnp.asarray, state), obs

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Takes an action, without the reset that gymnax's own `step` makes."""
        obs, after, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        if hasattr(self.env, "is_truncated"):  # since 1.0
            truncated = self.env.is_truncated(after, self.params)
        else:
            limited = hasattr(self.params, "max_steps_in_episode")
            endless = (
                self.params.replace(max_steps_in_episode=jnp.iinfo(jnp.int32).max)
                if limited
                else self.params
            )
            ended, terminated = terminated, terminated & self.env.is_terminal(after, endless)
            truncated = ended & ~terminated
        return _as_before(after, state), Step(
            obs, jnp.reshape(reward, ()), jnp.reshape(terminated, ()), jnp.reshape(truncated, ())
        )


class BraxAdapter:
    """An environment of Brax, with actions in [-1, 1].

    Args:
      env: what `brax.envs.create(name, auto_reset=False)` returns, with its time limit of
        `episode_length` steps, or `brax.envs.get_environment`, which has none.

    Raises:
      ConfigurationError: if the environment begins its next episode on its own, or is a batch of
        several.
    """

    def __init__(self, env: Any):
        part, limit = env, "none"
        while hasattr(part, "env"):
            if type(part).__name__ in ("AutoResetWrapper", "VmapWrapper"):
                raise ConfigurationError(
                    f"Brax's {type(part).__name__} leaves no last observation to learn from, or does what n_envs does; make the "
                    "environment with brax.envs.create(name, auto_reset=False) and no batch_size."
                )
            limit, part = getattr(part, "episode_length", limit), part.env
        settings = {
            name.lstrip("_"): value for name, value in vars(part).items() if _is_plain(value)
        }
        self.env, self._name = (
            env,
            f"{type(part).__name__}, {settings | {'backend': env.backend, 'episode_length': limit}}",
        )
        self.observation_space = _box(env.observation_size)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)

    def __repr__(self) -> str:
        return f"BraxAdapter({self._name})"

    def reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begins an episode."""
        state = self.env.reset(key)
        return state, state.obs

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, Step]:
        """Takes an action."""
        after = self.env.step(
            jax.tree.map(lambda x: x, state), action
        )  # a copy, since Brax writes into dictionaries
        truncated = after.info.get("truncation", jnp.zeros(())) > 0
        return _as_before(after, state), Step(
            after.obs, after.reward, (after.done > 0) & ~truncated, truncated
        )


def adapt(env: Any) -> Any:
    """An environment of others as a functional one; whatever is none, as it is."""
    if all(hasattr(env, name) for name in ("observation_size", "action_size", "backend")):
        return BraxAdapter(env)
    made = isinstance(env, tuple) and len(env) == 2  # by `gymnax.make`
    if hasattr(env[0] if made else env, "step_env"):
        return GymnaxAdapter(*env) if made else GymnaxAdapter(env)
    return (
        FuncEnvAdapter(env)
        if all(hasattr(env, name) for name in ("initial", "transition", "terminal"))
        else env
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a number or a text, or a tuple of such."""
    return all(
        isinstance(x, bool | int | float | str)
        for x in (value if isinstance(value, tuple) else (value,))
    )


def _as_before(after: PyTree, before: PyTree) -> PyTree:
    """A state in the dtypes of the one before it."""
    return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, before)


def _box(size: Any) -> gym.Space:
    """The space of Brax's observations, by their size or the sizes of their parts."""
    if isinstance(size, Mapping):
        return gym.spaces.Dict({name: _box(part) for name, part in size.items()})
    return gym.spaces.Box(
        -np.inf, np.inf, (size,) if isinstance(size, int) else tuple(size), np.float32
    )


def _space(space: Any) -> gym.Space:
    """A space of gymnax as one of Gymnasium."""
    if isinstance(space, gym.Space):
        return space
    kind = type(space).__name__
    if kind == "Discrete":
        return gym.spaces.Discrete(int(space.n))
    if kind == "Box":
        low, high = (
            np.broadcast_to(np.asarray(bound, space.dtype), space.shape)
            for bound in (space.low, space.high)
        )
        return gym.spaces.Box(low, high, tuple(space.shape), np.dtype(space.dtype).type)
    if kind == "Dict":
        return gym.spaces.Dict({name: _space(part) for name, part in space.spaces.items()})
    if kind == "Tuple":
        return gym.spaces.Tuple([_space(part) for part in space.spaces])
    raise ConfigurationError(
        f"gymnax's space {space} is not supported; expected Discrete, Box, Dict or Tuple."
    )
