"""Between the actions of a Box and those that a policy works with: vectors of D numbers in [-1, 1]."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError


class ActionBounds(NamedTuple):
    """The bounds of a Box of D numbers. No action that `scale` returns lies outside them, whatever the rounding."""

    low: np.ndarray  # [D]
    high: np.ndarray  # [D]
    shape: tuple[int, ...]  # of an action

    @property
    def size(self) -> int:
        """The number of dimensions, D."""
        return math.prod(self.shape)

    def scale(self, a: Array) -> Array:
        """Actions `[..., *shape]` of the Box, from `[..., D]` in [-1, 1]; what lies outside is clipped."""
        action = jnp.clip(self.low + 0.5 * (self.high - self.low) * (a + 1.0), self.low, self.high)
        return action.reshape(*a.shape[:-1], *self.shape)

    def unscale(self, action: Array) -> Array:
        """The inverse of `scale`, for a batch of actions `[N, *shape]`."""
        return 2.0 * (action.reshape(-1, self.size) - self.low) / (self.high - self.low) - 1.0


def action_bounds(space: spaces.Box) -> ActionBounds:
    """The bounds of an action space.

    Raises:
      ConfigurationError: if they are not finite, leave no room, or the numbers between them are integers.
    """
    low, high = (bound.reshape(-1) for bound in inner_bounds(space))
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    if not (np.isfinite(width) & (width > 0)).all():
        raise ConfigurationError(
            f"Actions of {space} need finite bounds, with each low below its high; set them by a wrapper, for example "
            f"gymnasium.wrappers.RescaleAction, or in the environment's action_space."
        )
    return ActionBounds(low, high, space.shape)


def inner_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of an action space as float32; rounding does not widen them.

    Raises:
      ConfigurationError: if the numbers between them are integers.
    """
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigurationError(f"Actions of {space} are integers; make them a Discrete or MultiDiscrete space, or a Box of floats.")
    low, high, inf = space.low.astype(np.float32), space.high.astype(np.float32), np.float32(np.inf)
    return np.where(low < space.low, np.nextafter(low, inf), low), np.where(high > space.high, np.nextafter(high, -inf), high)
