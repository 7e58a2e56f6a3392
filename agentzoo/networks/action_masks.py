"""Which actions are legal: the "action_mask" in observations, which no network sees."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree


class Seen(NamedTuple):
    """Observations `[..., *obs]` without their masks, and which actions are legal in them.

    Attributes:
      obs: what networks see.
      legal: `[..., A]` booleans, at least one of them true for each choice of a Discrete or
        MultiDiscrete space; None where observations have no mask.
    """

    obs: PyTree
    legal: Array | None


class ActionMasks(NamedTuple):
    """How the observations of an environment are split.

    Attributes:
      space: of observations without their mask.
      split: `(obs) -> seen`, for observations with any leading axes.
      masked: whether observations have a mask.
    """

    space: spaces.Space
    split: Callable[[PyTree], Seen]
    masked: bool


def action_masks(spec: EnvSpec) -> ActionMasks:
    """Looks for an "action_mask" in the observations, which says which actions are legal.

    In an observation space that is a Dict, it holds `[A]` numbers for a Discrete space of A
    actions, not 0 where an action is legal; one for each value of each choice of a MultiDiscrete
    space; and one for each bit of a MultiBinary space, whether it may be 1. Where none is legal,
    which should only happen at the end of an episode, all are.

    Raises:
      ConfigurationError: if there is a mask that does not fit the actions, or nothing beside it.
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
            f'The "action_mask" in the observations is {mask}; expected MultiBinary({sum(sizes)}) for actions of {spec.action_space}.'
        )
    if not others:
        what = 'The observations hold nothing but an "action_mask"'
        raise ConfigurationError(f"{what}; add what the agent should see.")
    # Of a bit, 0 is always legal.
    one_of_each = not isinstance(spec.action_space, spaces.MultiBinary)

    def split(obs: PyTree) -> Seen:
        legal = obs["action_mask"] != 0
        legal = _some_legal(legal, sizes) if one_of_each else legal
        return Seen({name: obs[name] for name in others}, legal)

    return ActionMasks(spaces.Dict(others), split, True)


def choices(space: spaces.Space) -> list[int]:
    """The outputs that describe a policy: one for each value of each choice, and for each bit or dimension."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    assert space.shape is not None
    return [1] * math.prod(space.shape)


def rule_out(values: Array, legal: Array | None) -> Array:
    """Values or logits `[..., A]`, with -inf for those of illegal actions."""
    return values if legal is None else jnp.where(legal, values, -jnp.inf)


def uniform_action(u: Array, num_actions: int, legal: Array | None) -> Array:
    """One of A actions, or of the legal ones, equally likely for `u` `[...]` that is uniform in [0, 1)."""
    count = num_actions if legal is None else jnp.sum(legal, axis=-1, dtype=jnp.int32)
    chosen = jnp.minimum(u * count, count - 1).astype(jnp.int32)
    if legal is None:
        return chosen
    # The sum counts the legal actions up to each one. It first exceeds `chosen` at the one of that
    # rank.
    return jnp.argmax(jnp.cumsum(legal, axis=-1) > chosen[..., None], axis=-1).astype(jnp.int32)


def _some_legal(mask: Array, sizes: Sequence[int]) -> Array:
    """The mask, with all values of a choice legal where none is, so that there is a distribution."""
    parts = jnp.split(mask, np.cumsum(sizes)[:-1], axis=-1)
    return jnp.concatenate([part | ~part.any(axis=-1, keepdims=True) for part in parts], axis=-1)
