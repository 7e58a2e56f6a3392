"""The files of a log. Entries that cannot be written stay in memory until they can.

The files are never opened through a symbolic link, so a folder from somebody else cannot make a
run write elsewhere.
"""

import base64
import csv
import io
import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentzoo.types import ConfigurationError

_FLAGS: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\..*")
_OURS = ".agentzoo"  # the end of the names of event files that are written here


def refuse_link(path: Path) -> None:
    """Raise `ConfigurationError` if a file of the log is a symbolic link."""
    if path.is_symlink():
        raise ConfigurationError(
            f"{path} is a symbolic link, and a log is not written through links. Remove the link, "
            f"or choose another folder."
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file, all or nothing. A link in its place is replaced."""
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
        with open(descriptor, "w", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Appended:
    """A file that only grows at its end, apart from cuts.

    Attributes:
      path: the file.
      size: its size in bytes, as far as it was written by this object.
    """

    def __init__(self, path: Path, size: int = 0):
        self.path = path
        self.size = size

    def append(self, data: bytes) -> int:
        """Write bytes at the end, and return the new size.

        The bytes count only when the caller has set `size`, so that no exception in between makes
        a later call write them twice.

        Raises:
          OSError: if they cannot be written.
        """
        flags = os.O_RDWR | os.O_CREAT | _FLAGS
        with open(os.open(self.path, flags, 0o666), "r+b", buffering=0) as file:
            self.size = min(self.size, os.fstat(file.fileno()).st_size)
            file.truncate(self.size)  # removes what does not count
            file.seek(self.size)
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        return self.size + len(data)

    def sync(self) -> None:
        """Make sure that the file survives a crash of the machine."""
        if self.path.exists():
            descriptor = os.open(self.path, os.O_RDWR | _FLAGS)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Table:
    """A CSV file with a row for each entry of a log.

    The latest row may change, and rows may bring new columns.

    Args:
      path: the file. If it exists, rows are added to it.
    """

    def __init__(self, path: Path):
        refuse_link(path)
        self.columns: list[str] = []
        self._file = Appended(path)
        self._done = 0  # rows before the latest one
        self._latest: dict[str, Any] | None = None
        self._begin: int | None = None  # the byte at which the latest row begins
        self._unwritten: list[dict[str, Any]] = []  # rows that are not in the file
        if path.exists():
            try:
                with open(path, newline="") as file:
                    rows = list(csv.reader(file))
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise ConfigurationError(
                    f"{path} cannot be read ({error}), so the log cannot be continued. Move the "
                    f"file away, or choose another folder."
                ) from error
            self.columns = rows[0] if rows else []
            self._done = max(len(rows) - 1, 0)
            self._file.size = path.stat().st_size

    def mark(self) -> tuple[int, dict[str, Any] | None]:
        """Return how many rows come before the latest one, and the latest one."""
        return self._done, self._latest

    def next_row(self) -> None:
        """Finish the latest row."""
        if self._latest is not None:
            self._done += 1
        self._latest, self._begin = None, None

    def write(self, row: dict[str, Any]) -> None:
        """Add the latest row, or replace it, and write all rows that are not in the file yet.

        Raises:
          OSError: if the file cannot be written. Then the rows stay in memory.
        """
        if self._latest is not None and self._begin is None:
            self._unwritten.pop()
        elif self._begin is not None:
            self._file.size = self._begin  # the next write begins there
        self._begin, self._latest = None, row
        self._unwritten.append(row)
        self.flush()

    def flush(self) -> None:
        """Write the rows that are not in the file yet.

        Raises:
          OSError: if the file cannot be written.
        """
        if not self._unwritten:
            return
        known = set(self.columns)
        new = [tag for row in self._unwritten for tag in row if tag not in known]
        if new or not self._file.path.exists():
            columns = [*self.columns, *dict.fromkeys(new)]
            self._rewrite(columns, self._rows())
            self.columns = columns
        first = _as_csv(self.columns, self._unwritten[:-1])
        last = _as_csv(self.columns, self._unwritten[-1:])
        size = self._file.append(first + last)
        begin = None if self._latest is None else size - len(last)
        self._file.size = size
        self._begin, self._unwritten = begin, []

    def sync(self) -> None:
        """Make sure that the file survives a crash of the machine.

        Raises:
          OSError: if that fails.
        """
        self._file.sync()

    def state(self, mark: tuple[int, dict[str, Any] | None]) -> dict[str, Any]:
        """Return the end of the table at a mark as plain JSON."""
        done, latest = mark
        unwritten = self._unwritten[: len(self._unwritten) - (latest is not None)]
        return {"columns": self.columns, "rows": done, "latest": latest, "unwritten": unwritten}

    def cut(self, state: Mapping[str, Any]) -> None:
        """Remove all rows that were added after a state, and continue from there."""
        self.columns = list(state["columns"])
        unwritten: list[dict[str, Any]] = [dict(row) for row in state["unwritten"]]
        rows = self._rows(state["rows"] - len(unwritten))
        self._done, self._latest, self._begin = len(rows) + len(unwritten), None, None
        self._unwritten = []
        if self.columns:
            self._rewrite(self.columns, rows)
        else:
            self._file.path.unlink(missing_ok=True)
        self._unwritten = unwritten
        if state["latest"] is not None:
            self.write(dict(state["latest"]))

    def _rows(self, most: int | None = None) -> list[dict[str, str]]:
        """Return the rows of the file, without one that is about to be replaced."""
        if not self._file.path.exists():
            return []
        with open(self._file.path, newline="") as file:
            text = file.read()
        if most is None:
            text = text.encode()[: self._file.size].decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))[:most]

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Write the file again with these columns, all or nothing, so that no row is lost."""
        text = _as_csv(columns, [dict(zip(columns, columns, strict=True)), *rows])
        write_whole(self._file.path, text.decode())
        self._file.size = len(text)


def _as_csv(columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, extrasaction="ignore").writerows(rows)
    return text.getvalue().encode()


class Events:
    """The TensorBoard files of a run. Each call of `open` begins a new file.

    The writer of tensorboardX is not used: it writes in a thread that dies on a full disk, and then
    blocks the training.

    Args:
      folder: the folder of the run.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._sizes: dict[str, int] = {}  # of the files before the open one
        self._file: Appended | None = None
        self._unwritten = b""

    def open(self) -> None:
        """Begin a file, if none is open. It is made when the first event is written."""
        if self._file is None:
            before, self._unwritten = self._unwritten, b""
            self._file = Appended(self._folder / self._new_name())
            self._add(file_version="brain.Event:2")
            self._unwritten += before

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None and self._file.size:
            self._sizes[self._file.path.name] = self._file.size
        self._file = None

    def _new_name(self) -> str:
        """Return a name that comes after those of all other files.

        TensorBoard reads the files of a folder in the order of their names, which begin with a
        time in seconds.
        """
        found = [int(match[1]) for name in self._names() if (match := _EVENTS.fullmatch(name))]
        second = max([int(time.time()), *(number + 1 for number in found)])
        return f"events.out.tfevents.{second}.{socket.gethostname()}.{os.getpid()}{_OURS}"

    def _names(self) -> list[str]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return [*names, *self._sizes]

    def add(self, tag: str, value: float | str, step: int | None = None) -> None:
        """Add a scalar or a text. It is written by the next `flush`."""
        # Imported here because it is slow to import and not every run needs it.
        from tensorboardX import summary  # pyright: ignore[reportMissingTypeStubs]

        make: Any = summary.text if isinstance(value, str) else summary.scalar
        self._add(summary=make(tag, value), **({} if step is None else {"step": step}))

    def _add(self, **fields: Any) -> None:
        from tensorboardX.proto import event_pb2  # pyright: ignore[reportMissingTypeStubs]

        module: Any = event_pb2
        event = module.Event(wall_time=time.time(), **fields)
        self._unwritten += _record(event.SerializeToString())

    def flush(self) -> None:
        """Write the events that are not in the file yet.

        Raises:
          OSError: if the file cannot be written. Then the events stay in memory.
        """
        if self._file is None or not self._unwritten:
            return
        if self._file.size and not self._file.path.exists():  # the folder was removed
            self._file.size = 0
        size = self._file.append(self._unwritten)
        self._file.size, self._unwritten = size, b""

    def sync(self) -> None:
        """Make sure that the file survives a crash of the machine.

        Raises:
          OSError: if that fails.
        """
        if self._file is not None:
            self._file.sync()

    def mark(self) -> tuple[dict[str, int], bytes]:
        """Return where the files end: their sizes, and what is not written yet."""
        sizes = dict(self._sizes)
        if self._file is not None and self._file.size:
            sizes[self._file.path.name] = self._file.size
        return sizes, self._unwritten

    def state(self, mark: tuple[dict[str, int], bytes]) -> dict[str, Any]:
        """Return the end of the files at a mark as plain JSON."""
        sizes, unwritten = mark
        return {"sizes": sizes, "unwritten": base64.b64encode(unwritten).decode()}

    def cut(self, state: Mapping[str, Any]) -> None:
        """Remove all events that came after a state."""
        self._sizes = {}
        for path in self._folder.iterdir():
            ours = _EVENTS.fullmatch(path.name) and path.name.endswith(_OURS)
            if not ours or path.is_symlink():
                continue
            size = state["sizes"].get(path.name, 0)
            if size:
                os.truncate(path, min(size, path.stat().st_size))
                self._sizes[path.name] = size
            else:
                path.unlink()
        self._file, self._unwritten = None, base64.b64decode(state["unwritten"])


def _record(data: bytes) -> bytes:
    """Return an event as TensorBoard's files hold it, between checksums."""
    from tensorboardX.record_writer import (  # pyright: ignore[reportMissingTypeStubs]
        masked_crc32c,
    )

    checksum: Any = masked_crc32c
    length = struct.pack("<Q", len(data))
    return b"".join([
        length, struct.pack("<I", checksum(length)), data, struct.pack("<I", checksum(data)),
    ])  # fmt: skip
