"""Large arrays in blocks of 1 MiB, which the checkpoints of one folder share.

A checkpoint lists the blocks of each large array. The bytes of a block are in a segment: a file
beside the checkpoint that holds blocks one after another, and nothing else. A block that has not
changed since the last checkpoint is not written again. The new checkpoint lists the segment of an
earlier one instead. Blocks of zeros are stored in no segment.
"""

import errno
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentzoo.checkpoint.leaves import as_bytes
from agentzoo.types import ConfigurationError

SIZE = 2**20
"""Bytes of a block. The last block of an array may be shorter."""

SUFFIX = ".blocks"
_NAME = re.compile(r"step_\d{9,}(_\d+)?\.blocks")


class Block(NamedTuple):
    """Where the bytes of a block are stored.

    Attributes:
      segment: the name of the segment.
      offset: the first byte in the segment.
      digest: the SHA-256 of the bytes, in hexadecimal.
    """

    segment: str
    offset: int
    digest: str


class Blocks(NamedTuple):
    """An array in blocks.

    Attributes:
      shape: the shape of the array.
      dtype: the dtype of the array.
      blocks: its blocks in order. None stands for zeros.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: list[Block | None]

    @property
    def nbytes(self) -> int:
        """The number of bytes of the array."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size

    def length(self, index: int) -> int:
        """Return the number of bytes of a block."""
        return min(SIZE, self.nbytes - index * SIZE)


def pieces(array: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield views of the bytes of each block of an array."""
    data = as_bytes(array)
    for start in range(0, len(data), SIZE):
        yield data[start : start + SIZE]


def digest_of(data: NDArray[np.uint8]) -> str | None:
    """Return the digest of a block, or None if all of its bytes are zero.

    Both steps let other threads run.
    """
    words = len(data) // 8 * 8
    if not data[:words].view(np.uint64).any() and not data[words:].any():
        return None
    return hashlib.sha256(data.data).hexdigest()


def to_json(arrays: dict[str, Blocks]) -> dict[str, Any]:
    """Return the block table of a checkpoint as plain JSON."""
    segments = sorted(segments_of(arrays))
    number = {name: index for index, name in enumerate(segments)}
    table: dict[str, Any] = {}
    for name, array in arrays.items():
        listed = [
            None if block is None else [number[block.segment], block.offset, block.digest]
            for block in array.blocks
        ]
        table[name] = {"shape": list(array.shape), "dtype": array.dtype.name, "blocks": listed}
    return {"size": SIZE, "segments": segments, "arrays": table}


def from_json(path: Path, data: dict[str, Any]) -> dict[str, Blocks]:
    """Return the block table that `to_json` wrote.

    Args:
      path: the checkpoint.
      data: the table. Its lists of blocks may be any lists.

    Raises:
      ConfigurationError: if a segment has a name that the store does not give, or the blocks do not
        fit an array.
    """
    segments: list[str] = data["segments"]
    fine = data["size"] == SIZE and all(_NAME.fullmatch(segment) for segment in segments)
    arrays: dict[str, Blocks] = {}
    for name, about in data["arrays"].items():
        dtype = np.dtype(about["dtype"])
        listed = [_block_of(entry, segments) for entry in about["blocks"]]
        arrays[name] = array = Blocks(tuple(about["shape"]), dtype, listed)
        fine = fine and len(listed) == -(-array.nbytes // SIZE) and False not in listed
    if not fine:
        raise ConfigurationError(
            f"{path} is damaged: its table of blocks is wrong. Use an earlier checkpoint."
        )
    return arrays


def _block_of(entry: Any, segments: list[str]) -> Any:
    """Return a block that `to_json` wrote, None for zeros, or False for something else."""
    match entry:
        case None:
            return None
        case [int(segment), int(offset), str(digest)]:
            if 0 <= segment < len(segments) and 0 <= offset < 2**62:
                return Block(segments[segment], offset, digest)
        case _:
            pass
    return False


def segments_of(arrays: dict[str, Blocks]) -> set[str]:
    """Return the names of the segments that arrays need."""
    listed = (block for array in arrays.values() for block in array.blocks)
    return {block.segment for block in listed if block is not None}


def read(folder: Path, array: Blocks) -> NDArray[Any]:
    """Return an array, read from the segments in a folder.

    Raises:
      ConfigurationError: if a segment is missing or damaged.
    """
    result = np.zeros(array.shape, array.dtype)
    for block, data in zip(array.blocks, pieces(result), strict=True):
        if block is not None:
            read_block(folder, block, data)
    return result


def verify(folder: Path, arrays: Sequence[Blocks]) -> None:
    """Check that all blocks are whole, with the memory of one block.

    Raises:
      ConfigurationError: if a segment is missing or damaged.
    """
    data = np.empty(SIZE, np.uint8)
    for array in arrays:
        for index, block in enumerate(array.blocks):
            if block is not None:
                read_block(folder, block, data[: array.length(index)])


def read_block(folder: Path, block: Block, data: NDArray[np.uint8]) -> None:
    """Read a block into an array of bytes.

    Raises:
      ConfigurationError: if the segment is missing or damaged.
    """
    path = folder / block.segment
    advice = "Use an earlier checkpoint."
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "There is no such file")
        with open(path, "rb") as file:
            file.seek(block.offset)
            length = file.readinto(data.data)
    except OSError as error:
        raise ConfigurationError(
            f"{path}, which holds a part of a checkpoint, cannot be read: {error.strerror}. "
            f"{advice}"
        ) from error
    if length != len(data) or hashlib.sha256(data.data).hexdigest() != block.digest:
        raise ConfigurationError(
            f"{path} is damaged: the block at byte {block.offset} does not match its checksum. "
            f"{advice}"
        )
