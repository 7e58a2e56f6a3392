"""The log of a run: where it is written, and which values every agent has in it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from agentzoo.logging import Logger, make_folder
from agentzoo.runners import describe_device
from agentzoo.training.session import EpisodeWindow
from agentzoo.types import ConfigurationError, resolve_metrics


class RunLog:
    """Writes the log of a run.

    Args:
      log_dir: the folder in which each run gets a folder of its own; None writes nothing.

    Attributes:
      folder: the folder of the current run, or None.
      logger: collects and writes values; callbacks use it, too.
      metrics: what the latest training cycle reported, as JAX arrays by tag.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None):
        self.log_dir = log_dir
        self.folder: Path | None = None
        self.logger = Logger()
        self.metrics: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._first_step = 0
        self._recorded_step = 0  # the step up to which the agent's own values are in the log

    @property
    def seconds(self) -> float:
        """Seconds since the run began, or since it was continued."""
        return time.perf_counter() - self._began

    def skip(self, step: int) -> None:
        """Say that the agent's values at this step belong to an earlier log."""
        self._recorded_step = step

    def begin(
        self, step: int, new: bool, recipe: Mapping[str, Any], env_name: str, host: int
    ) -> None:
        """Open the log for a run that begins at a step, or that continues there.

        Args:
          step: environment steps so far.
          new: whether the run is a new one.
          recipe: what the agent is made of, as plain JSON.
          env_name: what the name of the folder says about the environments.
          host: index of this process among those that learn together.

        Raises:
          ConfigurationError: if the folder cannot be made.
        """
        if new or self.folder is None:
            self.folder = self._make_folder(recipe["algorithm"], env_name, host)
            self.logger = Logger(self.folder)
        self.logger.open()
        self.logger.write_config({**recipe, **describe_device()})
        self._began = time.perf_counter()
        self._first_step = self._recorded_step = step

    def dump(self, step: int, episodes: EpisodeWindow) -> None:
        """Make the entry of a step. What callbacks recorded at this step belongs to it.

        Args:
          step: environment steps so far.
          episodes: statistics of the last training episodes.
        """
        if step != self._recorded_step:
            self._recorded_step = step
            self._record(step, episodes)
        self.logger.dump(step)

    def _record(self, step: int, episodes: EpisodeWindow) -> None:
        record = self.logger.record
        if episodes.rewards:
            record("rollout/ep_rew_mean", episodes.mean_reward)
            record("rollout/ep_len_mean", episodes.mean_length)
        for name, values in episodes.infos.items():
            tag = "success_rate" if name == "is_success" else f"{name}_mean"
            record(f"rollout/{tag}", np.mean(values))
        elapsed = self.seconds
        record("time/fps", (step - self._first_step) / elapsed)
        record("time/time_elapsed", elapsed)
        for tag, value in resolve_metrics(self.metrics).items():
            record(tag, value)

    def _make_folder(self, algorithm: str, env_name: str, host: int) -> Path | None:
        if self.log_dir is None:
            return None
        log_dir = Path(self.log_dir)
        try:
            return make_folder(log_dir / f"host_{host}" if host else log_dir, algorithm, env_name)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"log_dir={str(self.log_dir)!r} is a file, or lies in one; choose a folder."
            ) from error


def host_index(mesh: Any) -> int:
    """Return the index of this process among those that learn together, 0 if there is only one."""
    return jax.process_index() if mesh is not None else 0
