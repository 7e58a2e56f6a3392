"""Notices when somebody else uses the environments that an agent trains in.

The agent must not go on from an observation that is no longer the one of its environments.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym

from agentzoo.types import ConfigurationError

_MARK = "_agentzoo_use"
BUSY = "The agent's actors are stepping these environments in threads, and nobody else can while learn() runs; use an environment of your own."


class Use:
    """The time from a `reset` of environments until somebody else uses them.

    Attributes:
      over: whether somebody else has used them.
      busy: whether actors in threads are stepping them at this moment, so that nobody else can.
    """

    def __init__(self, busy: bool = False) -> None:
        self.over, self.busy = False, busy


class Used:
    """A base class of `Envs` that notices when somebody else uses its environments."""

    _use = Use()

    @property
    def disturbed(self) -> bool:
        """Whether somebody else has used the environments since they were reset.

        If so, their episodes are broken off.
        """
        return self._use.over

    def disturb(self) -> None:
        """Says that somebody else has used the environments."""
        self._use = Use()
        self._use.over = True

    def occupy(self, busy: bool) -> None:
        """Says whether actors in threads are stepping the environments, which have been reset before."""
        self._use.busy = busy

    def _claim(self, envs: Iterable[Any]) -> None:
        """Says that these environments are used by this object from now on, and by no other.

        Raises:
          ConfigurationError: if another object's actors are stepping one of them in threads.
        """
        own = self._use
        found = [part for env in envs for part in parts(env)]
        uses = [getattr(part, _MARK, None) for part in found]
        if any(use is not None and use is not own and use.busy for use in uses):
            raise ConfigurationError(BUSY)
        self._use = Use(busy=own.busy)
        for part, previous in zip(found, uses, strict=True):
            if previous is not None:
                previous.over = True
            # An object may refuse new attributes.
            with contextlib.suppress(AttributeError, TypeError):
                setattr(part, _MARK, self._use)


def parts_of(envs: Any) -> list[Any]:
    """Return the environments behind `Envs` that are in this process, as `parts` does."""
    shares = getattr(envs, "shares", [envs])
    made = [env for share in shares for env in getattr(share, "envs", None) or [share.env]]
    return [part for env in made for part in parts(env)]


def parts(env: Any) -> list[Any]:
    """Return the environment without its wrappers, and those that a vector environment holds."""
    base = getattr(env, "unwrapped", env)
    inside = getattr(base, "envs", ())
    inside = inside if isinstance(inside, list | tuple) else ()
    return [base, *(part for one in inside for part in parts(one))]


class TrainingEnv(gym.vector.VectorWrapper):
    """A `VectorEnv` whose agent begins new episodes after somebody else has reset or stepped it.

    Args:
      env: the vector environment.
      disturb: called at each `reset` and `step`.
      busy: whether actors are stepping the environments at this moment.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        disturb: Callable[[], None],
        busy: Callable[[], bool],
    ):
        super().__init__(env)
        self._disturb, self._busy = disturb, busy

    def reset(
        self,
        *,
        seed: Any = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes."""
        self._use()
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes an action in each environment."""
        self._use()
        return self.env.step(actions)

    def _use(self) -> None:
        if self._busy():
            raise ConfigurationError(BUSY)
        self._disturb()

    def __getattr__(self, name: str) -> Any:
        """Finds what the wrapper lacks in the vector environment: `envs`, `call`, `get_attr`."""
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
