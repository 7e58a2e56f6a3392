"""How long a run trains, what it writes, and how it was interrupted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentzoo import config as configs
from agentzoo.types import ConfigurationError


class RunPlan(NamedTuple):
    """The arguments of `learn`, which `agentzoo.resume` needs again.

    Attributes:
      total: the step at which the run ends.
      log_interval: environment steps between two entries of the log.
      checkpoint_freq: environment steps between two checkpoints; None for one every five minutes.
      keep: how many of the last checkpoints are kept, besides the best one.
      progress_bar: whether to show a progress bar.
    """

    total: int
    log_interval: int
    checkpoint_freq: int | None = None
    keep: int = 2
    progress_bar: bool = True

    @classmethod
    def make(
        cls, total: int, log_interval: Any, checkpoint_freq: Any, keep: Any, progress_bar: Any
    ) -> "RunPlan":
        """Check the arguments of `learn`, and make Python's numbers of NumPy's.

        Raises:
          ConfigurationError: if an argument is out of range.
        """
        if checkpoint_freq is not None:
            checkpoint_freq = configs.integer("checkpoint_freq", checkpoint_freq, 1)
        keep = configs.integer("keep", keep, 1)
        log_interval = configs.integer("log_interval", log_interval, 1)
        return cls(total, log_interval, checkpoint_freq, keep, bool(progress_bar))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON."""
        return self._asdict()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunPlan":
        """Return the plan that `to_json` has written.

        Raises:
          ConfigurationError: if it is not one.
        """
        if not (set(cls._fields) <= data.keys()):
            raise ConfigurationError(
                "The run's plan is incomplete. Load the agent with agentzoo.load, and call learn."
            )
        total = configs.integer("total", data["total"], 1)
        return cls.make(total, *(data[name] for name in cls._fields[1:]))
