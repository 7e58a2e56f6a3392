"""The log of a run: scalars and texts in TensorBoard and CSV files, and its folder."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import warnings
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentzoo.logging.files import Events, Table, write_whole
from agentzoo.logging.tracking import Tracking
from agentzoo.types import ConfigurationError

PACKAGES = ("agentzoo", "jax", "jaxlib", "dm-haiku", "optax", "gymnasium", "numpy")


class LogMark(NamedTuple):
    """Where a log ends.

    Attributes:
      step: the environment step of the latest entry.
      values: the scalars and texts of the latest entry.
      written: those of them that are in the files.
      hidden: the places to leave out, by tag, for the latest entry.
      pending: values that were recorded for the next entry, by tag.
      excluded: the places to leave out, by tag, for the next entry.
      counts: how many values each mean of `record_mean` has so far.
      table: the end of the table.
      events: the end of the TensorBoard files.
    """

    step: int | None
    values: dict[str, Any]
    written: dict[str, Any]
    hidden: dict[str, tuple[str, ...]]
    pending: dict[str, Any]
    excluded: dict[str, tuple[str, ...]]
    counts: dict[str, int]
    table: Any
    events: Any


class Logger:
    """A log of scalars and texts by tag, in TensorBoard and CSV files, and at trackers.

    All values that are dumped at one environment step form one entry of the log. If the files
    cannot be written, training continues, and entries stay in memory until they can be written.

    Args:
      folder: the folder of the files, or None to write no files.
      tracking: passes the entries to trackers, or None.

    Attributes:
      folder: as given.
      tracking: as given.
      values: the scalars and texts of the latest entry.
      unwritten: the error of each file that could not be written the last time, by name.
    """

    def __init__(self, folder: Path | None = None, tracking: Tracking | None = None):
        self.folder = folder
        self.tracking = tracking or None
        self.values: dict[str, Any] = {}
        self.unwritten: dict[str, OSError] = {}
        # Values that were recorded for the next entry, by tag.
        self._pending: dict[str, Any] = {}
        self._counts: dict[str, int] = {}  # how many values each mean of `record_mean` has so far
        self._excluded: dict[str, tuple[str, ...]] = {}  # the places to leave out
        # The latest entry.
        self._step: int | None = None
        self._hidden: dict[str, tuple[str, ...]] = {}  # the places to leave out, by tag
        self._written = self.values  # the values that are in the files
        # The files.
        self._is_open = False
        self._config: str | None = None  # the text of `config.json` until it is written
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._table = Table(folder / "progress.csv")
            self._events = Events(folder)
        self.open()

    def open(self) -> None:
        """Open the files if they are not open."""
        if self._is_open:
            return
        if self.folder is not None:
            self._events.open()
        self._is_open = self.folder is not None or self.tracking is not None

    @property
    def name_to_value(self) -> MutableMapping[str, Any]:
        """The values recorded for the next entry, and for all other tags those of the latest."""
        return ChainMap(self._pending, self.values)

    def record(self, tag: str, value: Any, exclude: str | Iterable[str] | None = None) -> None:
        """Set a scalar or a text of the next entry.

        Args:
          tag: the name, such as "group/name".
          value: a number, an array with one element, or a text. None records nothing.
          exclude: where not to write the value: "csv", "tensorboard", the name of a tracker, or
            several of these. Other names have no effect.

        Raises:
          ConfigurationError: if the value is something else.
        """
        if value is not None:
            self._pending[tag] = _scalar_or_text(tag, value)
            self._excluded[tag] = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())

    def record_mean(self, tag: str, value: Any, exclude: str | Iterable[str] | None = None) -> None:
        """Add a value to the mean that is recorded for the next entry.

        Args:
          tag: the name, such as "group/name".
          value: a number, or an array with one element. None adds nothing.
          exclude: where not to write the mean; see `record`.

        Raises:
          ConfigurationError: if the value is something else.
        """
        if value is None:
            return
        count = self._counts.get(tag, 0)
        mean = self._pending.get(tag, 0.0) if count else 0.0
        self._counts[tag] = count + 1
        self.record(tag, mean + (_scalar(tag, value) - mean) / (count + 1), exclude)

    def dump(self, step: int = 0) -> None:
        """Make an entry of all recorded values at an environment step.

        If the latest entry has the same step, the values become part of it.
        """
        new, self._pending = self._pending, {}
        excluded, self._excluded = self._excluded, {}
        self._counts = {}
        if not new:
            return
        if step != self._step:
            self.flush()
            self.values, self._hidden = {}, {}
            self._written = self.values
            self._step = step
            if self.folder is not None:
                self._table.next_row()
        self.values = {**self.values, **new}
        self._hidden = {**self._hidden, **excluded}
        if not self._is_open:
            self.open()
            self.close()

    def flush(self) -> None:
        """Write the latest entry to the files, and pass it to the trackers.

        While an agent learns, this happens after all callbacks have run.
        """
        if not self._is_open or self.values is self._written:
            return
        before, self._written = self._written, self.values
        if self.folder is not None:
            self._write_entry(before)
        if self.tracking is not None and self._step is not None:
            self.tracking.log(self._visible, self._step)

    def _write_entry(self, before: Mapping[str, Any]) -> None:
        """Write the latest entry, of which the values in `before` are in the files."""
        for tag, value in self._visible("tensorboard").items():
            if (tag, value) not in before.items():
                self._events.add(tag, value, self._step)
        row = self._visible("csv")
        with self.tolerate("progress.csv"):
            if row:
                self._table.write({"time/total_timesteps": self._step, **row})
        self._write_events()

    def sync(self) -> None:
        """Write the latest entry, and make sure that the files survive a crash of the machine."""
        self.flush()
        self._sync()

    def _sync(self) -> None:
        if self.folder is not None:
            with self.tolerate("progress.csv"):
                self._table.sync()
            with self.tolerate("the TensorBoard files"):
                self._events.sync()

    def _write_events(self) -> None:
        with self.tolerate("the TensorBoard files"):
            self._events.flush()

    @contextlib.contextmanager
    def tolerate(self, name: str) -> Iterator[None]:
        """Let training continue if a file cannot be written.

        The first such error of a run causes a warning. `unwritten` lists the files that could not
        be written the last time.

        Args:
          name: what is written.
        """
        try:
            yield
        except OSError as error:
            first = not self.unwritten
            self.unwritten[name] = error
            if first:
                warnings.warn(
                    f"{name} could not be written: {error}. Training goes on, and tries again.",
                    RuntimeWarning,
                    stacklevel=3,
                )
        else:
            self.unwritten.pop(name, None)

    def _visible(self, place: str) -> dict[str, Any]:
        """Return the values of the latest entry that a place ("csv", "wandb", ...) gets."""
        hidden = {tag for tag, places in self._hidden.items() if place in places}
        return {tag: value for tag, value in self.values.items() if tag not in hidden}

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the settings of a run and the versions of packages.

        They are written to `config.json` and, as a text, to TensorBoard.
        """
        if self.folder is None:
            return
        text = json.dumps(config | {"versions": versions()}, indent=2)
        self._config = text + "\n"
        self._write_config()
        self._events.add("config", f"```\n{text}\n```")
        self._write_events()

    def _write_config(self) -> None:
        if self.folder is not None and self._config is not None:
            with self.tolerate("config.json"):
                write_whole(self.folder / "config.json", self._config)
                self._config = None

    def close(self) -> None:
        """Write the latest entry, and close the files."""
        self.flush()
        if self.folder is not None and self._is_open:
            self._write_config()
            with self.tolerate("progress.csv"):
                self._table.flush()
            self._write_events()
            self._events.close()
        self._is_open = False

    def mark(self) -> LogMark:
        """Return where the log ends now. The call is cheap, and the result never changes."""
        return LogMark(
            self._step,
            self.values,
            self._written,
            self._hidden,
            dict(self._pending),
            dict(self._excluded),
            dict(self._counts),
            None if self.folder is None else self._table.mark(),
            None if self.folder is None else self._events.mark(),
        )

    def state(self, mark: LogMark | None = None) -> dict[str, Any]:
        """Return where the log ends as plain JSON, after writing the files to the disk.

        Args:
          mark: an earlier end; None for now.
        """
        mark = self.mark() if mark is None else mark
        state = {**mark._asdict(), "table": None, "events": None}
        if mark.written is mark.values:
            state["written"] = None
        self._sync()
        if self.folder is not None:
            state["table"] = self._table.state(mark.table)
            state["events"] = self._events.state(mark.events)
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume a log where it ended. Later entries are removed from the files.

        Args:
          state: what `state` returned.

        Raises:
          OSError: if the files cannot be written.
        """
        self._step = state["step"]
        self.values = dict(state["values"])
        self._written = self.values if state["written"] is None else dict(state["written"])
        self._hidden = {tag: tuple(places) for tag, places in state["hidden"].items()}
        self._pending = dict(state["pending"])
        self._excluded = {tag: tuple(places) for tag, places in state["excluded"].items()}
        self._counts = dict(state["counts"])
        if self.folder is not None and state["table"] is not None:
            self._table.cut(state["table"])
            self._events.close()
            self._events.cut(state["events"])
            self._is_open = False
            self.open()

    def erase(self) -> None:
        """Remove all entries from the files."""
        empty = Logger()
        table = {"columns": [], "rows": 0, "latest": None, "unwritten": []}
        self.restore({**empty.state(), "table": table, "events": {"sizes": {}, "unwritten": ""}})


def _scalar_or_text(tag: str, value: Any) -> float | str:
    return value if isinstance(value, str) else _scalar(tag, value)


def _scalar(tag: str, value: Any) -> float:
    """Return a number, or an array with one element, as a float.

    Raises:
      ConfigurationError: if the value is something else.
    """
    array = np.asarray(value)
    with contextlib.suppress(TypeError, ValueError):
        if array.size == 1 and array.dtype.kind != "S":
            return float(array.reshape(())[()])
    what = f"{type(value).__name__} of shape {array.shape}" if array.shape else type(value).__name__
    raise ConfigurationError(f"The value of {tag!r} is of type {what}. Record a number or a text.")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        # A source tree that is not installed has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def make_folder(log_dir: str | os.PathLike[str], *names: str | None) -> Path:
    """Make the folder of a run, `log_dir/name_name_N`, and return its path.

    N is one more than the largest number among the existing folders. Runs that begin at the same
    time, in threads or in processes, get different folders.

    Args:
      log_dir: the folder of all runs.
      *names: the parts of the name, such as the algorithm and the id of the environment. Characters
        that have a meaning in paths become "-". None is left out.
    """
    log_dir = Path(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    prefix = "_".join(re.sub(r"[^\w.+-]+", "-", name).strip("-") for name in names if name) + "_"
    existing = [path.name for path in log_dir.iterdir() if path.name.startswith(prefix)]
    suffixes = [name.removeprefix(prefix) for name in existing]
    number = max((int(suffix) for suffix in suffixes if suffix.isdecimal()), default=0)
    while True:
        number += 1
        folder = log_dir / f"{prefix}{number}"
        # If another run was faster, the folder exists now, and the next number is tried.
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
