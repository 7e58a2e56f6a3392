"""Scalars of a run: to TensorBoard and CSV files in a folder, and kept for callbacks and progress bars."""

import csv
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("agentzoo", "jax", "jaxlib", "dm-haiku", "optax", "gymnasium", "numpy")


class Logger:
    """Collects scalars by tag and writes them out together.

    Attributes:
      folder: where to, or None to write nothing.
      values: the scalars of the latest `dump`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.values: dict[str, float] = {}
        self._pending: dict[str, float] = {}
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

    def record(self, tag: str, value: float) -> None:
        """Sets a scalar of the next `dump`."""
        self._pending[tag] = float(value)

    def dump(self, step: int) -> None:
        """Writes the recorded scalars at an environment step."""
        self.values, self._pending = self._pending, {}
        if self.folder is None or not self.values:
            return
        for tag, value in self.values.items():
            self._writer.add_scalar(tag, value, step)
        row = {"time/total_timesteps": step, **self.values}
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
