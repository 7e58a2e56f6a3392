"""Weights & Biases as a tracker."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from agentzoo.logging.tracking import TrackedRun
from agentzoo.types import ConfigurationError


class WandbTracker:
    """Sends the log to Weights & Biases (`pip install 'agentzoo[wandb]'`).

    A run that is resumed goes on with the same W&B run. The files of W&B lie in the run folder.

    Args:
      project: the project; None for the environment variable `WANDB_PROJECT`, or "agentzoo".
      name: the name of the run; None for the name of the run folder.
      mode: "online", "offline" or "disabled"; None for `WANDB_MODE`, or "online".
      **options: further arguments of `wandb.init`, such as `entity`, `group` and `tags`.

    Attributes:
      name: "wandb".
      run: the W&B run while an agent trains, and the last one afterwards; None before.

    Raises:
      ConfigurationError: if wandb is not installed.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        mode: str | None = None,
        **options: Any,
    ):
        if importlib.util.find_spec("wandb") is None:
            raise ConfigurationError(
                "Weights & Biases needs a package that is not installed. "
                "Run: pip install 'agentzoo[wandb]'"
            )
        self.name = "wandb"
        self.run: Any = None
        self._options = {"project": project, "name": name, "mode": mode, **options}

    def start(self, run: TrackedRun) -> str:
        """Begin a W&B run, or go on with one."""
        import wandb

        given = {key: value for key, value in self._options.items() if value is not None}
        defaults: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", "agentzoo"),
            "name": run.name,
            "dir": run.folder,
            "reinit": "create_new",  # several agents can train in one process
            # W&B reads its environment variables once in a process, but they may change between
            # two runs.
            "mode": os.environ.get("WANDB_MODE") or "online",
        }
        self.run = wandb.init(
            **{**defaults, **given}, config=dict(run.config), id=run.id, resume="allow"
        )
        return self.run.id

    def log(self, values: Mapping[str, float | str], step: int) -> None:
        """Send the values of a step."""
        self.run.log(dict(values), step=step)

    def finish(self, succeeded: bool) -> None:
        """Upload what is left, and end the W&B run."""
        self.run.finish(exit_code=0 if succeeded else 1)
