"""The seeds of episodes, and obstacles to repeating an episode exactly."""

from collections.abc import Container, Sequence
from typing import Any

import gymnasium as gym
import jax
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

from agentzoo.envs.episodes import (
    MAX_STEPS,
    TOO_LONG,
    Running,
    Start,
    episode_seed,
    key_of,
    seed_of,
)
from agentzoo.envs.functional import FunctionalGymEnv, FunctionalVectorEnv

_INSTEAD = {
    wrappers.NormalizeObservation: "normalize_obs",
    wrappers.NormalizeReward: "normalize_reward",
    wrappers.vector.NormalizeObservation: "normalize_obs",
    wrappers.vector.NormalizeReward: "normalize_reward",
}
"""Gymnasium's wrappers with a state that outlives episodes, and what agents offer instead.

The other wrappers of Gymnasium start each episode without earlier state, or do not change what
agents see.
"""


class Differs(Exception):
    """Raised if a repeated episode differs from the first one."""


class Starts:
    """The seeds of the episodes of N environments.

    Args:
      num_envs: number of environments, N.
      keyed: indices of the environments that begin their episodes with a random key.
      seeded_once: indices of the environments whose later episodes are not seeded.

    Attributes:
      current: how the running episode of each environment began. It is never changed, only
        replaced.
    """

    def __init__(self, num_envs: int, keyed: Container[int] = (), seeded_once: Container[int] = ()):
        self.current = (Start(-1, None),) * num_envs
        self._keyed, self._seeded_once = keyed, seeded_once
        self._seed: int | None = None
        self._first = 0

    @classmethod
    def of(cls, envs: Sequence[gym.Env]) -> "Starts":
        """Return the seeds of the episodes of ordinary environments."""
        bases = [env.unwrapped for env in envs]
        keyed = {n for n, base in enumerate(bases) if isinstance(base, FunctionalGymEnv)}
        return cls(len(bases), keyed, {n for n, base in enumerate(bases) if _is_atari(base)})

    def seed(self, seed: int, first: int) -> None:
        """Begin a run, in which the next episodes have number 0."""
        self._seed, self._first = seed, first
        self.current = (Start(-1, None),) * len(self.current)

    def resume(self, seed: int, first: int, starts: Sequence[Start]) -> None:
        """Continue a run whose running episodes began in this way."""
        self._seed, self._first = seed, first
        self.current = tuple(
            Start(start.number, (key_of if n in self._keyed else seed_of)(start.token))
            for n, start in enumerate(starts)
        )

    def next(self, n: int, after_others: bool) -> dict[str, Any]:
        """Return the arguments of `reset` with which the next episode of environment n begins.

        Args:
          n: the index of the environment.
          after_others: whether others may have used the environment since the last episode began.
        """
        number, token = self.current[n].number + 1, self.current[n].token
        if self._seed is None or (number > 0 and n in self._seeded_once):
            return {}
        if number == 0 or n not in self._keyed:
            return {"seed": episode_seed(self._seed, self._first + n, number)}
        # The environment continues with this key by itself if its state has not changed.
        return {"options": {"key": jax.random.split(token)[1]}} if after_others else {}

    def again(self, n: int) -> dict[str, Any]:
        """Return the arguments of `reset` with which the running episode of environment n began."""
        token = self.current[n].token
        return {"options": {"key": token}} if n in self._keyed else {"seed": token}

    def begun(self, n: int, number: int, env: Any = None) -> None:
        """Record that an episode has begun in environment n."""
        token: Any = None
        if self._seed is not None and n in self._keyed:
            token = env.unwrapped.key
        elif self._seed is not None and not (number > 0 and n in self._seeded_once):
            token = episode_seed(self._seed, self._first + n, number)
        self.current = (*self.current[:n], Start(number, token), *self.current[n + 1 :])


def describe_error(error: Exception, episode: Running) -> str | None:
    """Return why an episode could not be resumed, or None if it was not to be resumed."""
    if episode.steps == TOO_LONG:
        return f"the episode had more than {MAX_STEPS:,} steps"
    if episode.steps < 0:
        return None
    if isinstance(error, Differs):
        return "the same seed and actions led to other observations"
    return f"repeating the episode raised {type(error).__name__}: {error}"


def find_obstacle(env: gym.Env) -> str | None:
    """Return why an environment cannot resume an episode, as far as it can be told in advance."""
    outer = env
    while isinstance(outer, gym.Wrapper):
        if type(outer) in _INSTEAD:
            return _name_wrapper(outer)
        outer = outer.env
    if _is_atari(env.unwrapped):
        return (
            "Training in Atari games does not resume exactly, because ale-py loads the game again "
            "at each reset with a seed, which takes about 0.3 seconds. New episodes begin instead."
        )
    return None


def find_vector_obstacle(env: VectorEnv) -> str | None:
    """Return why a vector environment cannot resume episodes, as far as it can be told."""
    outer: Any = env
    while isinstance(outer, VectorWrapper):
        if type(outer) in _INSTEAD:
            return _name_wrapper(outer)
        outer = outer.env
    if type(outer).__name__ == "AtariVectorEnv":
        return (
            "Training in AtariVectorEnv does not resume exactly, because it begins its episodes "
            "itself. New episodes begin instead."
        )
    if isinstance(env, FunctionalVectorEnv):
        return None
    ours = isinstance(outer, SyncVectorEnv | AsyncVectorEnv)
    if not ours or (env.metadata or {}).get("autoreset_mode") != AutoresetMode.DISABLED:
        other = ", or choose autoreset_mode=AutoresetMode.DISABLED" if ours else ""
        return (
            f"Training in {type(outer).__name__} does not resume exactly, because it begins its "
            f"episodes itself. Pass the id or a factory, and n_envs, instead of the vector "
            f"environment{other}."
        )
    inside = outer.envs if isinstance(outer, SyncVectorEnv) else []
    return next(filter(None, map(find_obstacle, inside)), None)


def _name_wrapper(wrapper: Any) -> str:
    return (
        f"Training does not resume exactly, because the wrapper {type(wrapper).__name__} keeps "
        f"statistics that are not saved. Use {_INSTEAD[type(wrapper)]}=True instead, which PPO and "
        f"other agents have and save."
    )


def _is_atari(env: gym.Env) -> bool:
    return type(env).__name__ == "AtariEnv" and type(env).__module__.startswith("ale_py")
