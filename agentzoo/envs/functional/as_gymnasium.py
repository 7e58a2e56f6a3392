"""Conversion of functional environments to `gymnasium.Env` and `VectorEnv`, and back."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.functional_jax_env import FunctionalJaxEnv
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from agentzoo.envs import spaces
from agentzoo.envs.functional import adapters, stepping
from agentzoo.envs.functional.api import FunctionalEnv, TimeLimit
from agentzoo.envs.functional.stepping import EnvState
from agentzoo.types import Array, PyTree


class FunctionalGymEnv(gym.Env):
    """A functional environment as a `gym.Env`, with compiled `reset` and `step`.

    Args:
      env: the functional environment. It can be rendered if it has a method `render(state)`, which
        returns an RGB image.
      render_mode: "rgb_array" or None.

    Attributes:
      env_state: the state of the environment, or None before the first `reset`.
      key: the random key with which the episode began.

    Raises:
      ValueError: if the environment does not support the render mode.
    """

    def __init__(self, env: FunctionalEnv, render_mode: str | None = None):
        self.metadata = _metadata(env, render_mode)
        self.env, self.render_mode = env, render_mode
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.env_state: EnvState | None = None
        self.key: Array | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Begin an episode. Without a seed, the random numbers continue.

        The entry "key" of `options` is a random key to begin with, instead of a seed.
        """
        super().reset(seed=seed, options=options)
        if options and "key" in options:
            self.key = options["key"]
        elif seed is not None or self.env_state is None:
            self.key = draw_key(self.np_random)
        else:
            self.key = self.env_state.key
        self.env_state, obs = _begin(self.env, self.key)
        return _element(self.observation_space, obs), {}

    def step(self, action: Any) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Take an action."""
        action = np.asarray(action, spaces.dtype(self.action_space))
        self.env_state, step = _advance(self.env, self.env_state, action)
        step = jax.device_get(step)
        obs = _element(self.observation_space, step.obs)
        return obs, float(step.reward), bool(step.terminated), bool(step.truncated), {}

    def render(self) -> np.ndarray | None:
        """Return an RGB image of the current state, or None without a render mode."""
        if not self.render_mode:
            return None
        return np.array(self.env.render(self.env_state.state))  # type: ignore[attr-defined]


class FunctionalVectorEnv(gym.vector.VectorEnv):
    """N functional environments as a `VectorEnv`, which one compiled program steps.

    Where an episode ends, the next episode begins in the same step.

    Args:
      env: the functional environment.
      num_envs: number of environments, N.
      render_mode: "rgb_array" or None.

    Attributes:
      env_states: the states `[N, ...]` of the environments, or None before the first `reset`.

    Raises:
      ValueError: if the environment does not support the render mode.
    """

    def __init__(self, env: FunctionalEnv, num_envs: int, render_mode: str | None = None):
        self.metadata = {**_metadata(env, render_mode), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.env, self.num_envs, self.render_mode = env, num_envs, render_mode
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self.env_states: EnvState | None = None

    def example_states(self) -> EnvState:
        """Return states with the structure, shapes and dtypes of `env_states`."""
        return _begin_all(self.env, draw_keys(0, self.num_envs))[0]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Begin episodes; environment i is seeded with `seed + i`, or `seed[i]`.

        Without a seed, the random numbers continue.
        """
        if seed is not None or self.env_states is None:
            keys = draw_keys(seed, self.num_envs)
        else:
            keys = self.env_states.key
        self.env_states, obs = _begin_all(self.env, keys)
        return jax.tree.map(np.array, obs), {}

    def step(
        self, actions: Any
    ) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action in each environment."""
        actions = np.asarray(actions, spaces.dtype(self.single_action_space))
        self.env_states, obs, step = _advance_all(self.env, self.env_states, actions)
        obs, step = jax.tree.map(np.array, (obs, step))
        ended = step.terminated | step.truncated
        info = {"final_obs": step.obs, "_final_obs": ended} if ended.any() else {}
        return obs, step.reward, step.terminated, step.truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return an RGB image of each current state, or None without a render mode."""
        if not self.render_mode:
            return None
        assert self.env_states is not None, "reset comes before render"
        render = jax.vmap(self.env.render)  # type: ignore[attr-defined]
        return tuple(np.array(render(self.env_states.state)))


def draw_key(rng: np.random.Generator) -> Array:
    """Draw the random key of an environment from its generator, which Gymnasium has seeded."""
    return jax.random.key(rng.integers(2**32, dtype=np.uint32))


def draw_keys(seed: int | list[int | None] | None, num_envs: int) -> Array:
    """Draw the random keys of N environments.

    Args:
      seed: environment i is seeded with `seed + i`, or with `seed[i]`. None stands for a seed that
        the operating system chooses.
      num_envs: number of environments, N.

    Returns:
      The keys `[N]`.
    """
    if isinstance(seed, list):
        seeds = seed
    else:
        seeds = [None if seed is None else seed + i for i in range(num_envs)]
    return jnp.stack([draw_key(seeding.np_random(one)[0]) for one in seeds])


def find_functional(env: gym.Env) -> FunctionalEnv | None:
    """Return the functional environment inside of a `gym.Env`.

    Returns:
      The functional environment, or None if Python code takes part in the environment.
    """
    if isinstance(env, FunctionalGymEnv):
        return env.env
    if isinstance(env, wrappers.TimeLimit):
        inner = find_functional(env.env)
        return None if inner is None else TimeLimit(inner, env._max_episode_steps)
    if isinstance(env, wrappers.OrderEnforcing | wrappers.PassiveEnvChecker):
        return find_functional(env.env)
    return adapters.FuncEnvAdapter(env.func_env) if isinstance(env, FunctionalJaxEnv) else None


def _metadata(env: FunctionalEnv, render_mode: str | None) -> dict[str, Any]:
    """Return the metadata that Gymnasium expects, after a check of the render mode."""
    modes = ["rgb_array"] if hasattr(env, "render") else []
    if render_mode not in (None, *modes):
        raise ValueError(
            f"render_mode={render_mode!r} is unknown. Choose one of "
            f"{', '.join(map(repr, [None, *modes]))}."
        )
    return {"render_modes": modes, "render_fps": 10}


_begin = jax.jit(stepping.begin, static_argnums=0)
_begin_all = jax.jit(stepping.begin_all, static_argnums=0)
_advance = jax.jit(stepping.advance, static_argnums=0)
_advance_all = jax.jit(stepping.advance_all, static_argnums=0)


def _element(space: gym.Space, arrays: PyTree) -> PyTree:
    """Return arrays as an element of a space, with its dtypes and in memory that can be written."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _element(part, arrays[name]) for name, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_element(part, array) for part, array in zip(space, arrays, strict=True))
    element = np.array(arrays, space.dtype)
    return element[()] if isinstance(space, gym.spaces.Discrete) else element
