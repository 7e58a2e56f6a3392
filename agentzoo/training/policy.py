"""Asking an agent for actions and values, outside of training."""

import functools
from typing import Any

import jax
import numpy as np

from agentzoo.envs import checking, spaces
from agentzoo.policy import PolicyFunction
from agentzoo.runners import Programs
from agentzoo.types import Agent, Array, ConfigurationError, EnvSpec, InvalidStep, PyTree


class Policy:
    """Chooses actions for observations as a user gives them: one, or a batch.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      spec: what the agent knows of its environments.
      key: the key from which random numbers are derived.

    Attributes:
      function: the policy as a pure function.
    """

    def __init__(self, agent: Agent, programs: Programs, spec: EnvSpec, key: Array):
        self._programs = programs
        self._spec = spec
        self._key = key
        self.function = PolicyFunction(agent, spec)
        self._initial_memory = functools.lru_cache(maxsize=8)(agent.initial_memory)
        # Observations are checked as the ones of environments are.
        name, space = "The observation", spec.observation_space
        self._check_one = checking.make_check(space, name)
        self._check_batch = checking.make_batch_check(space, None, name)

    def predict(
        self,
        params: PyTree,
        observation: Any,
        state: PyTree,
        episode_start: Any,
        deterministic: bool,
        count: int,
    ) -> tuple[np.ndarray, PyTree]:
        """Return actions and the next recurrent state; see `Algorithm.predict`.

        Args:
          params: the agent's parameters.
          observation: an observation, or a batch of observations.
          state: the recurrent state, or None for the initial one.
          episode_start: where an episode begins, or None for nowhere.
          deterministic: whether to leave out exploration.
          count: the number of the call, which determines its random numbers.
        """
        obs, batched = self.batch(observation)
        num = jax.tree.leaves(obs)[0].shape[0]
        memory = self._initial_memory(num) if state is None else state
        first = np.zeros(num, bool)
        if episode_start is not None:
            first = np.broadcast_to(np.asarray(episode_start, bool), (num,))
        # The count starts again from 0 where 32 bits end.
        action, memory = self._programs.predict(
            params, memory, obs, first, self._key, np.uint32(count % 2**32), deterministic
        )
        space = self._spec.action_space
        actions = spaces.to_elements(space, np.asarray(action))
        memory = memory if jax.tree.leaves(memory) else None
        return (actions if batched else spaces.pick(space, actions, 0)), memory

    def query(self, name: str, params: PyTree, observation: Any, *arguments: Any) -> np.ndarray:
        """Return the answer to one of the agent's `queries`, for an observation or a batch."""
        obs, batched = self.batch(observation)
        answer = np.asarray(self._programs.queries[name](params, obs, *arguments))
        return answer if batched else answer[0]

    def batch(self, observation: Any) -> tuple[PyTree, bool]:
        """Return the observation as a batch of arrays, and whether it was a batch before.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        space = self._spec.observation_space
        batched = spaces.is_batched(space, observation)
        try:
            (self._check_batch if batched else self._check_one)(observation)
        except InvalidStep as error:
            raise ConfigurationError(error.problem) from None
        if batched:
            return spaces.copy(space, observation), True
        return spaces.stack(space, [observation]), False
