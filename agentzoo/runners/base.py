"""What all runners share: the interface, the state of a run, and what a training cycle reports."""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from agentzoo.types import Array


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
      reward: the sum of its rewards.
      length: its number of steps.
      info: entries of the `info` of its last step.
      env: the index of the environment in which it took place.
    """

    reward: float
    length: int
    info: Mapping[str, Any] = MappingProxyType({})
    env: int = 0


class RunState(NamedTuple):
    """How far a run has come. Its arrays and integers form one pytree.

    Attributes:
      learner_state: what the agent's `init` and `learn` return.
      key: the key from which the random numbers of acting are derived.
      step: environment steps of this run, by all environments together.
      act_calls: calls of `act` since the agent was made, by all actors together. With the key, it
        determines the random numbers of the next call.
    """

    learner_state: Any
    key: Array
    step: int
    act_calls: int


class Cycle(NamedTuple):
    """What a runner yields after each training cycle, or after several.

    Attributes:
      run: the state of the run.
      episodes: the episodes that ended in these cycles.
      metrics: the metrics of the last cycle, or of the one that went wrong.
      fault: a message that says why training cannot continue; None if it can.
    """

    run: RunState
    episodes: list[Any]
    metrics: dict[str, Any]
    fault: str | None = None


class Runner(Protocol):
    """Moves trajectories between environments and an agent.

    A runner keeps the environments' episodes between calls of `run`.

    Attributes:
      compiled: whether the environments are compiled.
      rollout_state: the state of the environments and of their episodes after the last training
        cycle, if it can be saved. With a `RunState`, it is all that a run continues from. None if
        it cannot be saved.
      name: identifies environments whose `rollout_state` is interchangeable; None if the state
        cannot be saved.
      resumed: why episodes were not resumed that should have been, as a sentence; None if all
        were. A trainer sets it if it has no `rollout_state` to resume.
      busy: whether actors in other threads are stepping the environments at this moment.
    """

    compiled: bool = False
    rollout_state: Any = None
    name: str | None = None
    resumed: str | None = None
    busy: bool = False

    def finished(self) -> Cycle | None:
        """Return the last training cycle that was run, or None before the first one of `run`.

        It may not have been yielded if an exception came in between.
        """
        return None

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes. Without a seed, the environments' random numbers continue."""
        ...

    def resume(self) -> None:
        """Bring the environments to where `rollout_state` says, and set `resumed`."""

    def state_template(self) -> Any:
        """Return a tree with the structure, shapes and dtypes of `rollout_state`."""
        return None

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Act and learn until `total` environment steps are done.

        A runner yields after each training cycle or after several, but no later than after the
        cycle that reaches the step `next_stop(step)`.
        """
        ...

    def infos(self) -> list[dict[str, Any]]:
        """Return the newest `info` of each environment; an empty list if it is not available."""
        return []
