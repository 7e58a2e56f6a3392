"""Legal actions, by the "action_mask" in observations. Networks do not see the mask."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree


class Seen(NamedTuple):
    """Observations `[..., *obs]` without their masks, and the legal actions.

    Attributes:
      obs: what networks see.
      legal: `[..., A]` booleans, or None if observations have no mask. At least one boolean is true
        for each choice of a Discrete or MultiDiscrete space.
    """

    obs: PyTree
    legal: Array | None


class ActionMasks(NamedTuple):
    """How to separate the mask from the observations of an environment.

    Attributes:
      space: the space of observations without their mask.
      split: `(obs) -> seen`, for observations with any leading axes.
      masked: whether observations have a mask.
    """

    space: spaces.Space
    split: Callable[[PyTree], Seen]
    masked: bool


def action_masks(spec: EnvSpec) -> ActionMasks:
    """Look for an "action_mask" in the observations, which marks the legal actions.

    The mask is a part of an observation space that is a Dict. A number that is not 0 marks

    - a legal action of a Discrete space of A actions, by `[A]` numbers;
    - a legal value of a choice of a MultiDiscrete space, by one number for each value of each
      choice;
    - a bit of a MultiBinary space that may be 1, by one number for each bit.

    If the mask marks no action as legal, all actions are legal. That should only happen at the end
    of an episode.

    Raises:
      ConfigurationError: if the mask does not fit the actions, or if the observations hold nothing
        else.
    """
    space = spec.observation_space
    if not isinstance(space, spaces.Dict) or "action_mask" not in space.spaces:
        return ActionMasks(space, lambda obs: Seen(obs, None), False)
    mask, sizes = space["action_mask"], choices(spec.action_space)
    others = {name: part for name, part in space.items() if name != "action_mask"}
    if isinstance(spec.action_space, spaces.Box):
        raise ConfigurationError(
            f'There is an "action_mask" in the observations, but actions of {spec.action_space} '
            f"cannot be masked. Give that part of the observations another name."
        )
    if mask.shape != (sum(sizes),) or not isinstance(mask, spaces.Box | spaces.MultiBinary):
        raise ConfigurationError(
            f'The "action_mask" in the observations is {mask}. '
            f"For actions of {spec.action_space}, use MultiBinary({sum(sizes)})."
        )
    if not others:
        raise ConfigurationError(
            'The observations hold nothing but an "action_mask". Add what the agent should see.'
        )
    # The value 0 of a bit is always legal.
    one_of_each = not isinstance(spec.action_space, spaces.MultiBinary)

    def split(obs: PyTree) -> Seen:
        legal = obs["action_mask"] != 0
        legal = _some_legal(legal, sizes) if one_of_each else legal
        return Seen({name: obs[name] for name in others}, legal)

    return ActionMasks(spaces.Dict(others), split, True)


def choices(space: spaces.Space) -> list[int]:
    """Return the numbers of outputs that describe a policy for each part of an action.

    Each choice of a Discrete or MultiDiscrete space has one output for each value. Each bit of a
    MultiBinary space and each dimension of a Box has one output.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    assert space.shape is not None
    return [1] * math.prod(space.shape)


def rule_out(values: Array, legal: Array | None) -> Array:
    """Return values or logits `[..., A]` with -inf for illegal actions."""
    return values if legal is None else jnp.where(legal, values, -jnp.inf)


def uniform_action(u: Array, num_actions: int, legal: Array | None) -> Array:
    """Return actions `[...]` that are uniformly distributed over the legal actions.

    Args:
      u: `[...]` uniformly distributed in [0, 1).
      num_actions: A.
      legal: `[..., A]`, or None if all actions are legal.
    """
    count = num_actions if legal is None else jnp.sum(legal, axis=-1, dtype=jnp.int32)
    chosen = jnp.minimum(u * count, count - 1).astype(jnp.int32)
    if legal is None:
        return chosen
    # The cumulative sum counts the legal actions up to each action. It first exceeds `chosen` at
    # the legal action of that rank.
    return jnp.argmax(jnp.cumsum(legal, axis=-1) > chosen[..., None], axis=-1).astype(jnp.int32)


def _some_legal(mask: Array, sizes: Sequence[int]) -> Array:
    """Return a mask that allows all values of a choice if no value of it was legal."""
    parts = jnp.split(mask, np.cumsum(sizes)[:-1], axis=-1)
    return jnp.concatenate([part | ~part.any(axis=-1, keepdims=True) for part in parts], axis=-1)
