"""A policy with its parameters inside, as a function of plain arrays that can be exported."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval

from agentzoo.envs import spaces
from agentzoo.policy import PolicyFunction
from agentzoo.types import Array, EnvSpec, PyTree


class Program(NamedTuple):
    """The deterministic policy of an agent, which takes and returns batches.

    Attributes:
      call: `(observation) -> action`, or for agents with memory
        `(observation, state, episode_start) -> (action, state)`. The state is a tuple of arrays.
      is_recurrent: whether the policy has memory.
      observation_space: the observation space.
      state: the shapes of the recurrent state `[1, ...]` for a single observation; `()` without
        memory.
    """

    call: Callable[..., Any]
    is_recurrent: bool
    observation_space: Any
    state: tuple[jax.ShapeDtypeStruct, ...]

    def arguments(self, batch_size: Any) -> tuple[PyTree, ...]:
        """Return the shapes of the arguments of `call`.

        Args:
          batch_size: number of observations, which may be symbolic.
        """
        obs = spaces.shapes(self.observation_space, batch_size)
        if not self.is_recurrent:
            return (obs,)
        state = tuple(jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for x in self.state)
        return obs, state, jax.ShapeDtypeStruct((batch_size,), jnp.bool_)

    def trace(self, arguments: PyTree) -> ClosedJaxpr:
        """Return `call` as a program from the leaves of its arguments to those of its results.

        What no result depends on is left out, such as a value function.

        Args:
          arguments: what the method `arguments` returned.
        """
        traced = jax.make_jaxpr(self.call)(*arguments)
        wanted = [True] * len(traced.jaxpr.outvars)
        jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, wanted, instantiate=True)
        return ClosedJaxpr(jaxpr, traced.consts)


def make_program(policy: PolicyFunction, params: PyTree, spec: EnvSpec) -> Program:
    """Return the deterministic policy of an agent with these parameters.

    The memory of parts that do not decide actions, such as the value function, is left out.

    Args:
      policy: the policy.
      params: the parameters.
      spec: what the agent knows of its environments.
    """
    in_use = policy.memory_in_use

    def call(obs: PyTree, state: tuple[Array, ...], episode_start: Array) -> Any:
        leaves, structure = jax.tree.flatten(policy.initial_memory(episode_start.shape[0]))
        given = iter(state)
        leaves = [next(given) if used else leaf for used, leaf in zip(in_use, leaves, strict=True)]
        memory = jax.tree.unflatten(structure, leaves)
        actions, memory = policy(params, obs, state=memory, episode_start=episode_start)
        new = zip(in_use, jax.tree.leaves(memory), strict=True)
        return actions, tuple(leaf for used, leaf in new if used)

    leaves = jax.tree.leaves(policy.initial_memory(1))
    used = [leaf for leaf, is_used in zip(leaves, in_use, strict=True) if is_used]
    state = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in used)
    return Program(
        call if policy.is_recurrent else lambda obs: policy(params, obs),
        policy.is_recurrent,
        spec.observation_space,
        state,
    )
