"""Inputs for agents that observe their previous action and reward."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import actions, floats, operator, same_shape, values_of
from agentzoo.core.arrays import one_hot

__all__ = ["embed_oar"]


@operator(static=("num_actions",))
def embed_oar(
    features: ArrayLike, action: ArrayLike, reward: ArrayLike, num_actions: int
) -> jax.Array:
    """Concatenate observation features, the one-hot previous action and the squashed reward.

    The result is `[features, one_hot(action), tanh(reward)]`. See "Recurrent Experience Replay in
    Distributed Reinforcement Learning" by Kapturowski et al. (2019,
    https://openreview.net/forum?id=r1lyTjAqYX, section 2.3).

    Args:
      features: `[..., D]` features of the observation.
      action: `[...]` the action that led to the observation. An index outside `[0, num_actions)`,
        such as -1 before the first action, gives zeros.
      reward: `[...]` the reward that came with the observation.
      num_actions: the number of actions.

    Returns:
      `[..., D + num_actions + 1]`.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("embed_oar", features=features)
    actions("embed_oar", leading, action=action)
    same_shape("embed_oar", leading, reward=reward)
    features, reward = floats(features=features, reward=reward)
    reward = jnp.broadcast_to(jnp.tanh(reward), leading)
    return jnp.concatenate(
        [features, one_hot(action, num_actions, features.dtype), reward[..., None]], axis=-1
    )
