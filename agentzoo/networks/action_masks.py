"""Legal actions, from the "action_mask" in observations, which no network sees."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree


class Seen(NamedTuple):
    """Observations without their masks, and the legal actions.

    Attributes:
      obs: `[..., *obs]`, the part of the observations that networks see.
      legal: `[..., A]` booleans, which are true for legal actions. At least one is true for each
        choice of a Discrete or MultiDiscrete space. None if the observations have no mask.
    """

    obs: PyTree
    legal: Array | None


class ActionMasks(NamedTuple):
    """How to separate observations from their masks.

    Attributes:
      space: the space of observations without their mask.
      split: `(obs) -> Seen`, for observations with any leading axes.
      masked: whether observations have a mask.
    """

    space: spaces.Space
    split: Callable[[PyTree], Seen]
    masked: bool


def action_masks(spec: EnvSpec) -> ActionMasks:
    """Look for an "action_mask" in the observations, which says which actions are legal.

    The mask is an entry of an observation space that is a Dict. It holds numbers `[A]`, and an
    action is legal if its number is not 0. A Discrete space has one number for each action, a
    MultiDiscrete space one for each value of each choice, and a MultiBinary space one for each bit,
    which says whether the bit may be 1. If no action is legal, which should only happen at the end
    of an episode, all actions count as legal.

    Raises:
      ConfigurationError: if the mask does not fit the actions, or the observations hold nothing
        else.
    """
    space = spec.observation_space
    if not isinstance(space, spaces.Dict) or "action_mask" not in space.spaces:
        return ActionMasks(space, lambda obs: Seen(obs, None), False)
    _check_mask(space, spec.action_space)
    others = {name: part for name, part in space.items() if name != "action_mask"}
    sizes = choices(spec.action_space)
    # A MultiBinary space always has a legal action, because each bit may be 0.
    one_of_each = not isinstance(spec.action_space, spaces.MultiBinary)

    def split(obs: PyTree) -> Seen:
        legal = obs["action_mask"] != 0
        legal = _some_legal(legal, sizes) if one_of_each else legal
        return Seen({name: obs[name] for name in others}, legal)

    return ActionMasks(spaces.Dict(others), split, True)


def _check_mask(space: spaces.Dict, actions: spaces.Space) -> None:
    """Check that the mask in an observation space fits the action space.

    Raises:
      ConfigurationError: if the mask does not fit, or the observations hold nothing else.
    """
    mask, size = space["action_mask"], sum(choices(actions))
    if isinstance(actions, spaces.Box):
        raise ConfigurationError(
            f'There is an "action_mask" in the observations, but actions of {actions} cannot be '
            f"masked. Give that part of the observations another name."
        )
    if mask.shape != (size,) or not isinstance(mask, spaces.Box | spaces.MultiBinary):
        raise ConfigurationError(
            f'The "action_mask" in the observations is {mask}; expected MultiBinary({size}) for '
            f"actions of {actions}. Change the space of the mask, or give that part of the "
            f"observations another name."
        )
    if len(space.spaces) == 1:
        raise ConfigurationError(
            'The observations hold nothing but an "action_mask". Add what the agent should see to '
            "the observation space."
        )


def choices(space: spaces.Space) -> list[int]:
    """Return the number of outputs that a policy needs for each choice, bit or dimension."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    assert space.shape is not None
    return [1] * math.prod(space.shape)


def rule_out(values: Array, legal: Array | None) -> Array:
    """Return values or logits `[..., A]`, with -inf for illegal actions."""
    return values if legal is None else jnp.where(legal, values, -jnp.inf)


def uniform_action(u: Array, num_actions: int, legal: Array | None) -> Array:
    """Draw legal actions with equal probability.

    Args:
      u: `[...]`, numbers that are uniform in [0, 1).
      num_actions: A.
      legal: `[..., A]`, the legal actions. None if all are legal.

    Returns:
      `[...]`, the actions as int32.
    """
    count = num_actions if legal is None else jnp.sum(legal, axis=-1, dtype=jnp.int32)
    chosen = jnp.minimum(u * count, count - 1).astype(jnp.int32)
    if legal is None:
        return chosen
    # The cumulative sum [..., A] counts the legal actions up to each action. It first exceeds
    # `chosen` at the legal action of that rank, and argmax finds the first True.
    return jnp.argmax(jnp.cumsum(legal, axis=-1) > chosen[..., None], axis=-1).astype(jnp.int32)


def _some_legal(mask: Array, sizes: Sequence[int]) -> Array:
    """Make all values of a choice legal if none is, so that the policy is a distribution."""
    # The mask [..., A] holds the values of one choice after another, so the choices begin at the
    # cumulative sums of their sizes.
    parts = jnp.split(mask, np.cumsum(sizes)[:-1], axis=-1)
    return jnp.concatenate([part | ~part.any(axis=-1, keepdims=True) for part in parts], axis=-1)
