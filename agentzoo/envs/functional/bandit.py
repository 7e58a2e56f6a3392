"""A multi-armed bandit: every pull of an arm is an episode, and there is nothing to observe."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array


class BanditState(NamedTuple):
    """The arms. A state with other means is another bandit: `jax.vmap` over states plays many.

    Attributes:
      means: `[A]` float32, the expected reward of each arm.
    """

    means: Array


@dataclass(frozen=True)
class MultiArmedBandit:
    """A bandit as a functional environment.

    Attributes:
      means: the expected reward of each arm.
      std: standard deviation of the rewards, which are Gaussian; None for rewards of 0 or 1.
    """

    means: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    std: float | None = None

    def __post_init__(self):
        object.__setattr__(
            self, "means", tuple(self.means)
        )  # a list from a caller would not be hashable
        if not self.means or (self.std is None and not all(0 <= mean <= 1 for mean in self.means)):
            raise ValueError(
                f"means={self.means}; expected one of each arm, in [0, 1] for rewards of 0 or 1, or a std for Gaussian ones."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """Always 1."""
        return spaces.Box(0.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Which arm to pull."""
        return spaces.Discrete(len(self.means))

    def reset(self, key: Array) -> tuple[BanditState, Array]:
        """The same arms as ever; `key` is not used."""
        return BanditState(jnp.array(self.means, jnp.float32)), jnp.ones(1, jnp.float32)

    def step(self, state: BanditState, action: Array, key: Array) -> tuple[BanditState, Step]:
        """Pulls an arm."""
        mean = state.means[action]
        reward = (
            jax.random.bernoulli(key, mean)
            if self.std is None
            else mean + self.std * jax.random.normal(key)
        )
        return state, Step(
            jnp.ones(1, jnp.float32), jnp.float32(reward), jnp.bool_(True), jnp.bool_(False)
        )

    def regret(self, state: BanditState, action: Array) -> Array:
        """How much less than the best arm this one is expected to pay."""
        return jnp.max(state.means) - state.means[action]
