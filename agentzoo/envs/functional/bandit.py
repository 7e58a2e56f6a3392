"""A multi-armed bandit: each episode is one pull of an arm, and the observation is constant."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array


class BanditState(NamedTuple):
    """The arms. To play many bandits at once, map over states with different means.

    Attributes:
      means: `[A]` float32, the expected reward of each arm.
    """

    means: Array


@dataclass(frozen=True)
class MultiArmedBandit:
    """A multi-armed bandit.

    Attributes:
      means: the expected reward of each arm.
      std: standard deviation of Gaussian rewards. If None, rewards are 0 or 1, and the means are
        probabilities.

    Raises:
      ValueError: if there is no arm, or if a mean of rewards of 0 or 1 is not in [0, 1].
    """

    means: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    std: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "means", tuple(self.means))  # a list would not be hashable
        if not self.means or (self.std is None and not all(0 <= mean <= 1 for mean in self.means)):
            raise ValueError(
                f"means={self.means} cannot be used. Give one mean for each arm, in [0, 1] for "
                "rewards of 0 or 1, or give std for Gaussian rewards."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """A constant 1."""
        return spaces.Box(0.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The arm to pull."""
        return spaces.Discrete(len(self.means))

    def reset(self, key: Array) -> tuple[BanditState, Array]:
        """Begin an episode with the same arms; `key` is not used."""
        return BanditState(jnp.array(self.means, jnp.float32)), jnp.ones(1, jnp.float32)

    def step(self, state: BanditState, action: Array, key: Array) -> tuple[BanditState, Step]:
        """Pull an arm."""
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
        """Return the difference between the best arm's mean and this arm's mean."""
        return jnp.max(state.means) - state.means[action]
