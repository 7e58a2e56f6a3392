"""Callbacks that run every so many environment steps."""

import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from agentzoo import keywords
from agentzoo.callbacks.base import BaseCallback, CallbackLike, EventCallback
from agentzoo.types import ConfigurationError


class Period:
    """A period of environment steps, and how many of them are over.

    Args:
      name: the name of the argument that holds the period, for the error message.
      steps: the period in environment steps.

    Attributes:
      finished: how many periods were over at the last call of `is_over`.

    Raises:
      ConfigurationError: if the period is not a number of at least 1.
    """

    def __init__(self, name: str, steps: float):
        # Numbers of NumPy are real numbers, too.
        if not (isinstance(steps, numbers.Real) and 1 <= steps < math.inf):
            raise ConfigurationError(
                f"{name}={steps!r} is no period. Pass a number of environment steps, at least 1."
            )
        self._steps = int(steps)
        self.finished = 0

    def start(self, step: int) -> None:
        """Begin to count at an environment step."""
        self.finished = step // self._steps

    def next(self, step: int) -> int:
        """Return the first multiple of the period after `step`."""
        return (step // self._steps + 1) * self._steps

    def is_over(self, step: int) -> bool:
        """Return whether a multiple of the period lies between the last call and `step`."""
        before, self.finished = self.finished, step // self._steps
        return self.finished > before


class EveryNTimesteps(EventCallback):
    """A callback that calls another one every `n_steps` environment steps.

    Args:
      n_steps: environment steps between two calls.
      callback: the callback to call.
    """

    def __init__(self, n_steps: float, callback: CallbackLike):
        super().__init__(callback)
        self._period = Period("n_steps", n_steps)

    def next_step(self, step: int) -> float:
        """Return the next step at which the callback is due."""
        return self._period.next(step)

    def state(self) -> dict[str, Any]:
        """Return the state of this callback and of the callback that it calls."""
        return {**super().state(), "periods": self._period.finished}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self._period.finished = state["periods"]

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._period.start(self.num_timesteps)

    def _on_step(self) -> bool:
        return self._on_event() if self._period.is_over(self.num_timesteps) else True


class LogEveryNTimesteps(EveryNTimesteps):
    """A callback that writes a log entry every `n_steps` environment steps.

    The agent also writes one every `log_interval` steps.
    """

    def __init__(self, n_steps: float):
        super().__init__(n_steps, _dump_logs)


def _dump_logs(agent: Any) -> None:
    agent.dump_logs()


class CheckpointCallback(BaseCallback):
    """A callback that saves the agent every `save_freq` environment steps.

    The files are `<save_path>/<name_prefix>_<step>_steps.safetensors`.

    Args:
      save_freq: environment steps between two files.
      save_path: the folder.
      name_prefix: the beginning of the file names.
      save_replay_buffer: whether to save the replay buffer of an agent that has one.
      verbose: 1 prints each path.
    """

    @keywords.checked
    def __init__(
        self,
        save_freq: float,
        save_path: str | os.PathLike[str],
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.save_path = Path(save_path)
        self.name_prefix = name_prefix
        self.save_replay_buffer = save_replay_buffer
        self._period = Period("save_freq", save_freq)

    def next_step(self, step: int) -> float:
        """Return the next step at which a file is due."""
        return self._period.next(step)

    def state(self) -> dict[str, Any]:
        """Return the state of this callback."""
        return {**super().state(), "periods": self._period.finished}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        super().set_state(state)
        self._period.finished = state["periods"]

    def _on_training_start(self) -> None:
        self._period.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._period.is_over(self.num_timesteps):
            path = self.save_path / f"{self.name_prefix}_{self.num_timesteps}_steps"
            exclude = () if self.save_replay_buffer else ("replay",)
            with self.logger.tolerate(str(path)):
                path = self.model.save(path, exclude=exclude)
                if self.verbose:
                    tqdm.write(f"Saved {path}")
        return True
