"""The agent for another number of environments, and what it keeps of its state."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from agentzoo.sharding import Mesh, replicate
from agentzoo.training.recipe import Recipe
from agentzoo.types import ConfigurationError, PyTree


class Regrouped(NamedTuple):
    """An agent for another number of environments.

    Attributes:
      recipe: what it is made of.
      agent: its functions.
      programs: its functions, compiled.
      learner_state: its state.
    """

    recipe: Recipe
    agent: Any
    programs: Any
    learner_state: Any


def regroup(
    recipe: Recipe,
    num_envs: int,
    old: Any,
    mesh: Mesh | None,
    skips: bool,
    without: Sequence[str] = (),
) -> Regrouped:
    """Return the agent for another number of environments, with its state.

    Args:
      recipe: what the agent was made of.
      num_envs: the new number of environments.
      old: the state of the learner.
      mesh: the devices that learn together, or None.
      skips: whether updates that are not finite are dropped.
      without: parts of the state that neither of them has.

    Raises:
      ConfigurationError: if the state does not fit these hyperparameters.
    """
    spec = recipe.spec._replace(num_envs=num_envs)
    new = dataclasses.replace(recipe, spec=spec)
    agent, programs = new.build(mesh, skips)
    parts = programs.init(jax.random.key(0), without)._asdict()
    for name, part in parts.items():
        if name in without:
            continue
        before = getattr(old, name)
        if name in agent.refill:
            parts[name] = agent.refill[name](part, before)
        else:
            parts[name] = _carry_over(name, part, before, recipe.spec.num_envs, num_envs)
    return Regrouped(new, agent, programs, replicate(type(old)(**parts), mesh))


def _carry_over(name: str, part: PyTree, old: PyTree, old_num: int, num: int) -> PyTree:
    """Return a part of the state of an agent for `num` environments.

    It is what `old` holds, except for arrays that hold something of each environment.
    """
    advice = "go on with the hyperparameters that the agent was made with."

    def carry(new: Any, before: Any) -> Any:
        if (new.shape, new.dtype) == (before.shape, before.dtype):
            return before
        if before.shape[:1] == (old_num,) and new.shape == (num, *before.shape[1:]):
            return new  # new episodes begin in all environments
        raise ConfigurationError(
            f"The agent holds {name!r} as {before.dtype}{list(before.shape)}, but with these "
            f"hyperparameters it would be {new.dtype}{list(new.shape)}; {advice}"
        )

    if jax.tree.structure(part) != jax.tree.structure(old):
        raise ConfigurationError(
            f"The agent holds another {name!r} than it would with these hyperparameters; {advice}"
        )
    return jax.tree.map(carry, part, old)
