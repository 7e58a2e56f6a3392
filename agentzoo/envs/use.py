"""Detection of other users of the environments in which an agent trains.

After another user has reset or stepped an environment, the agent must not continue from its old
observation. It begins new episodes instead.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym

from agentzoo.types import ConfigurationError

_MARK = "_agentzoo_use"
BUSY = (
    "The agent's actors are stepping these environments in threads, so that nobody else can use "
    "them while learn() runs. Use an environment of your own."
)


class Use:
    """The use of environments by one object, from its `reset` until another user comes.

    Attributes:
      over: whether another user has come.
      busy: whether actors in threads are stepping the environments, so that others must not.
    """

    def __init__(self, busy: bool = False) -> None:
        self.over, self.busy = False, busy


class Used:
    """A base class of `Envs` that detects other users of its environments."""

    _use = Use()

    @property
    def restarts(self) -> int:
        """How often an environment was created again after it failed."""
        return 0

    @property
    def disturbed(self) -> bool:
        """Whether another user has reset or stepped the environments since `reset`.

        If so, their episodes must not be continued.
        """
        return self._use.over

    @property
    def alive(self) -> bool:
        """Whether the environments stand where they were left. Worker processes may have ended."""
        return True

    def disturb(self) -> None:
        """Record that another user has reset or stepped the environments."""
        self._use = Use()
        self._use.over = True

    def occupy(self, busy: bool) -> None:
        """Record whether actors in threads are stepping the environments; see `Envs.occupy`."""
        self._use.busy = busy

    def _claim(self, envs: Iterable[Any]) -> None:
        """Make this object the only user of the environments.

        Raises:
          ConfigurationError: if actors of another object are stepping one of them in threads.
        """
        own = self._use
        found = [part for env in envs for part in parts(env)]
        uses = [getattr(part, _MARK, None) for part in found]
        if any(use is not None and use is not own and use.busy for use in uses):
            raise ConfigurationError(BUSY)
        self._use = Use(busy=own.busy)
        for use in uses:
            if use is not None:
                use.over = True
        self._mark(envs)

    def _mark(self, envs: Iterable[Any]) -> None:
        """Note in the environments who uses them."""
        for part in [part for env in envs for part in parts(env)]:
            # Some objects do not accept new attributes.
            with contextlib.suppress(AttributeError, TypeError):
                setattr(part, _MARK, self._use)


def parts_of(envs: Any) -> list[Any]:
    """Return all environments in this process that belong to `Envs`, without wrappers."""
    shares = getattr(envs, "shares", [envs])
    made = [env for share in shares for env in getattr(share, "envs", None) or [share.env]]
    return [part for env in made for part in parts(env)]


def parts(env: Any) -> list[Any]:
    """Return an environment without its wrappers, and the environments inside of it."""
    base = getattr(env, "unwrapped", env)
    inside = getattr(base, "envs", ())
    inside = inside if isinstance(inside, list | tuple) else ()
    return [base, *(part for one in inside for part in parts(one))]


class TrainingEnv(gym.vector.VectorWrapper):
    """A `VectorEnv` whose agent begins new episodes after a user has reset or stepped it.

    Args:
      env: the vector environment.
      disturb: function to be called at each `reset` and `step`.
      busy: function that returns whether actors are stepping the environments.
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
        """Begin new episodes."""
        self._use()
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action in each environment."""
        self._use()
        return self.env.step(actions)

    def _use(self) -> None:
        if self._busy():
            raise ConfigurationError(BUSY)
        self._disturb()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the vector environment, such as `envs` or `call`."""
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
