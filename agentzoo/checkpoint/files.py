"""Finding saved files, and replacing a file all or nothing."""

import contextlib
import math
import os
import re
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

from agentzoo.types import ConfigurationError

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None  # Windows has no such module, and does not remove files that are open.

SUFFIX = ".safetensors"


def find(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path means.

    The path may name a file, with or without its suffix, or a folder. In a folder, the file is
    `model.safetensors`, which is written at the end of a run, unless the run was resumed since and
    has newer checkpoints. Otherwise it is `best_model.safetensors`, which `EvalCallback` writes,
    otherwise the newest checkpoint of an interrupted run, and otherwise the only file with the
    suffix.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if a folder holds several files.
    """
    given = Path(path)
    # The path "." has no name to which the suffix could be added.
    for candidate in (given, *([with_suffix(given)] if given.name else [])):
        if candidate.is_file():
            return candidate
    if not given.is_dir():
        raise FileNotFoundError(
            f"There is no saved agent at {path}. Pass a file that save() wrote, or the folder of "
            f"a run."
        )
    steps = {
        int(match[1]): file
        for folder in (given, given / "checkpoints")
        for file in folder.glob(f"step_*{SUFFIX}")
        if (match := re.fullmatch(r"step_(\d+)", file.stem))
    }
    model, best = given / f"model{SUFFIX}", given / f"best_model{SUFFIX}"
    # A run that was resumed and interrupted has checkpoints that are newer than its model.
    if model.is_file() and not (steps and _step_of(model) < max(steps)):
        return model
    if best.is_file():
        return best
    if steps:
        return steps[max(steps)]
    # Files whose names begin with a dot remain from a process that died while it wrote them.
    found = sorted(file for file in given.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if len(found) > 1:
        raise ConfigurationError(
            f"{path} holds {len(found)} saved agents. Choose one of {_names_of(found)}."
        )
    if found:
        return found[0]
    raise FileNotFoundError(_without_agents(given))


def _without_agents(folder: Path) -> str:
    """Return what to say of a folder without saved agents."""
    if (folder / "config.json").is_file():
        return (
            f"The run in {folder} has no checkpoint yet. Resume it with "
            f"agentzoo.resume({str(folder)!r})."
        )
    within = sorted({file.parent for file in folder.glob(f"*/*{SUFFIX}")})
    advice = (
        f"Choose a folder in it: {_names_of(within)}."
        if within
        else "Pass a file that save() wrote, or the folder of a run."
    )
    return f"There is no saved agent in the folder {folder}. {advice}"


def _step_of(path: Path) -> float:
    """Return the step of the run at which a file was saved; 0 if it is damaged."""
    from agentzoo.checkpoint import archive  # which imports this module

    try:
        manifest = archive.read_manifest(path)
    except (ConfigurationError, OSError):
        return 0
    # Files of earlier versions say no step, and their runs have no checkpoints.
    return manifest.get("step", math.inf)


def _names_of(paths: list[Path]) -> str:
    """Return the names of the first ten paths."""
    names = ", ".join(path.name for path in paths[:10])
    return names + (", ..." if len(paths) > 10 else "")


def exists(path: str | os.PathLike[str]) -> bool:
    """Return whether saving to this path would replace a file."""
    return with_suffix(path).is_file()


def with_suffix(path: str | os.PathLike[str]) -> Path:
    """Return the path with the suffix of saved files."""
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


@contextlib.contextmanager
def replacing(path: Path, follow_links: bool = True) -> Generator[BinaryIO, None, None]:
    """Open a new file that replaces the file at `path` when the context ends without an error.

    The new file gets the permissions of the old one.

    Args:
      path: the file.
      follow_links: whether a symbolic link stays, and the file that it names is replaced. Otherwise
        the link itself is replaced.
    """
    target = Path(os.path.realpath(path)) if follow_links else path
    remove_leftovers(target.parent, re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}"))
    temporary, file = _open_temporary(target)
    try:
        with file:
            yield file
            if target.exists() and not target.is_symlink():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows does not rename a file that is open.
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _open_temporary(target: Path) -> tuple[Path, BinaryIO]:
    """Open a new file beside `target`. It is locked as long as it is open."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        file = open(temporary, "xb")  # noqa: SIM115 (closed by the caller)
        if fcntl is None:
            return temporary, file
        with contextlib.suppress(OSError):  # Some network file systems have no locks.
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # Another process removed the file before it was locked.


def remove_leftovers(folder: Path, names: re.Pattern[str]) -> None:
    """Remove temporary files of processes that died while they wrote a file.

    Files that another process is writing are locked, and stay.

    Args:
      folder: where the temporary files are.
      names: their names.
    """
    for path in folder.iterdir():
        if names.fullmatch(path.name):
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                if fcntl is not None:
                    file = stack.enter_context(open(path, "rb"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if it is locked
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make sure that a new name in a folder survives a crash of the machine."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # Some network file systems cannot do this.
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
