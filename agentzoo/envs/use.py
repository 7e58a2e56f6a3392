"""Who uses an environment: an agent must not go on from an observation that somebody else's `reset` or `step` made stale."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym

from agentzoo.types import ConfigurationError

_MARK = "_agentzoo_use"


class Use:
    """The time from a `reset` of environments until somebody else uses them.

    Attributes:
      over: whether somebody else has used them.
    """

    def __init__(self) -> None:
        self.over = False


class Used:
    """A base class of `Envs` that notices when somebody else uses its environments."""

    _use = Use()

    @property
    def disturbed(self) -> bool:
        """Whether somebody else has used the environments since they were reset, so that the episodes are broken off."""
        return self._use.over

    def disturb(self) -> None:
        """Says that somebody else has used the environments."""
        self._use = Use()
        self._use.over = True

    def _claim(self, envs: Iterable[Any]) -> None:
        """Says that these environments are used by this object from now on, and by no other."""
        self._use = Use()
        for env in envs:
            for part in parts(env):
                previous = getattr(part, _MARK, None)
                if previous is not None:
                    previous.over = True
                with contextlib.suppress(AttributeError, TypeError):  # an object may refuse new attributes
                    setattr(part, _MARK, self._use)


def parts_of(envs: Any) -> list[Any]:
    """Return the environments behind `Envs` that are in this process, as `parts` does."""
    shares = getattr(envs, "shares", [envs])
    made = [env for share in shares for env in getattr(share, "envs", None) or [share.env]]
    return [part for env in made for part in parts(env)]


def parts(env: Any) -> list[Any]:
    """Return the environment without its wrappers, and the environments that a vector environment holds in this process."""
    base = getattr(env, "unwrapped", env)
    inside = getattr(base, "envs", ())
    return [base, *(part for one in inside for part in parts(one))] if isinstance(inside, list | tuple) else [base]


class TrainingEnv(gym.vector.VectorWrapper):
    """A `VectorEnv` whose agent begins new episodes after somebody else has reset or stepped it.

    Args:
      env: the vector environment.
      disturb: called at each `reset` and `step`.
      busy: whether actors are stepping the environments at this moment.
    """

    def __init__(self, env: gym.vector.VectorEnv, disturb: Callable[[], None], busy: Callable[[], bool]):
        super().__init__(env)
        self._disturb, self._busy = disturb, busy

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes."""
        self._use()
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes an action in each environment."""
        self._use()
        return self.env.step(actions)

    def _use(self) -> None:
        if self._busy():
            raise ConfigurationError(
                "The agent's actors are stepping these environments in threads, and nobody else can while learn() runs; "
                "use an environment of your own."
            )
        self._disturb()

    def __getattr__(self, name: str) -> Any:
        """Finds what the wrapper lacks (`envs`, `call`, `get_attr`, ...) in the vector environment."""
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
