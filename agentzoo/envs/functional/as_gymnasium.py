"""Functional environments as Gymnasium's ordinary and vector environments, and the way back."""

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
    """A functional environment as a `gym.Env`, with `reset` and `step` compiled.

    Args:
      env: the functional environment. If it has a method `render(state)`, which returns an RGB
        image, it can be rendered.
      render_mode: "rgb_array" or None.
    """

    def __init__(self, env: FunctionalEnv, render_mode: str | None = None):
        self.metadata = _metadata(env, render_mode)
        self.env, self.render_mode = env, render_mode
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.env_state: EnvState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Begins an episode; without a seed the random numbers go on where they were."""
        super().reset(seed=seed, options=options)
        key = (
            draw_key(self.np_random)
            if seed is not None or self.env_state is None
            else self.env_state.key
        )
        self.env_state, obs = _begin(self.env, key)
        return _element(self.observation_space, obs), {}

    def step(self, action: Any) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Takes an action."""
        action = np.asarray(action, spaces.dtype(self.action_space))
        self.env_state, step = _advance(self.env, self.env_state, action)
        obs, reward, terminated, truncated = jax.device_get(step)
        return (
            _element(self.observation_space, obs),
            float(reward),
            bool(terminated),
            bool(truncated),
            {},
        )

    def render(self) -> np.ndarray | None:
        """The current state as an RGB image."""
        return np.array(self.env.render(self.env_state.state)) if self.render_mode else None  # type: ignore[attr-defined]


class FunctionalVectorEnv(gym.vector.VectorEnv):
    """N functional environments as a `VectorEnv`, stepped by one program.

    Where an episode ends, the next begins in the same step.

    Args:
      env: the functional environment.
      num_envs: how many, N.
      render_mode: "rgb_array" or None.
    """

    def __init__(self, env: FunctionalEnv, num_envs: int, render_mode: str | None = None):
        self.metadata = {**_metadata(env, render_mode), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.env, self.num_envs, self.render_mode = env, num_envs, render_mode
        self.single_observation_space, self.single_action_space = (
            env.observation_space,
            env.action_space,
        )
        self.observation_space, self.action_space = (
            batch_space(space, num_envs) for space in (env.observation_space, env.action_space)
        )
        self.env_states: EnvState | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Begins episodes; environment i is seeded with `seed + i`, or `seed[i]`.

        Without a seed the random numbers go on.
        """
        keys = (
            draw_keys(seed, self.num_envs)
            if seed is not None or self.env_states is None
            else self.env_states.key
        )
        self.env_states, obs = _begin_all(self.env, keys)
        return jax.tree.map(np.array, obs), {}

    def step(
        self, actions: Any
    ) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes an action in each environment."""
        actions = np.asarray(actions, spaces.dtype(self.single_action_space))
        self.env_states, obs, step = _advance_all(self.env, self.env_states, actions)
        obs, final_obs, reward, terminated, truncated = jax.tree.map(np.array, (obs, *step))
        ended = terminated | truncated
        info = {"final_obs": final_obs, "_final_obs": ended} if ended.any() else {}
        return obs, reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The current states as RGB images."""
        if not self.render_mode:
            return None
        return tuple(np.array(jax.vmap(self.env.render)(self.env_states.state)))  # type: ignore[attr-defined]


def draw_key(rng: np.random.Generator) -> Array:
    """The key of an environment that was seeded as Gymnasium does it."""
    return jax.random.key(rng.integers(2**32, dtype=np.uint32))


def draw_keys(seed: int | list[int | None] | None, num_envs: int) -> Array:
    """The keys `[N]` of environments that were seeded each with its own number: `seed + i`, `seed[i]`, or one that is drawn."""
    seeds = (
        seed
        if isinstance(seed, list)
        else [None if seed is None else seed + i for i in range(num_envs)]
    )
    return jnp.stack([draw_key(seeding.np_random(one)[0]) for one in seeds])


def find_functional(env: gym.Env) -> FunctionalEnv | None:
    """The functional environment that a `gym.Env` consists of, or None where anything written in Python has a part in it."""
    if isinstance(env, FunctionalGymEnv):
        return env.env
    if isinstance(env, wrappers.TimeLimit):
        inner = find_functional(env.env)
        return None if inner is None else TimeLimit(inner, env._max_episode_steps)
    if isinstance(env, wrappers.OrderEnforcing | wrappers.PassiveEnvChecker):
        return find_functional(env.env)
    return adapters.FuncEnvAdapter(env.func_env) if isinstance(env, FunctionalJaxEnv) else None


def _metadata(env: FunctionalEnv, render_mode: str | None) -> dict[str, Any]:
    modes = ["rgb_array"] if hasattr(env, "render") else []
    if render_mode not in (None, *modes):
        raise ValueError(
            f"render_mode={render_mode!r} is unknown; choose one of {', '.join(map(repr, [None, *modes]))}."
        )
    return {"render_modes": modes, "render_fps": 10}


_begin = jax.jit(stepping.begin, static_argnums=0)
_begin_all = jax.jit(stepping.begin_all, static_argnums=0)
_advance = jax.jit(stepping.advance, static_argnums=0)
_advance_all = jax.jit(stepping.advance_all, static_argnums=0)


def _element(space: gym.Space, arrays: PyTree) -> PyTree:
    """Arrays as an element of a space, of the type that it promises and free to be written to."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _element(part, arrays[name]) for name, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_element(part, array) for part, array in zip(space, arrays, strict=True))
    element = np.array(arrays, space.dtype)
    return element[()] if isinstance(space, gym.spaces.Discrete) else element
