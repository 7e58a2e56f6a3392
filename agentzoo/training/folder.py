"""The folder of a run: what makes it one, and who may write to it."""

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Any

from agentzoo.types import ConfigurationError

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
_LOCK = ".lock"
_FILES = (MODEL, CHECKPOINTS, _LOCK, "config.json", "progress.csv")

_held: set[tuple[int, int]] = set()
"""The locks that this process holds, by device and inode. The system does not know them apart."""
_taking = threading.Lock()  # threads that take locks take turns


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a run."""
    return any((folder / name).exists() for name in ("config.json", MODEL, CHECKPOINTS))


def refuse_links(folder: Path) -> None:
    """Refuse a folder whose files are links to files elsewhere, which a run would overwrite.

    Raises:
      ConfigurationError: if it has such links.
    """
    home = folder.resolve()
    for name in _FILES:
        path = folder / name
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ConfigurationError(
                f"{path} is a symbolic link that leaves the run folder, so a run would write to "
                f"{path.resolve()}. Remove the link, or choose another folder."
            )


def make_run_folder(folder: Path) -> None:
    """Make the folder that a user has named for a new run.

    Raises:
      ConfigurationError: if it holds a run already, or cannot be made.
    """
    if holds_run(folder):
        raise ConfigurationError(
            f"run_dir={str(folder)!r} holds a run already. Continue it with "
            f"agentzoo.resume({str(folder)!r}), or choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"run_dir={str(folder)!r} cannot be made ({error.strerror}). Choose another folder."
        ) from error


class Lock:
    """Keeps other processes, and other agents of this process, from training in a run folder.

    The lock ends with the process that holds it, however that process ends. Processes that it
    starts do not keep the lock. On a file system without locks, nothing is locked.

    Args:
      folder: the run folder.

    Raises:
      ConfigurationError: if another agent trains in the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path):
        refuse_links(folder)
        with _taking:
            self._take(folder)

    def _take(self, folder: Path) -> None:
        path = folder / _LOCK
        # A second file would end the lock of this process when it is closed.
        if path.exists() and _key(os.stat(path)) in _held:
            raise _in_use(folder)
        try:
            self._file = open(path, "a+b")  # noqa: SIM115 (closed by `release`)
        except OSError as error:
            raise ConfigurationError(
                f"The run folder {folder} cannot be written to ({error.strerror}). Choose another "
                f"folder."
            ) from error
        if not self._acquire():
            self._file.close()
            raise _in_use(folder)
        self._key = _key(os.fstat(self._file.fileno()))
        _held.add(self._key)

    def _acquire(self) -> bool:
        try:
            if fcntl is not None:
                # Unlike `flock`, this lock is not inherited by processes of environments, which may
                # outlive this process.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif msvcrt is not None:
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
        return True

    def release(self) -> None:
        """Let others train in the folder. Further calls have no effect."""
        if not self._file.closed:
            _held.discard(self._key)
            with contextlib.suppress(OSError):
                self._file.close()


def _key(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _in_use(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"Another agent is training in {folder}. Wait until it has finished, or choose another "
        f"folder."
    )
