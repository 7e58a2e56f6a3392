"""What callbacks and log have seen of a run, and how that is saved as plain JSON."""

import json
from typing import Any, NamedTuple

from agentzoo.envs import number
from agentzoo.runners import Cycle, Episode, RunState
from agentzoo.training.log import RunMark
from agentzoo.types import ConfigurationError, resolve_metrics


class Mark(NamedTuple):
    """What callbacks and log had seen at the end of a training cycle.

    Attributes:
      act_calls: calls of `act` up to then.
      predictions: calls of `predict` up to then that drew random numbers.
      log: where the log ended.
      callbacks: the state of the callbacks, or None.
    """

    act_calls: int
    predictions: int
    log: RunMark
    callbacks: dict[str, Any] | None


def cycle_to_json(cycle: Cycle) -> dict[str, Any]:
    """Return as plain JSON what callbacks and log need of a training cycle."""
    episodes = [_episode_to_json(episode) for episode in cycle.episodes]
    return {"episodes": episodes, "metrics": resolve_metrics(cycle.metrics)}


def cycle_from_json(data: dict[str, Any], run: RunState) -> Cycle:
    """Return the training cycle that `cycle_to_json` has written.

    Args:
      data: plain JSON.
      run: the state of the run after the cycle.
    """
    return Cycle(run, [Episode(**episode) for episode in data["episodes"]], data["metrics"])


def _episode_to_json(episode: Episode) -> dict[str, Any]:
    """Return an episode as plain JSON, with the numbers and texts of its `info`."""
    info = {name: _plain(value) for name, value in episode.info.items()}
    kept = {name: value for name, value in info.items() if value is not None}
    return {**episode._asdict(), "info": kept}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else number(value)


def plain_json(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the state of callbacks.

    Raises:
      ConfigurationError: if it is not plain JSON.
    """
    try:
        return json.loads(json.dumps(state, default=_plain_number))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"The state of a callback is not plain JSON: {error}. Return numbers, texts, lists and "
            f"dictionaries from its state()."
        ) from error


def _plain_number(value: Any) -> Any:
    """Return an array or a number of NumPy or JAX as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is neither a number nor a text")
