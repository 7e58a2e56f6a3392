"""The log of a run: scalars and texts in TensorBoard and CSV files, and its folder."""

import contextlib
import csv
import importlib.metadata
import itertools
import json
import os
import platform
import re
from collections import ChainMap
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from agentzoo.types import ConfigurationError

PACKAGES = ("agentzoo", "jax", "jaxlib", "dm-haiku", "optax", "gymnasium", "numpy")

# Numbers the TensorBoard files of this process.
_writers = itertools.count()


class Logger:
    """A log of scalars and texts by tag, in TensorBoard and CSV files.

    All values that are dumped at one environment step form one entry of the log.

    Attributes:
      folder: the folder of the files, or None to write no files.
      values: the scalars and texts of the latest entry.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.values: dict[str, Any] = {}
        # Values that were recorded for the next entry, by tag.
        self._pending: dict[str, Any] = {}
        self._counts: dict[str, int] = {}  # how many values each mean of `record_mean` has so far
        self._excluded: dict[str, tuple[str, ...]] = {}  # the places to leave out
        # The latest entry.
        self._step: int | None = None
        self._hidden: dict[str, tuple[str, ...]] = {}  # the places to leave out, by tag
        self._written = self.values  # the values that are in the files
        self._row: int | None = None  # the byte of the CSV file at which the row begins
        # The files.
        self._columns: list[str] = []
        self._writer: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._csv = folder / "progress.csv"
            if self._csv.exists():
                with open(self._csv, newline="") as file:
                    self._columns = next(csv.reader(file), self._columns)
            self.open()

    def open(self) -> None:
        """Open the files if they are not open."""
        if self.folder is None or self._writer is not None:
            return
        # Imported here because it is slow to import and not every run needs it.
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]

        # TensorBoard reads the files of a folder in the order of their names. The names of
        # tensorboardX consist of the second and the host alone, so a number is added.
        suffix = f".{os.getpid()}.{next(_writers):06}"
        self._writer = SummaryWriter(str(self.folder), filename_suffix=suffix)

    @property
    def name_to_value(self) -> MutableMapping[str, Any]:
        """The values recorded for the next entry, and for all other tags those of the latest."""
        return ChainMap(self._pending, self.values)

    def record(self, tag: str, value: Any, exclude: str | Iterable[str] | None = None) -> None:
        """Set a scalar or a text of the next entry.

        Args:
          tag: the name, such as "group/name".
          value: a number, an array with one element, or a text. None records nothing.
          exclude: where not to write the value: "csv", "tensorboard", or both. Other names have no
            effect.

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
            self._step, self._row = step, None
        self.values = {**self.values, **new}
        self._hidden.update(excluded)
        if self._writer is None:
            self.open()
            self.close()

    def flush(self) -> None:
        """Write the latest entry to the files.

        While an agent learns, this happens after all callbacks have run.
        """
        if self._writer is None or self.values is self._written:
            return
        for tag, value in self._visible("tensorboard").items():
            if (tag, value) not in self._written.items():
                add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
                add(tag, value, self._step)
        row = self._visible("csv")
        if row:
            self._write_row({"time/total_timesteps": self._step, **row})
        self._written = self.values

    def _visible(self, place: str) -> dict[str, Any]:
        """Return the values of the latest entry that a place ("csv", "tensorboard") gets."""
        hidden = {tag for tag, places in self._hidden.items() if place in places}
        return {tag: value for tag, value in self.values.items() if tag not in hidden}

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the settings of a run and the versions of packages.

        They are written to `config.json` and, as a text, to TensorBoard.
        """
        if self.folder is None:
            return
        text = json.dumps(config | {"versions": versions()}, indent=2)
        (self.folder / "config.json").write_text(text + "\n")
        self._writer.add_text("config", f"```\n{text}\n```")

    def close(self) -> None:
        """Write the latest entry, and close the files."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write_row(self, row: dict[str, Any]) -> None:
        """Append the row of the latest entry to the CSV file, or replace it if it is there."""
        if self._row is not None and self._csv.exists():
            # The row of the latest entry is the last one, so that cutting off the file removes it.
            os.truncate(self._csv, self._row)
        if not self._csv.exists() or not row.keys() <= set(self._columns):
            self._columns += [tag for tag in row if tag not in self._columns]
            self._write_columns()
        with open(self._csv, "a", newline="") as file:
            self._row = file.tell()
            csv.DictWriter(file, self._columns).writerow(row)

    def _write_columns(self) -> None:
        """Write the CSV file again, with all columns that exist now."""
        rows: list[dict[str, str]] = []
        if self._csv.exists():
            with open(self._csv, newline="") as file:
                rows = list(csv.DictReader(file))
        temporary = self._csv.with_name(f".{self._csv.name}")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._csv)  # all or nothing, so that no row is ever lost


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
