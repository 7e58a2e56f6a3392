"""Conversion between the actions of a Box and the actions that a policy works with.

The actions of a policy are vectors of D numbers. Between finite bounds, they are in [-1, 1].
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError


class ActionBounds(NamedTuple):
    """The bounds of a Box of D numbers.

    Rounding errors never lead to an action outside the bounds. A dimension with a bound that is not
    finite is not scaled: the policy works in the units of the Box there.
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
        """The distance from low to high `[D]`, which is infinite if a bound is not finite."""
        with np.errstate(over="ignore"):
            return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether all bounds are finite, so that all dimensions are scaled."""
        return bool(np.isfinite(self.width).all())

    def scale(self, a: Array) -> Array:
        """Return actions `[..., *shape]` of the Box for `[..., D]` in [-1, 1], clipped."""
        if self.finite:
            action = self.low + 0.5 * (self.high - self.low) * (a + 1.0)
        else:
            middle, half = self.units()
            action = middle + half * a
        return jnp.clip(action, self.low, self.high).reshape(*a.shape[:-1], *self.shape)

    def unscale(self, action: Array) -> Array:
        """Return `[N, D]` for actions `[N, *shape]`: the inverse of `scale` for finite bounds."""
        return 2.0 * (action.reshape(-1, self.size) - self.low) / (self.high - self.low) - 1.0

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where 0 lies in the Box, and how long 1 is in units of the Box, `[D]` each."""
        scaled = np.isfinite(self.width)
        low, high = (np.where(scaled, bound, 0.0) for bound in (self.low, self.high))
        half = np.where(scaled, 0.5 * (high - low), 1.0)
        return (low + half * scaled).astype(np.float32), half.astype(np.float32)


def action_bounds(space: spaces.Box, finite: bool = True) -> ActionBounds:
    """Return the bounds of an action space.

    Args:
      space: the action space.
      finite: whether each dimension must have finite bounds that differ.

    Raises:
      ConfigurationError: if the bounds are not as they must be, or if actions are integers.
    """
    low, high = (bound.reshape(-1) for bound in inner_bounds(space))
    bounds = ActionBounds(low, high, space.shape)
    if finite and not (bounds.finite and (bounds.width > 0).all()):
        raise ConfigurationError(
            f"Actions of {space} need finite bounds, with each low below its high. Set the bounds "
            f"by a wrapper such as gymnasium.wrappers.RescaleAction, or in the action_space of the "
            f"environment."
        )
    return bounds


def inner_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of an action space as float32, rounded to the inside.

    Raises:
      ConfigurationError: if actions are integers.
    """
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigurationError(
            f"Actions of {space} are integers. "
            f"Use a Discrete or MultiDiscrete space, or a Box of floats."
        )
    inf = np.float32(np.inf)
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    inner_low = np.where(low < space.low, np.nextafter(low, inf), low)
    inner_high = np.where(high > space.high, np.nextafter(high, -inf), high)
    return inner_low, inner_high
