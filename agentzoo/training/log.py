"""The log of a run: where it is written, and which values every agent has in it."""

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from agentzoo.logging import (
    Logger,
    LogMark,
    TrackersLike,
    Tracking,
    make_folder,
    make_trackers,
    versions,
)
from agentzoo.runners import describe_device
from agentzoo.training.folder import Lock, make_run_folder
from agentzoo.training.session import EpisodeWindow
from agentzoo.types import ConfigurationError, resolve_metrics


class RunMark(NamedTuple):
    """Where the log of a run ends.

    Attributes:
      step: environment steps so far.
      recorded_step: the step up to which the agent's own values are in the log.
      metrics: what the latest training cycle reported.
      logger: where the logger's files end.
    """

    step: int
    recorded_step: int
    metrics: dict[str, Any]
    logger: LogMark


class _FinishedLog(NamedTuple):
    """The log of a finished run that may go on."""

    state: Mapping[str, Any]
    episodes: EpisodeWindow


class RunLog:
    """Writes the log of a run.

    Args:
      log_dir: the folder in which each run gets a folder of its own; None writes nothing.
      run_dir: the folder of the run itself, instead of a folder in `log_dir`.
      trackers: what else gets the entries; see `agentzoo.logging.make_trackers`.

    Attributes:
      log_dir: as given.
      run_dir: as given.
      folder: the folder of the current run, or None.
      lock: keeps others from training in the folder during a run, or None.
      tracking: passes the entries to trackers.
      logger: collects and writes values; callbacks use it, too.
      metrics: what the latest training cycle reported, as JAX arrays by tag.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None,
        run_dir: str | os.PathLike[str] | None = None,
        trackers: TrackersLike = (),
    ):
        if log_dir is not None and run_dir is not None:
            raise ConfigurationError(
                f"log_dir={str(log_dir)!r} and run_dir={str(run_dir)!r} are both given. Pass "
                f"log_dir to number the runs in a folder, or run_dir to name the folder of one run."
            )
        self.log_dir = log_dir
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.folder: Path | None = None
        self.tracking = Tracking(*make_trackers(trackers))
        self.logger = Logger(None, self.tracking)
        self.metrics: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._first_step = 0
        self._recorded_step = 0  # the step up to which the agent's own values are in the log
        self.lock: Lock | None = None
        self._is_prepared = False  # whether the folder and the logger are those of the next run
        self._finished: _FinishedLog | None = None

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
        finished, self._finished = self._finished, None
        if finished is not None and not new:
            assert self.folder is not None
            self._keep_others_out()
            self.restore(self.folder, finished.state)
            self.logger.open()
            # The entry that ends a run comes after its last mark.
            self.dump(step, finished.episodes)
            self._is_prepared = False  # the folder describes the longer run from now on
        if not self._is_prepared and (new or self.folder is None):
            self.folder = self._make_folder(recipe["algorithm"], env_name, host)
            self._keep_others_out()
            self.logger = Logger(self.folder, self.tracking)
        self._keep_others_out()
        self.logger.open()
        is_resumed, self._is_prepared = self._is_prepared and not new, False
        device = describe_device()
        if self.tracking and host == 0:
            name = f"{recipe['algorithm']}_{env_name}" if self.folder is None else self.folder.name
            about = _describe_run(recipe, env_name, device)
            self.tracking.start(self.folder, name, about, goes_on=not new)
        if is_resumed:
            return
        self.logger.write_config({**recipe, **device})
        self._began = time.perf_counter()
        self._first_step = self._recorded_step = step

    def _keep_others_out(self) -> None:
        if self.lock is None and self.folder is not None:
            self.lock = Lock(self.folder)

    def release(self) -> None:
        """Let others train in the folder, and end the runs of trackers that have not ended."""
        self.tracking.finish(False)
        if self.lock is not None:
            self.lock.release()
        self.lock = None

    def end(self, succeeded: bool = True) -> None:
        """Close the files, and say what could not be written.

        Args:
          succeeded: whether the run has come to its end, which trackers show.
        """
        try:
            self.logger.close()
            self.tracking.finish(succeeded)
            if self.logger.unwritten:
                each = [f"{name} ({error})" for name, error in self.logger.unwritten.items()]
                warnings.warn(
                    f"The run has ended, but these could not be written: {'; '.join(each)}. Make "
                    f"room or choose another folder, and save the agent with save(path).",
                    RuntimeWarning,
                    stacklevel=2,
                )
        finally:
            self.release()

    def mark(self, step: int) -> RunMark:
        """Return where the log ends now. It costs little."""
        return RunMark(step, self._recorded_step, self.metrics, self.logger.mark())

    def state(self, mark: RunMark) -> dict[str, Any]:
        """Return where the log ended at a mark as plain JSON, with the files on the disk."""
        return {
            "step": mark.step,
            "recorded_step": mark.recorded_step,
            "first_step": self._first_step,
            "seconds": self.seconds,
            "metrics": resolve_metrics(mark.metrics),
            "logger": self.logger.state(mark.logger),
        }

    def restore(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Resume the log in a folder where it ended. Later entries are removed.

        Args:
          folder: the run folder.
          state: what `state` returned.
        """
        self.folder = folder
        self.logger = Logger(folder, self.tracking)
        try:
            self.logger.restore(state["logger"])
        except ConfigurationError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The log in {folder} cannot be continued, because the saved agent says that it "
                f"ends where it cannot end ({type(error).__name__}: {error}). Use an earlier "
                f"checkpoint."
            ) from error
        self.metrics = dict(state["metrics"])
        self._began = time.perf_counter() - state["seconds"]
        self._first_step, self._recorded_step = state["first_step"], state["recorded_step"]
        self._is_prepared = True

    def rejoin(self, folder: Path) -> None:
        """Add to the log in a folder, of which the saved agent says nothing."""
        self.folder = folder
        self.logger = Logger(folder, self.tracking)
        self._is_prepared = True

    def attach(self, folder: Path, state: Mapping[str, Any], episodes: EpisodeWindow) -> None:
        """Let a continuation of a finished run go on with its log. Until then, nothing changes.

        Args:
          folder: the run folder.
          state: what `state` returned.
          episodes: statistics of the last training episodes at its end.
        """
        self.folder, self._finished = folder, _FinishedLog(state, episodes)

    def restart(self, folder: Path) -> None:
        """Start the log in a folder again. Its earlier entries are removed."""
        self.folder = folder
        self.logger = Logger(folder, self.tracking)
        self.logger.erase()
        self._is_prepared = True

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
        if self.run_dir is not None:
            folder = self.run_dir / f"host_{host}" if host else self.run_dir
            make_run_folder(folder)
            return folder
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


def _describe_run(
    recipe: Mapping[str, Any], env_name: str, device: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the hyperparameters and other facts of a run, as trackers show them."""
    facts = {"algorithm": recipe["algorithm"], "env": env_name, "seed": recipe["seed"]}
    if recipe.get("plan") is not None:
        facts["total_timesteps"] = recipe["plan"]["total"]
    facts |= {"n_envs": recipe["spec"][2], **device}
    packages = {f"versions/{name}": version for name, version in versions().items()}
    return {**recipe["hyperparameters"], **facts, **packages}
