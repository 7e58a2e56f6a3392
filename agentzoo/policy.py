"""A policy as a pure function of parameters and observations.

Unlike `Algorithm.predict`, the function keeps nothing between two calls and counts nothing, so that
it can be compiled, vectorised and exported.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from agentzoo.envs import spaces
from agentzoo.runners.programs import reset_memory, with_precision
from agentzoo.types import Agent, Array, ConfigurationError, EnvSpec, PyTree


class PolicyFunction:
    """The policy of an agent as a pure function.

    The function has no side effects, so that `jax.jit`, `jax.vmap` and `jax.lax.scan` can transform
    it. It scales and normalises observations as `predict` does, honours action masks,
    and returns actions that the environment accepts.

        action = agent.policy(agent.params, observation)

    Args:
      agent: the agent's functions.
      spec: what the agent knows of its environments.

    Attributes:
      initial_memory: the agent's `initial_memory`, including memory that no action depends on.
    """

    def __init__(self, agent: Agent, spec: EnvSpec):
        self._agent = agent
        self.initial_memory = agent.initial_memory
        self._spec = spec

    def __call__(
        self,
        params: PyTree,
        observation: PyTree,
        key: Array | None = None,
        state: PyTree = None,
        episode_start: Any = None,
    ) -> Any:
        """Return the action for an observation, or the actions for a batch of observations.

        Args:
          params: the parameters, such as `agent.params`.
          observation: an element of the observation space, or a batch of elements.
          key: a JAX random key, with which actions are drawn as during training, with the final
            exploration. None leaves out exploration, as `predict(..., deterministic=True)` does.
          state: the recurrent state, for agents with memory; None for the initial state.
          episode_start: whether the observation begins an episode, as an array for a batch. There,
            the recurrent state is reset. None resets nothing.

        Returns:
          The action, or a batch of actions. For agents with memory (`is_recurrent`), a tuple of the
          action and the next recurrent state.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        space = self._spec.observation_space
        batched = spaces.is_batched(space, observation)
        obs = _as_arrays(space, observation)
        if not batched:
            obs = jax.tree.map(_add_axis, obs)
        _check_shapes(space, obs)
        num = jax.tree.leaves(obs)[0].shape[0]
        if state is None:
            memory = self.initial_memory(num)
        else:
            memory = state if batched else jax.tree.map(_add_axis, state)
        if episode_start is not None and jax.tree.leaves(memory):
            first = jnp.broadcast_to(jnp.asarray(episode_start, bool), (num,))
            memory = reset_memory(self.initial_memory, memory, first)
        actions, memory = self.choose(params, memory, obs, key)
        if not batched:
            actions, memory = jax.tree.map(lambda x: x[0], (actions, memory))
        return (actions, memory) if self.is_recurrent else actions

    def choose(
        self, params: PyTree, memory: PyTree, obs: PyTree, key: Array | None
    ) -> tuple[Array, PyTree]:
        """Return the actions and the next memory for a batch of observations in agents' dtypes."""
        deterministic = key is None
        predict = with_precision(
            lambda *arguments: self._agent.predict(*arguments, deterministic=deterministic)
        )
        key = jax.random.key(0) if key is None else key
        actions, memory = predict(params, memory, obs, key)
        return spaces.to_elements(self._spec.action_space, actions), memory

    @property
    def is_recurrent(self) -> bool:
        """Whether actions depend on earlier observations, so that calls return a state, too."""
        return any(self.memory_in_use)

    def initial_state(self, batch_size: int | None = None) -> PyTree:
        """Return the recurrent state at the beginning of an episode, for `jax.lax.scan`.

        Args:
          batch_size: number of observations in a batch; None for a single observation.

        Returns:
          The state, or None for an agent without memory.
        """
        if not self.is_recurrent:
            return None
        memory = self.initial_memory(1 if batch_size is None else batch_size)
        return memory if batch_size is not None else jax.tree.map(lambda x: x[0], memory)

    @functools.cached_property
    def memory_in_use(self) -> tuple[bool, ...]:
        """Whether later actions depend on each leaf of the memory.

        They do not depend on the memory of a value function, nor on noise for exploration.
        """
        memory = self.initial_memory(1)
        leaves, structure = jax.tree.flatten(memory)
        if not leaves:
            return ()
        params = jax.eval_shape(lambda: self._agent.init(jax.random.key(0)).params)
        obs = spaces.shapes(self._spec.observation_space, 1)

        def step(leaves: list[Array], params: PyTree, obs: PyTree) -> tuple[Array, list[Array]]:
            actions, memory = self.choose(params, jax.tree.unflatten(structure, leaves), obs, None)
            return actions, jax.tree.leaves(memory)

        return _needed(jax.make_jaxpr(step)(leaves, params, obs).jaxpr, len(leaves))


def _needed(jaxpr: Any, count: int) -> tuple[bool, ...]:
    """Return which of the first `count` inputs affect the first output, in this step or later.

    Input i of a step is output i + 1 of the step before.
    """
    needed: Sequence[bool] = [False] * count
    while True:
        _, used = partial_eval.dce_jaxpr(jaxpr, [True, *needed])
        if list(used[:count]) == list(needed):
            return tuple(needed)
        needed = [a or b for a, b in zip(needed, used[:count], strict=True)]


def _add_axis(x: Any) -> Array:
    return jnp.asarray(x)[None]


def _as_arrays(space: Any, observation: PyTree) -> PyTree:
    """Return an observation, or a batch, as JAX arrays of the dtypes that agents see."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, dict):
        return {name: _as_arrays(part, observation[name]) for name, part in parts.items()}
    if parts is not None:
        return tuple(_as_arrays(part, observation[i]) for i, part in enumerate(parts))
    return jnp.asarray(observation, spaces.dtype(space))


def _check_shapes(space: Any, obs: PyTree) -> None:
    """Check that all parts of a batch of observations have the shapes of the space.

    Raises:
      ConfigurationError: if one has another shape.
    """
    num = jax.tree.leaves(obs)[0].shape[0]
    for found, wanted in zip(
        jax.tree.leaves(obs), jax.tree.leaves(spaces.shapes(space, num)), strict=True
    ):
        if found.shape != wanted.shape:
            raise ConfigurationError(
                f"A part of the observation has shape {found.shape[1:]} in a batch of "
                f"{found.shape[0]}. Expected {wanted.shape[1:]} in a batch of {num}, for {space}."
            )
