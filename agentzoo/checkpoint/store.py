"""Checkpoints of a run in one folder, written while training continues."""

import contextlib
import errno
import math
import os
import queue
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentzoo.background import Background
from agentzoo.checkpoint import archive, blocks, leaves
from agentzoo.checkpoint.blocks import Block, Blocks
from agentzoo.checkpoint.files import SUFFIX, remove_leftovers, replacing
from agentzoo.types import ConfigurationError, PyTree

_CHECKPOINT = re.compile(r"step_\d{9,}\.safetensors")
_SEGMENT = re.compile(r"step_\d{9,}(_\d+)?\.blocks")
_TEMPORARY = re.compile(r"\.step_\d{9,}(_\d+)?\.(safetensors|blocks)\.[0-9a-f]{8}")
_WAITING = 512  # blocks that may wait for the writer, so that little memory is needed
_THREADS = min(4, os.cpu_count() or 1)


class CheckpointStore:
    """Writes checkpoints of a run into one folder, and removes old ones.

    Arrays of 1 MiB or more are divided into blocks, and a checkpoint only writes the blocks that
    have changed since the last one. `write` copies these blocks, and a thread writes them to the
    disk. Each checkpoint is complete on the disk before its name appears. It stays until a later
    checkpoint is complete, even if the process dies.

    A folder belongs to one store at a time. If the folder holds checkpoints already, the store
    continues from the newest one.

    Args:
      folder: the folder. The first `write` makes it.
      keep: the number of newest checkpoints to keep. The one with the best score stays, too.

    Attributes:
      error: why the last checkpoint could not be written; None if it was written.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        self.folder = Path(folder)
        self.keep = max(keep, 1)
        self.error: OSError | None = None
        self._last: _Known | None = None  # The next checkpoint refers to blocks of this one.
        self._sequence = 0
        self._damaged: set[Path] = set()
        self._made = False
        self._writer: Background | None = None

    def write(
        self,
        step: int,
        tree: PyTree,
        manifest: dict[str, Any],
        score: float | None = None,
        wait: bool = False,
    ) -> bool:
        """Write a checkpoint. The arrays may change as soon as this function has returned.

        An error of the disk is not raised. It is kept in `error`, and the next call tries again.

        Args:
          step: the step of the run, which names the checkpoint.
          tree: a pytree of arrays, typed PRNG keys and numbers.
          manifest: plain JSON that is stored beside the arrays.
          score: how good the agent is. The checkpoint with the highest score is kept.
          wait: return when the checkpoint is on the disk.

        Returns:
          Whether the checkpoint is being written. It is skipped if the last checkpoint is still
          being written, unless `wait` is true.
        """
        if self._writer is not None and self._writer.running and not wait:
            return False
        self.wait()
        last = self._continued()
        self._sequence += 1
        about = {"sequence": self._sequence, "step": int(step), "score": _finite(score)}
        job = _Job(int(step), manifest, about)
        try:
            self._writer = Background(self._run, job, name="checkpoint")
            self._writer.start()
            job.collect(tree, last.blocks)
        finally:
            job.ended = True  # If the tree was not read to its end, the writer gives up.
        if wait:
            self.wait()
        return True

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk, or cannot be written."""
        if self._writer is not None:
            self._writer.wait()

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole, or None if there is none.

        Reading verifies all checksums. A damaged checkpoint causes a warning, and the next `write`
        removes it.

        Raises:
          ConfigurationError: if a later version of agentzoo has written a checkpoint.
        """
        found = self._by_age()
        unreadable = [known for known in found if known.sequence < 0]
        newest = self._first_whole(unreadable + found[: len(found) - len(unreadable)])
        if self._last is None or self._last.path in self._damaged:
            self._last = newest
        return None if newest is None else newest.path

    def best(self) -> Path | None:
        """Return the checkpoint with the highest score that is whole, or None if none has one."""
        scored = [known for known in self._by_age() if known.score is not None]
        scored.sort(key=lambda known: known.score or 0.0, reverse=True)  # The newest stays first.
        best = self._first_whole(scored)
        return None if best is None else best.path

    def _first_whole(self, candidates: "list[_Known]") -> "_Known | None":
        for known in candidates:
            try:
                archive.verify(archive.read_header(known.path))
                return known
            except archive.LaterFormatError:
                raise
            except (ConfigurationError, OSError) as error:
                self._damaged.add(known.path)
                warnings.warn(
                    f"{known.path} is damaged, so an earlier checkpoint is used. {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )
        return None

    def _by_age(self) -> "list[_Known]":
        """Return the checkpoints in the folder from the newest to the oldest.

        Checkpoints that cannot be read come last.
        """
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except OSError:
            return []
        found = [_know(self.folder / name) for name in names if _CHECKPOINT.fullmatch(name)]
        return sorted(found, key=lambda known: known.sequence, reverse=True)

    def _continued(self) -> "_Known":
        """Return the checkpoint from which the next one continues.

        Arrays with blocks in segments that have vanished since are left out.
        """
        if self._last is None:
            self.latest()
            self._last = self._last or _Known(self.folder, 0, None, {})
        if not self._sequence:
            self._sequence = max([0, *(known.sequence for known in self._by_age())])

        def is_there(array: Blocks) -> bool:
            segments = blocks.segments_of({"": array})
            return all(os.path.isfile(self.folder / segment) for segment in segments)

        known = self._last.blocks
        return self._last._replace(
            blocks={name: array for name, array in known.items() if is_there(array)}
        )

    def _run(self, job: "_Job") -> None:
        """Write a checkpoint, in a thread of its own."""
        try:
            self._write(job)
            self.error = None
        except _GivenUpError:
            pass
        except ConfigurationError as error:  # An earlier segment is damaged.
            self._last = _Known(self.folder, 0, None, {})
            self.error = OSError(errno.EIO, str(error))
        except MemoryError:
            self.error = OSError(errno.ENOMEM, "There is not enough memory to write a checkpoint")
        except OSError as error:
            self.error = error
        finally:
            job.drain()

    def _write(self, job: "_Job") -> None:
        # A parent that has vanished, such as a disk that is no longer there, is not created again.
        self.folder.mkdir(parents=not self._made, exist_ok=True)
        self._made = True
        with _Segment(self.folder, job.step) as segment:
            for waiting in job.changed():
                waiting.blocks[waiting.position] = segment.append(waiting.data, waiting.digest)
            self._move_blocks(job.contents.blocks, segment)
        path = self.folder / f"step_{job.step:09d}{SUFFIX}"
        self._damaged.discard(path)
        archive.write(path, job.contents, job.manifest, job.about)
        sequence, score = job.about["sequence"], job.about["score"]
        self._last = _Known(path, sequence, score, job.contents.blocks)
        self._remove_old()

    def _move_blocks(self, arrays: dict[str, Blocks], segment: "_Segment") -> None:
        """Write blocks of earlier segments again if these segments hold little else.

        Without this, segments of which a small part is in use would take much room.
        """
        used: dict[str, int] = {}
        for array in arrays.values():
            for index, block in enumerate(array.blocks):
                if block is not None:
                    used[block.segment] = used.get(block.segment, 0) + array.length(index)
        sizes = {name: os.stat(self.folder / name).st_size for name in used if name != segment.name}
        sparse = {name for name, size in sizes.items() if 2 * used[name] < size}
        for array in arrays.values() if sparse else ():
            for index, block in enumerate(array.blocks):
                if block is not None and block.segment in sparse:
                    data = np.empty(array.length(index), np.uint8)
                    blocks.read_block(self.folder, block, data)
                    array.blocks[index] = segment.append(data.data, block.digest)

    def _remove_old(self) -> None:
        """Remove old checkpoints, the segments that no other one needs, and leftovers."""
        found = [known for known in self._by_age() if known.path not in self._damaged]
        kept = found[: self.keep]
        scored = [known for known in found if known.score is not None]
        if scored:  # `max` returns the newest of the best.
            kept.append(max(scored, key=lambda known: known.score or 0.0))
        needed = {known.path.name for known in kept}
        needed |= {name for known in kept for name in blocks.segments_of(known.blocks)}
        for path in list(self.folder.iterdir()):
            ours = _CHECKPOINT.fullmatch(path.name) or _SEGMENT.fullmatch(path.name)
            if ours and path.name not in needed:
                path.unlink(missing_ok=True)
        remove_leftovers(self.folder, _TEMPORARY)


class _Known(NamedTuple):
    """The header of a checkpoint.

    Attributes:
      path: its file.
      sequence: how many checkpoints were written before it; -1 if it cannot be read.
      score: its score, or None.
      blocks: the table of its blocks.
    """

    path: Path
    sequence: int
    score: float | None
    blocks: dict[str, Blocks]


def _know(path: Path) -> _Known:
    """Return what the header of a checkpoint says."""
    try:
        saved = archive.read_header(path)
    except archive.LaterFormatError:
        raise
    except (ConfigurationError, OSError):
        return _Known(path, -1, None, {})
    about = saved.content.get("checkpoint", {})
    return _Known(path, about.get("sequence", 0), about.get("score"), saved.blocks)


def _finite(score: float | None) -> float | None:
    """Return a score as JSON can hold it. Infinities and NaN count as no score."""
    return None if score is None or not math.isfinite(score) else float(score)


class _GivenUpError(Exception):
    """The training thread has not handed over the whole checkpoint."""


class _Waiting(NamedTuple):
    """A block that waits for the writer, and the place in the table that it belongs to."""

    blocks: list[Block | None]
    position: int
    digest: str
    data: bytes


class _Job:
    """A checkpoint on the way from the training thread to the writer.

    Attributes:
      step: the step of the run.
      manifest: plain JSON for the file.
      about: the entry "checkpoint" of the file.
      contents: what the file holds. It is complete when `changed` has ended.
      ended: whether nothing more will come from the training thread.
    """

    def __init__(self, step: int, manifest: dict[str, Any], about: dict[str, Any]):
        self.step = step
        self.manifest = manifest
        self.about = about
        self.contents = archive.Contents()
        self.ended = False
        self._complete = False
        self._queue: queue.Queue[_Waiting] = queue.Queue(_WAITING)

    def collect(self, tree: PyTree, before: dict[str, Blocks]) -> None:
        """Copy what has changed, in the training thread.

        Args:
          tree: the arrays.
          before: the blocks of the last checkpoint.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for name, leaf in leaves.named_leaves(tree).items():
                array, tag = leaves.to_array(leaf)
                if array.nbytes < blocks.SIZE:
                    self.contents.add(name, array, tag, copy=True)
                    continue
                self.contents.tags[name] = tag
                self.contents.blocks[name] = self._compare(array, before.get(name), pool)
        self._complete = True

    def _compare(
        self, array: NDArray[Any], before: Blocks | None, pool: ThreadPoolExecutor
    ) -> Blocks:
        """Return the table of an array, and hand over the blocks that have changed."""
        views = list(blocks.pieces(array))
        same = before is not None and (before.shape, before.dtype) == (array.shape, array.dtype)
        old = before.blocks if before is not None and same else [None] * len(views)
        table: list[Block | None] = [None] * len(views)

        def compare(index: int) -> None:
            digest, block = blocks.digest_of(views[index]), old[index]
            if digest is None:
                return
            if block is not None and block.digest == digest:
                table[index] = block
                return
            self._queue.put(_Waiting(table, index, digest, views[index].tobytes()))

        list(pool.map(compare, range(len(views))))  # raises what a thread raised
        return Blocks(array.shape, array.dtype, table)

    def changed(self) -> Iterator[_Waiting]:
        """Yield the blocks that have changed, and return when `contents` is complete.

        Raises:
          _GivenUpError: if the training thread could not hand over everything.
        """
        while True:
            ended = self.ended  # read before the queue, which may get its last block meanwhile
            try:
                yield self._queue.get(timeout=0.05)
            except queue.Empty:
                if ended:
                    break
        if not self._complete:
            raise _GivenUpError

    def drain(self) -> None:
        """Take what is left, so that the training thread never waits for a writer that failed."""
        with contextlib.suppress(_GivenUpError):
            for _ in self.changed():
                pass


class _Segment:
    """A segment that is being written. Its file is made for the first block."""

    def __init__(self, folder: Path, step: int):
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        name, number = f"step_{step:09d}{blocks.SUFFIX}", 0
        while os.path.lexists(folder / name):
            number += 1
            name = f"step_{step:09d}_{number}{blocks.SUFFIX}"
        self.name = name
        self._path = folder / name

    def __enter__(self) -> "_Segment":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def append(self, data: bytes | memoryview, digest: str) -> Block:
        """Write a block, and return where it stands."""
        if self._file is None:
            self._file = self._stack.enter_context(replacing(self._path, False))
        offset = self._file.tell()
        self._file.write(data)
        return Block(self.name, offset, digest)
