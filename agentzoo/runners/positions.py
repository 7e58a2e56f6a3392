"""The joint state of several actors, and messages about episodes that were not resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from agentzoo.envs import Envs, name_of
from agentzoo.runners.actor import ActorState


def name_envs(parts: Sequence[Envs]) -> str | None:
    """Return a name of environments whose states are interchangeable.

    Args:
      parts: the environments of each actor.

    Returns:
      The name, or None if the environments cannot resume their episodes.
    """
    if any(envs.replayable is not None for envs in parts):
        return None
    num_envs = sum(envs.spec.num_envs for envs in parts)
    return f"host: {num_envs} x {name_of(parts[0])}"


def describe_problems(problems: Mapping[int, str]) -> str | None:
    """Return a sentence about environments whose episodes could not be resumed, or None."""
    if not problems:
        return None
    reasons: dict[str, list[int]] = {}
    for n, reason in problems.items():
        reasons.setdefault(reason, []).append(n)
    parts = [
        f"in environment{'s' * (len(found) > 1)} {', '.join(map(str, found))} because {reason}"
        for reason, found in reasons.items()
    ]
    return f"Training does not resume exactly. New episodes began {', and '.join(parts)}."


def join(states: Sequence[ActorState]) -> ActorState:
    """Return the states of several actors as the state of one actor with all environments."""
    joined = jax.tree.map(_concatenate, *(state._replace(seed=()) for state in states))
    return joined._replace(seed=states[0].seed)


def split(state: ActorState, number: int) -> list[ActorState]:
    """Return the states that `join` has put together, of actors with equal shares."""
    steps = np.maximum(state.episodes.steps, 0)
    ends = np.cumsum(steps)  # of each environment's actions
    num = len(steps) // number
    states = []
    for i in range(number):
        own = slice(i * num, (i + 1) * num)
        actions = slice(ends[own][0] - steps[own][0], ends[own][-1])
        rest = state._replace(seed=(), episodes=state.episodes._replace(actions=()))
        part = jax.tree.map(lambda x, own=own: x[own], rest)
        episodes = part.episodes._replace(actions=state.episodes.actions[actions])
        states.append(part._replace(seed=state.seed, episodes=episodes))
    return states


def _concatenate(*parts: Any) -> Any:
    if isinstance(parts[0], jax.Array):
        return jax.numpy.concatenate(parts)
    return np.concatenate(parts)
