"""Scalars of a run: to TensorBoard and CSV files in a folder, and kept for callbacks and progress bars."""

import csv
import importlib.metadata
import itertools
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

PACKAGES = ("agentzoo", "jax", "jaxlib", "dm-haiku", "optax", "gymnasium", "numpy")


_writers = itertools.count()


class Logger:
    """Collects scalars by tag and writes them out together. All that is written at one step is one entry.

    Attributes:
      folder: where to, or None to write nothing.
      values: the scalars of the latest entry.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.values: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._step: int | None = None  # of the latest entry
        self._written = self.values  # what the files hold of it
        self._row = 0  # the byte of the CSV file at which its row begins
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
        from tensorboardX import SummaryWriter  # here, since it is slow to import and not every run needs it

        # TensorBoard reads the files of a folder in the order of their names, which tensorboardX makes from the second and the host.
        suffix = f".{os.getpid()}.{next(_writers):06}"
        self._writer = SummaryWriter(str(self.folder), filename_suffix=suffix)

    def record(self, tag: str, value: float) -> None:
        """Sets a scalar of the next `dump`."""
        self._pending[tag] = float(value)

    def dump(self, step: int) -> None:
        """Makes an entry of the recorded scalars at an environment step, or adds them to the entry of that step if it is the latest."""
        new, self._pending = self._pending, {}
        if not new:
            return
        if step != self._step:
            self.flush()
            self.values, self._step = {}, step
            self._written = self.values
        self.values = {**self.values, **new}
        if self._writer is None:
            self.open()
            self.close()

    def flush(self) -> None:
        """Writes the latest entry to the files. While an agent learns, this is done when all callbacks have been called."""
        if self._writer is None or self.values is self._written:
            return
        for tag, value in self.values.items():
            if (tag, value) not in self._written.items():
                self._writer.add_scalar(tag, value, self._step)
        self._write_row({"time/total_timesteps": self._step, **self.values}, replaces=bool(self._written))
        self._written = self.values

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

    def _write_row(self, row: dict[str, Any], replaces: bool) -> None:
        """Appends a row to the CSV file, or replaces the last one."""
        if replaces and self._csv.exists():
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
    """Makes the folder of a run, `log_dir/name_name_N`. N is larger than that of the folders that exist.

    Runs that begin at the same time, in threads or in processes, get folders of their own.

    Args:
      log_dir: the folder of all runs.
      *names: what the name of the folder consists of, such as the algorithm and the environment's id. Characters that have a meaning in
        paths become "-", and None is left out.
    """
    log_dir = Path(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    prefix = "_".join(re.sub(r"[^\w.+-]+", "-", name).strip("-") for name in names if name) + "_"
    numbers = [path.name.removeprefix(prefix) for path in log_dir.iterdir() if path.name.startswith(prefix)]
    for number in itertools.count(max((int(number) for number in numbers if number.isdecimal()), default=0) + 1):
        folder = log_dir / f"{prefix}{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue  # another run was faster
    raise AssertionError("unreachable")
