"""Scalars and texts of a run, for TensorBoard, CSV files, callbacks and progress bars."""

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


_writers = itertools.count()


class Logger:
    """Collects scalars and texts by tag and writes them out together.

    All that is dumped at one step is one entry.

    Attributes:
      folder: where to, or None to write nothing.
      values: the scalars and texts of the latest entry.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.values: dict[str, Any] = {}
        self._pending: dict[str, Any] = {}
        self._counts: dict[str, int] = {}  # of the numbers in the means of `record_mean`
        self._excluded: dict[str, tuple[str, ...]] = {}  # where not to write what is pending
        self._hidden: dict[str, tuple[str, ...]] = {}  # where not to write the latest entry
        self._step: int | None = None  # of the latest entry
        self._written = self.values  # what the files hold of it
        self._row: int | None = None  # the byte of the CSV file at which its row begins
        self._columns: list[str] = []
        self._writer: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._csv = folder / "progress.csv"
            if self._csv.exists():
                with open(self._csv, newline="") as file:
                    self._columns = next(csv.reader(file), [])
            self.open()

    def open(self) -> None:
        """Opens the files, again if they were closed."""
        if self.folder is None or self._writer is not None:
            return
        from tensorboardX import (
            SummaryWriter,
        )  # here, since it is slow to import and not every run needs it

        # TensorBoard reads the files of a folder in the order of their names, which tensorboardX
        # makes from the second and the host.
        suffix = f".{os.getpid()}.{next(_writers):06}"
        self._writer = SummaryWriter(str(self.folder), filename_suffix=suffix)

    @property
    def name_to_value(self) -> MutableMapping[str, Any]:
        """What was recorded for the next `dump`, and for other tags what the latest one wrote."""
        return ChainMap(self._pending, self.values)

    def record(self, tag: str, value: Any, exclude: str | Iterable[str] | None = None) -> None:
        """Sets a scalar or a text of the next `dump`.

        Args:
          tag: the name, such as "group/name".
          value: a number, an array with one element, or a text. None records nothing.
          exclude: where not to write the value: "csv", "tensorboard", or several of them. Other
            names have no effect.

        Raises:
          ConfigurationError: if the value is something else.
        """
        if value is not None:
            self._pending[tag] = _scalar_or_text(tag, value)
            self._excluded[tag] = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())

    def record_mean(self, tag: str, value: Any, exclude: str | Iterable[str] | None = None) -> None:
        """Sets a scalar of the next `dump` to the mean of all values that are given until then.

        None does not count.
        """
        if value is None:
            return
        count = self._counts.get(tag, 0)
        mean, number = self._pending.get(tag, 0.0) if count else 0.0, _scalar(tag, value)
        self._counts[tag] = count + 1
        self.record(tag, mean + (number - mean) / (count + 1), exclude)

    def dump(self, step: int = 0) -> None:
        """Makes an entry of what was recorded at an environment step.

        If the latest entry is of the same step, it becomes a part of that entry.
        """
        new, self._pending, self._counts = self._pending, {}, {}
        excluded, self._excluded = self._excluded, {}
        if not new:
            return
        if step != self._step:
            self.flush()
            self.values, self._hidden = {}, {}
            self._step, self._written, self._row = step, self.values, None
        self.values = {**self.values, **new}
        self._hidden.update(excluded)
        if self._writer is None:
            self.open()
            self.close()

    def flush(self) -> None:
        """Writes the latest entry to the files.

        While an agent learns, this is done when all callbacks have been called.
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
        """The values of the latest entry that are to be written to a place."""
        hidden = {tag for tag, places in self._hidden.items() if place in places}
        return {tag: value for tag, value in self.values.items() if tag not in hidden}

    def write_config(self, config: dict[str, Any]) -> None:
        """Records what is being run, and with which versions, as `config.json` and as text in TensorBoard."""
        if self.folder is None:
            return
        text = json.dumps(config | {"versions": versions()}, indent=2)
        (self.folder / "config.json").write_text(text + "\n")
        self._writer.add_text("config", f"```\n{text}\n```")

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write_row(self, row: dict[str, Any]) -> None:
        """Appends the row of the latest entry to the CSV file, or replaces it if it was written before."""
        if self._row is not None and self._csv.exists():
            os.truncate(self._csv, self._row)
        if not self._csv.exists() or not row.keys() <= set(self._columns):
            self._columns += [tag for tag in row if tag not in self._columns]
            self._write_header()
        with open(self._csv, "a", newline="") as file:
            self._row = file.tell()
            csv.DictWriter(file, self._columns).writerow(row)

    def _write_header(self) -> None:
        """Writes the CSV file anew with the columns that there are now."""
        rows = []
        if self._csv.exists():
            with open(self._csv, newline="") as file:
                rows = list(csv.DictReader(file))
        temporary = self._csv.with_name(f".{self._csv.name}")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._csv)  # so that rows are never lost


def _scalar_or_text(tag: str, value: Any) -> float | str:
    """The value as a float, or as a text.

    Raises:
      ConfigurationError: if it is neither.
    """
    if isinstance(value, str):
        return value
    return _scalar(tag, value)


def _scalar(tag: str, value: Any) -> float:
    array = np.asarray(value)
    with contextlib.suppress(TypeError, ValueError):
        if array.size == 1 and array.dtype.kind != "S":
            return float(array.reshape(())[()])
    what = f"{type(value).__name__} of shape {array.shape}" if array.shape else type(value).__name__
    raise ConfigurationError(f"The value of {tag!r} is of type {what}; record a number or a text.")


def versions() -> dict[str, str]:
    """Versions of Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree that is not installed
    return found


def make_folder(log_dir: str | os.PathLike[str], *names: str | None) -> Path:
    """Makes the folder of a run, `log_dir/name_name_N`.

    N is larger than that of the folders that exist.

    Runs that begin at the same time, in threads or in processes, get folders of their own.

    Args:
      log_dir: the folder of all runs.
      *names: what the name of the folder consists of, such as the algorithm and the environment's
        id. Characters that have a meaning in paths become "-", and None is left out.
    """
    log_dir = Path(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    prefix = "_".join(re.sub(r"[^\w.+-]+", "-", name).strip("-") for name in names if name) + "_"
    numbers = [
        path.name.removeprefix(prefix) for path in log_dir.iterdir() if path.name.startswith(prefix)
    ]
    for number in itertools.count(
        max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
    ):
        folder = log_dir / f"{prefix}{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue  # another run was faster
    raise AssertionError("unreachable")
