"""Conversion between the actions of a Box and the actions of a policy.

A policy's actions are vectors of D numbers, which are in [-1, 1] where the bounds of the Box are
finite.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError


class ActionBounds(NamedTuple):
    """The bounds of a Box of D numbers.

    All actions that `scale` returns lie within the bounds, whatever the rounding. A dimension with
    a bound that is not finite is not scaled, so a policy works in units of the Box there.

    Attributes:
      low: `[D]`, the lower bounds.
      high: `[D]`, the upper bounds.
      shape: the shape of an action in the Box.
    """

    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of dimensions, D."""
        return math.prod(self.shape)

    @property
    def width(self) -> np.ndarray:
        """The distances between the bounds `[D]`, infinite where a bound is not finite."""
        with np.errstate(over="ignore"):
            return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether all dimensions are scaled."""
        return bool(np.isfinite(self.width).all())

    def scale(self, a: Array) -> Array:
        """Convert actions `[..., D]` of a policy to actions `[..., *shape]` of the Box.

        Actions outside the bounds are clipped.
        """
        if self.finite:
            action = self.low + 0.5 * (self.high - self.low) * (a + 1.0)
        else:
            middle, half = self.units()
            action = middle + half * a
        return jnp.clip(action, self.low, self.high).reshape(*a.shape[:-1], *self.shape)

    def unscale(self, action: Array) -> Array:
        """Invert `scale` for actions `[N, *shape]` between finite bounds; return `[N, D]`."""
        return 2.0 * (action.reshape(-1, self.size) - self.low) / (self.high - self.low) - 1.0

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the policy's zero and its unit in units of the Box, `[D]` each."""
        scaled = np.isfinite(self.width)
        low, high = (np.where(scaled, bound, 0.0) for bound in (self.low, self.high))
        half = np.where(scaled, 0.5 * (high - low), 1.0)
        return (low + half * scaled).astype(np.float32), half.astype(np.float32)


def action_bounds(space: spaces.Box, finite: bool = True) -> ActionBounds:
    """Return the bounds of an action space.

    Args:
      space: the action space.
      finite: whether the bounds of each dimension must be finite and differ from each other.

    Raises:
      ConfigurationError: if the bounds are not as required, or the space holds integers.
    """
    low, high = (bound.reshape(-1) for bound in inner_bounds(space))
    bounds = ActionBounds(low, high, space.shape)
    if finite and not (bounds.finite and (bounds.width > 0).all()):
        raise ConfigurationError(
            f"Actions of {space} need finite bounds, with each low below its high. Set the bounds "
            f"with a wrapper, for example gymnasium.wrappers.RescaleAction, or in the "
            f"environment's action_space."
        )
    return bounds


def inner_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return low and high of an action space as float32, without widening them by rounding.

    Raises:
      ConfigurationError: if the space holds integers.
    """
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigurationError(
            f"Actions of {space} are integers. Use a Discrete or MultiDiscrete action space, or a "
            f"Box of floats."
        )
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    inf = np.float32(np.inf)
    # Where rounding moved a bound outwards, take the next float32 inwards.
    inner_low = np.where(low < space.low, np.nextafter(low, inf), low)
    inner_high = np.where(high > space.high, np.nextafter(high, -inf), high)
    return inner_low, inner_high
