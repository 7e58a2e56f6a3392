"""Leaving out rows of zeros from large arrays."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from agentzoo.checkpoint.leaves import as_bytes

BLOCK = 4_096  # Rows are examined for zeros in blocks of at least this many bytes.
WORTHWHILE = 65_536  # Rows are left out if that saves at least this many bytes.


class Written(TypedDict):
    """Which rows of an array a file holds.

    Attributes:
      rows: the number of rows of the whole array.
      runs: the rows in the file, as pairs `[start, stop)`.
    """

    rows: int
    runs: list[list[int]]


def nonzero_runs(array: NDArray[Any]) -> list[list[int]] | None:
    """Return the runs `[start, stop)` of rows to write, or None to write the whole array.

    All rows outside the runs are zero, bit for bit.
    """
    if array.nbytes < WORTHWHILE:
        return None
    row_bytes = array.nbytes // len(array)
    # Rows per block: BLOCK / row_bytes, rounded up to a multiple of 8. A block therefore consists
    # of whole words of 8 bytes, whatever the size of a row.
    block = 8 * -(-BLOCK // (8 * row_bytes))
    num_blocks = len(array) // block
    data = as_bytes(array)
    words = data[: num_blocks * block * row_bytes].view(np.uint64)
    rest = data[num_blocks * block * row_bytes :]  # the rows after the last whole block
    # padded [num_blocks + 3]: whether each block, and then the rest, has a bit that is set. The
    # first and the last entry stay False.
    padded = np.zeros(num_blocks + 3, bool)
    padded[1:-2] = words.reshape(num_blocks, block * row_bytes // 8).any(axis=1)
    padded[-2] = rest.any()
    # Each change from one entry to the next begins or ends a run. Entry i + 1 of `padded` belongs
    # to block i, so a change between entries i and i + 1 lies at the beginning of block i, which is
    # row i * block. The end of the rest may lie beyond the array.
    changes = np.flatnonzero(padded[1:] != padded[:-1]) * block
    runs = np.minimum(changes, len(array)).reshape(-1, 2)  # [number of runs, (start, stop)]
    rows_left_out = len(array) - int(np.sum(runs[:, 1] - runs[:, 0]))
    return runs.tolist() if rows_left_out * row_bytes >= WORTHWHILE else None


def fits(written: Any, shape: tuple[int, ...]) -> bool:
    """Return whether what a file says of rows fits an array in it.

    Args:
      written: an object with the entries of `Written`. Its runs may be any list.
      shape: the shape of the array in the file.
    """
    try:
        runs = np.array(written["runs"] or [[0, 0]])
    except (ValueError, OverflowError):  # lists of unequal lengths
        return False
    if runs.ndim != 2 or runs.shape[1] != 2 or runs.dtype != np.int64:
        return False
    edges = runs.reshape(-1)
    ordered = (edges[1:] >= edges[:-1]).all() and edges[0] >= 0 and edges[-1] <= written["rows"]
    return bool(ordered) and bool(shape) and int((runs[:, 1] - runs[:, 0]).sum()) == shape[0]


def with_zeros(array: NDArray[Any], written: Written | None) -> NDArray[Any]:
    """Return the whole array, given the rows that were written.

    Args:
      array: the rows of all runs, one run after another.
      written: which rows they are, or None if the array is whole.
    """
    if written is None:
        return array
    whole = np.zeros((written["rows"], *array.shape[1:]), array.dtype)
    position = 0  # the row of `array` at which the next run begins
    for start, stop in written["runs"]:
        whole[start:stop] = array[position : position + stop - start]
        position += stop - start
    return whole
