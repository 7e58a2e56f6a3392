"""Scalars and texts of a run, for TensorBoard, CSV files, callbacks and progress bars."""

import contextlib
import csv
import importlib.metadata
import json
import platform
from collections import ChainMap
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from agentzoo.types import ConfigurationError

PACKAGES = ("agentzoo", "jax", "jaxlib", "dm-haiku", "optax", "gymnasium", "numpy")


class Logger:
    """Collects scalars and texts by tag and writes them out together.

    Attributes:
      folder: where to, or None to write nothing.
      values: the scalars and texts of the latest `dump`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.values: dict[str, Any] = {}
        self._pending: dict[str, Any] = {}
        self._counts: dict[str, int] = {}  # of the numbers in the means of `record_mean`
        self._excluded: dict[str, tuple[str, ...]] = {}
        self._columns: list[str] = []
        self._writer: Any = None
        if folder is not None:
            from tensorboardX import SummaryWriter  # here, since it is slow to import and not every run needs it

            folder.mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(str(folder))
            self._csv = folder / "progress.csv"
            if self._csv.exists():
                with open(self._csv, newline="") as file:
                    self._columns = next(csv.reader(file), [])

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
        """Writes what was recorded at an environment step."""
        self.values, self._pending, self._counts = self._pending, {}, {}
        excluded, self._excluded = self._excluded, {}
        if self.folder is None or not self.values:
            return
        for tag, value in self.values.items():
            if "tensorboard" not in excluded.get(tag, ()):
                add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
                add(tag, value, step)
        hidden = {tag for tag, places in excluded.items() if "csv" in places}
        kept = {tag: value for tag, value in self.values.items() if tag not in hidden}
        if not kept:
            return
        row = {"time/total_timesteps": step, **kept}
        new = [tag for tag in row if tag not in self._columns]
        if new:
            self._add_columns(new)
        with open(self._csv, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def write_config(self, config: dict[str, Any]) -> None:
        """Records what is being run, and with which versions, as `config.json` and as text in TensorBoard."""
        if self.folder is None:
            return
        text = json.dumps(config | {"versions": versions()}, indent=2)
        (self.folder / "config.json").write_text(text + "\n")
        self._writer.add_text("config", f"```\n{text}\n```")

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._writer is not None:
            self._writer.close()

    def _add_columns(self, new: list[str]) -> None:
        """Writes the CSV file anew with more columns."""
        rows = []
        if self._csv.exists():
            with open(self._csv, newline="") as file:
                rows = list(csv.DictReader(file))
        self._columns += new
        with open(self._csv, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


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


def next_folder(log_dir: str | Path, name: str) -> Path:
    """The first folder `name_1`, `name_2`, ... of `log_dir` that comes after those that exist."""
    numbers = [path.name.removeprefix(f"{name}_") for path in Path(log_dir).glob(f"{name}_*")]
    return Path(log_dir) / f"{name}_{max((int(number) for number in numbers if number.isdigit()), default=0) + 1}"
