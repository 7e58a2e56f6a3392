"""Between the actions of a Box and those that a policy works with: vectors of D numbers, in [-1, 1] between finite bounds."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError


class ActionBounds(NamedTuple):
    """The bounds of a Box of D numbers.

    No action that `scale` returns lies outside them, whatever the rounding.

    A dimension with a bound that is not finite is not scaled: there, a policy works in units of the
    Box.
    """

    low: np.ndarray  # [D]
    high: np.ndarray  # [D]
    shape: tuple[int, ...]  # of an action

    @property
    def size(self) -> int:
        """The number of dimensions, D."""
        return math.prod(self.shape)

    @property
    def width(self) -> np.ndarray:
        """From low to high `[D]`, infinite where a bound is not finite."""
        with np.errstate(over="ignore"):
            return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether all dimensions are scaled."""
        return bool(np.isfinite(self.width).all())

    def scale(self, a: Array) -> Array:
        """Actions `[..., *shape]` of the Box, from `[..., D]` in [-1, 1]; what lies outside is clipped."""
        if self.finite:
            action = self.low + 0.5 * (self.high - self.low) * (a + 1.0)
        else:
            middle, half = self.units()
            action = middle + half * a
        return jnp.clip(action, self.low, self.high).reshape(*a.shape[:-1], *self.shape)

    def unscale(self, action: Array) -> Array:
        """The inverse of `scale` between finite bounds, for a batch of actions `[N, *shape]`."""
        return 2.0 * (action.reshape(-1, self.size) - self.low) / (self.high - self.low) - 1.0

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """What 0 and a difference of 1 of a policy's actions are in units of the Box, `[D]` each."""
        scaled = np.isfinite(self.width)
        low, high = (np.where(scaled, bound, 0.0) for bound in (self.low, self.high))
        half = np.where(scaled, 0.5 * (high - low), 1.0)
        return (low + half * scaled).astype(np.float32), half.astype(np.float32)


def action_bounds(space: spaces.Box, finite: bool = True) -> ActionBounds:
    """The bounds of an action space.

    Args:
      space: the action space.
      finite: whether each dimension needs finite bounds with room between them.

    Raises:
      ConfigurationError: if bounds are not as needed, or the numbers between them are integers.
    """
    low, high = (bound.reshape(-1) for bound in inner_bounds(space))
    bounds = ActionBounds(low, high, space.shape)
    if finite and not (bounds.finite and (bounds.width > 0).all()):
        raise ConfigurationError(
            f"Actions of {space} need finite bounds, with each low below its high; set them by a wrapper, for example "
            f"gymnasium.wrappers.RescaleAction, or in the environment's action_space."
        )
    return bounds


def inner_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of an action space as float32; rounding does not widen them.

    Raises:
      ConfigurationError: if the numbers between them are integers.
    """
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigurationError(
            f"Actions of {space} are integers; make them a Discrete or MultiDiscrete space, or a Box of floats."
        )
    low, high, inf = space.low.astype(np.float32), space.high.astype(np.float32), np.float32(np.inf)
    return np.where(low < space.low, np.nextafter(low, inf), low), np.where(
        high > space.high, np.nextafter(high, -inf), high
    )
