"""When a run writes checkpoints of itself."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentzoo.checkpoint import CheckpointStore
from agentzoo.logging import Logger
from agentzoo.training.folder import CHECKPOINTS
from agentzoo.training.plan import RunPlan
from agentzoo.training.session import Session, to_tree

_SECONDS = 300.0  # between two checkpoints, unless the user has chosen a number of steps


class Checkpoints:
    """Writes the checkpoints of a run during training.

    How often checkpoints are written does not change what is learned or logged.

    Args:
      folder: the run folder.
      plan: says how often a checkpoint is written, and how many are kept.
      step: the step at which the run starts or is resumed.
      logger: the log, which records which checkpoints cannot be written.
    """

    def __init__(self, folder: Path, plan: RunPlan, step: int, logger: Logger):
        self._store = CheckpointStore(folder / CHECKPOINTS, plan.keep)
        self._freq = plan.checkpoint_freq
        self._logger = logger
        self._last_step = step
        self._last_time = time.monotonic()

    def next_step(self, step: int) -> float:
        """Return the first step after `step` at which a checkpoint is due."""
        return math.inf if self._freq is None else (step // self._freq + 1) * self._freq

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is due at a step."""
        if self._freq is None:
            return time.monotonic() - self._last_time >= _SECONDS
        return step // self._freq > self._last_step // self._freq

    def write(self, session: Session, recipe: Mapping[str, Any], wait: bool = False) -> None:
        """Write a checkpoint while training continues.

        Args:
          session: the session.
          recipe: what the agent is made of, as plain JSON.
          wait: return when the checkpoint is on the disk.
        """
        self._last_step, self._last_time = session.run.step, time.monotonic()
        tree, manifest = to_tree(session, recipe)
        score = session.episodes.mean_reward
        self._store.write(
            session.run.step, tree, manifest, None if math.isnan(score) else score, wait
        )
        self._note_error()

    @property
    def is_written(self) -> bool:
        """Whether the last checkpoint is on the disk. `close` waits for it."""
        return self._store.error is None

    def close(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        self._store.wait()
        self._note_error()

    def _note_error(self) -> None:
        with self._logger.tolerate("checkpoints"):
            if self._store.error is not None:
                raise self._store.error
