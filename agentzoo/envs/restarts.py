"""Environments that are created again after they failed."""

import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from agentzoo.envs.guard import (
    CORRECT,
    LONGER,
    MAX_FAILURES,
    RESTART,
    WINDOW,
    Caller,
    Failures,
    Guard,
    NoAnswer,
    cause_of,
    describe,
    explain,
)
from agentzoo.types import ConfigurationError, EnvError, InvalidStep, TrainingError

CANNOT_RESTART = (
    'on_env_error="restart" needs environments that can be made again one by one. Pass an id or a '
    "function that makes one environment."
)


class Restarts:
    """Calls N environments, and creates those that fail again.

    Args:
      num_envs: N.
      make: makes a new environment; None if that is impossible.
      guard: what is done about environments that fail.

    Attributes:
      call: calls a function of an environment, within the time limit.
      count: how often an environment was created again.

    Raises:
      ConfigurationError: if environments have to be created again, but cannot be.
    """

    def __init__(self, num_envs: int, make: Callable[[], gym.Env] | None, guard: Guard):
        if guard.restarts and make is None:
            raise ConfigurationError(CANNOT_RESTART)
        self._make, self._guard = make, guard
        self._caller = Caller(guard.timeout)
        self.call = self._caller.call
        self._failures = [Failures() for _ in range(num_envs)]
        self._lost: set[int] = set()  # environments in which a call has not returned
        self._reported: set[int] = set()  # environments of which a failure was printed
        self.count = 0

    def restart(
        self,
        n: int,
        error: Exception,
        in_reset: bool,
        steps: int,
        env: gym.Env,
        begin: Callable[[gym.Env], Any],
    ) -> Any:
        """Make environment n again after an error, and return its first observation.

        Args:
          n: index of the environment.
          error: what the environment raised.
          in_reset: whether it failed in `reset`.
          steps: number of steps of the environment so far.
          env: the environment.
          begin: takes a new environment in its place, and returns the first observation.

        Raises:
          EnvError: if the environment must not be created again, or failed too often.
          InvalidStep: in place of `EnvError`, if the environment returned a wrong value.
        """
        while True:
            self._judge(n, error, in_reset, steps)
            try:
                env = self._replace(n, env)
                self.count += 1
                return begin(env)
            except Exception as next_error:
                error, in_reset = next_error, True

    def _judge(self, n: int, error: Exception, in_reset: bool, steps: int) -> None:
        """Raise the error that a user sees, unless the environment is to be created again."""
        if isinstance(error, NoAnswer):
            self._lost.add(n)
        clear = explain(error, self._guard, n, in_reset)
        if self._make is None and isinstance(clear, EnvError):
            clear.advice = clear.advice.removesuffix(f" {RESTART}")
        # Other errors of ours say that something has to be changed before training.
        ends = isinstance(clear, ConfigurationError | TrainingError)
        ends = ends and not isinstance(clear, EnvError | InvalidStep)
        if self._guard.restarts and not ends:
            if not self._failures[n].too_many(steps):
                self._report(n, clear)
                return
            if isinstance(clear, EnvError):
                clear.advice = (
                    f"It was failure number {MAX_FAILURES} of this environment within "
                    f"{WINDOW:,} of its steps. {CORRECT}"
                )
        raise clear from cause_of(error)

    def _report(self, n: int, error: Exception) -> None:
        """Print the first failure of an environment, which no exception shows."""
        if n in self._reported or sys.stderr is None:
            return
        self._reported.add(n)
        problem = error.problem if isinstance(error, EnvError | InvalidStep) else describe(error)
        print(
            f"An environment failed and is created again: {problem} The log counts all restarts as "
            f"env/restarts.",
            file=sys.stderr,
        )

    def renew_lost(self, envs: list[gym.Env], use: Callable[[int, gym.Env], None]) -> None:
        """Make the environments again in which a call has not returned.

        Raises:
          ConfigurationError: if that is impossible.
        """
        for n in sorted(self._lost):
            if self._make is None:
                raise ConfigurationError(
                    f"Environment {n} has not returned from an earlier call, so that it cannot be "
                    "used. Pass another environment to set_env."
                )
            use(n, self._replace(n, envs[n]))

    def _replace(self, n: int, env: gym.Env) -> gym.Env:
        """Return a new environment, and close the old one unless it is stuck in a call."""
        assert self._make is not None
        if n not in self._lost:
            with contextlib.suppress(Exception):
                self.call(env.close)
        new = self.call(self._make)
        self._lost.discard(n)  # not before there is another one in its place
        return new

    def close(self, envs: list[gym.Env]) -> None:
        """Close the environments, except for those that are stuck in a call."""
        with contextlib.ExitStack() as closing:  # closes all, whatever one of them raises
            closing.callback(self._caller.close)
            for n, env in reversed(list(enumerate(envs))):
                if n not in self._lost:
                    closing.callback(self._close_one, n, env)

    def _close_one(self, n: int, env: gym.Env) -> None:
        try:
            self.call(env.close)
        except NoAnswer as error:
            self._lost.add(n)
            place = f" ({error.place})" if error.place else ""
            warnings.warn(
                f"Environment {n} was left open, because its close has not answered for "
                f"{self._guard.timeout:g} s{place}. {LONGER}",
                RuntimeWarning,
                stacklevel=2,
            )
