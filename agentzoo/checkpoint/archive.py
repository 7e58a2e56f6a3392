"""Saving and loading a pytree and a manifest, in the format of safetensors.

The metadata of a file has two entries. "agentzoo" is JSON with the format, the manifest, a tag for
each array that says what it stands for, and the rows that were written of arrays with many zeros.
Checkpoints of a `CheckpointStore` also have a table of the blocks of large arrays there.
"sha256" is the checksum of that JSON and of all arrays in the file.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeAlias

import numpy as np
import safetensors
from numpy.typing import NDArray

from agentzoo.checkpoint import blocks, earlier, leaves, schema, sparse
from agentzoo.checkpoint.blocks import Blocks
from agentzoo.checkpoint.files import find, replacing, with_suffix
from agentzoo.types import ConfigurationError, PyTree

FORMAT = 3
"""The newest format.

Files of format 1 have all rows. Files of format 2 leave out rows of zeros. In files of format 3,
the bytes of large arrays are stored in other files.
"""

DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
"""The names that safetensors gives to the dtypes of NumPy."""

Parts: TypeAlias = dict[str, list[NDArray[Any]]]
"""Arrays by name. Each is given in parts along its first axis."""


class LaterFormatError(ConfigurationError):
    """A later version of agentzoo has written the file."""


_FORMAT_ONLY: dict[str, Any] = {
    "type": "object",
    "properties": {"format": {"type": "integer", "minimum": 1}},
    "required": ["format"],
}


class _Reader(Protocol):
    """What `safetensors.safe_open` returns, which has no types of its own."""

    def metadata(self) -> dict[str, str] | None: ...


_check_format: Callable[..., AbstractContextManager[_Reader]] = safetensors.safe_open


def save(path: str | os.PathLike[str], tree: PyTree, manifest: dict[str, Any]) -> Path:
    """Save a pytree, all or nothing: if the process dies, the previous file remains.

    Rows of zeros are left out of large arrays, such as a replay buffer that is not full yet. Arrays
    that are in the memory of the host are not copied.

    Args:
      path: where to save. The suffix `.safetensors` is added if it is missing.
      tree: a pytree of arrays, typed PRNG keys and numbers.
      manifest: plain JSON that is stored beside the arrays.

    Returns:
      The path of the file.
    """
    path = with_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = Contents()
    for name, leaf in leaves.named_leaves(tree).items():
        array, tag = leaves.to_array(leaf)
        contents.add(name, array, tag)
    write(path, contents, manifest)
    return path


class Contents:
    """What a file is to hold, apart from the manifest.

    Attributes:
      parts: the arrays that are stored in the file itself.
      tags: what each array stands for.
      sparse: the rows that are written of arrays with many zeros.
      blocks: the arrays whose bytes are stored in other files.
    """

    def __init__(self) -> None:
        self.parts: Parts = {}
        self.tags: dict[str, str] = {}
        self.sparse: dict[str, sparse.Written] = {}
        self.blocks: dict[str, Blocks] = {}

    def add(self, name: str, array: NDArray[Any], tag: str, copy: bool = False) -> None:
        """Add an array, without rows of zeros if there are many; as a copy if it will change."""
        runs = sparse.nonzero_runs(array)
        if runs is None:
            parts = [array]
        else:
            # An array of zeros alone has one empty part, because a part tells the dtype.
            parts = [array[start:stop] for start, stop in runs or [(0, 0)]]
            self.sparse[name] = {"rows": len(array), "runs": runs}
        self.parts[name] = [part.copy() for part in parts] if copy else parts
        self.tags[name] = tag


def write(
    path: Path, contents: Contents, manifest: dict[str, Any], about: dict[str, Any] | None = None
) -> None:
    """Write a file, all or nothing.

    Args:
      path: the file.
      contents: what it holds.
      manifest: plain JSON that is stored beside the arrays.
      about: plain JSON about a checkpoint among others, see `CheckpointStore`.
    """
    content: dict[str, Any] = {"format": 1}
    if contents.sparse:
        content |= {"format": 2, "sparse": contents.sparse}
    if contents.blocks:
        content |= {"format": 3, "blocks": blocks.to_json(contents.blocks)}
    if about is not None:
        content["checkpoint"] = about
    text = json.dumps({**content, "tags": contents.tags, "manifest": manifest})
    # A link in a folder of checkpoints is not ours, so what it names is not replaced.
    with replacing(path, follow_links=about is None) as file:
        checksum = _checksum(text, contents.parts)
        _write(file, contents.parts, {"agentzoo": text, "sha256": checksum})


def read_manifest(path: str | os.PathLike[str], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the manifest of a saved file, with the entries that earlier versions lacked.

    No array is read, so the checksum is not compared. `load` compares it.

    Args:
      path: the file.
      required: entries that the manifest must have.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if `save` did not write the file, or an entry of the manifest is wrong.
    """
    saved = read_header(path)
    manifest = saved.content["manifest"]
    schema.check(saved.path, manifest, schema.MANIFEST, "manifest", required)
    return earlier.upgrade(manifest)


class Description(NamedTuple):
    """How much a file holds.

    Attributes:
      size: the bytes of the file, and of the blocks that belong to it.
      lengths: the lengths of all axes of its arrays.
    """

    size: int
    lengths: set[int]


def describe(path: str | os.PathLike[str]) -> Description:
    """Return how much a file holds, without reading its arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if `save` did not write the file.
    """
    saved = read_header(path)
    listed = [block for array in saved.blocks.values() for block in array.blocks]
    size = saved.path.stat().st_size + blocks.SIZE * sum(block is not None for block in listed)
    return Description(size, {axis for entry in saved.entries.values() for axis in entry.shape})


def check_shapes(
    path: str | os.PathLike[str],
    template: PyTree,
    missing: tuple[str, ...],
    surplus: str | tuple[str, ...],
) -> None:
    """Check that a file holds the leaves of a template, without reading its arrays.

    Args:
      path: the file.
      template: as for `load`, where arrays may be `jax.ShapeDtypeStruct`.
      missing: as for `load`.
      surplus: as for `load`.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file does not fit the template. The message names the array.
    """
    saved = read_header(path)
    expected = leaves.named_leaves(template)
    wanted = _names_in_file(saved, expected)
    _compare(saved, {name: expected[today] for name, today in wanted.items()}, missing, surplus)


def load(
    path: str | os.PathLike[str],
    template: PyTree,
    missing: tuple[str, ...] = (),
    surplus: str | tuple[str, ...] = (),
    any_length: tuple[str, ...] = (),
) -> PyTree:
    """Load a pytree. Where the template has an array of NumPy, the result has one, too.

    Args:
      path: the file.
      template: a pytree with the structure, the shapes and the dtypes to load.
      missing: beginnings of names. Leaves with such names may be absent from the file, and are then
        taken from the template.
      surplus: the beginning of a name, or several. Arrays of the file with such names may be
        absent from the template, and are then ignored.
      any_length: names of arrays whose first axis may have another length than in the template.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is damaged or does not fit the template. The message names the
        array.
    """
    saved = read_header(path)
    expected = leaves.named_leaves(template)
    wanted = _names_in_file(saved, expected)
    leaves_wanted = {name: expected[today] for name, today in wanted.items()}
    _compare(saved, leaves_wanted, missing, surplus, any_length)
    found = {today: expected[today] for name, today in wanted.items() if name not in saved.entries}
    for name, array in _arrays(saved):
        if name in wanted:
            today, tag = wanted[name], saved.content["tags"][name]
            found[today] = leaves.from_array(saved.whole(name, array), tag, expected[today])
    return leaves.with_leaves(template, found)


class Entry(NamedTuple):
    """An array as it is stored.

    Attributes:
      shape: the shape, without rows that were left out.
      dtype: the dtype.
      start: where the array begins in the file. Arrays in blocks are not stored in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int = 0


class Saved(NamedTuple):
    """What the header of a file says.

    Attributes:
      path: the file.
      content: the JSON beside the arrays.
      checksum: the checksum of this JSON and of the arrays in the file.
      text: the JSON as it stands in the file.
      entries: each array in the file, and each array in blocks.
      blocks: the arrays in blocks.
    """

    path: Path
    content: dict[str, Any]
    checksum: str | None
    text: str
    entries: dict[str, Entry]
    blocks: dict[str, Blocks]

    def describe(self, name: str) -> leaves.Stored:
        """Return what the header says of a leaf."""
        shape, dtype, _ = self.entries[name]
        written = self._written(name)
        if written is not None:
            shape = (written["rows"], *shape[1:])
        return leaves.Stored(shape, dtype, self.content["tags"][name])

    def whole(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array with the rows that were left out."""
        return sparse.with_zeros(array, self._written(name))

    def _written(self, name: str) -> sparse.Written | None:
        return self.content.get("sparse", {}).get(name)


def _names_in_file(saved: Saved, expected: Iterable[str]) -> dict[str, str]:
    """Return the names of leaves by the names that they have in the file."""
    names = {earlier.current_name(name): name for name in saved.entries}
    return {names.get(name, name): name for name in expected}


def _compare(
    saved: Saved,
    wanted: dict[str, Any],
    missing: tuple[str, ...],
    surplus: str | tuple[str, ...],
    any_length: tuple[str, ...] = (),
) -> None:
    """Raise `ConfigurationError` unless the leaves of a file are the ones that are wanted."""
    path = saved.path
    for name, leaf in wanted.items():
        if name not in saved.entries:
            if name.startswith(missing):
                continue
            raise ConfigurationError(
                f"{path} lacks {name}. It was saved by an agent with another network or other "
                f"options, so pass the same ones."
            )
        found, expected = saved.describe(name), leaves.describe(leaf)
        if name in any_length:
            expected = expected._replace(shape=(*found.shape[:1], *expected.shape[1:]))
        if expected.tag == "array" and found.tag.startswith("key:"):
            found = found._replace(tag="array")  # agents of earlier versions keep typed keys
        if found != expected:
            raise ConfigurationError(
                f"{path} holds {name} as {found.dtype}{list(found.shape)}, but this agent has "
                f"{expected.dtype}{list(expected.shape)}. It was saved by an agent with another "
                f"network, other options, or another number of environments, so pass the same ones."
            )
    unknown = [
        name for name in saved.entries if name not in wanted and not name.startswith(surplus)
    ]
    if unknown:
        raise ConfigurationError(
            f"{path} holds {unknown[0]}, which this agent does not have. It was saved by an agent "
            f"with other options, so pass the same ones."
        )


def _checksum(text: str, parts: Parts) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(parts):
        digest.update(name.encode())
        for part in parts[name]:
            digest.update(leaves.as_bytes(part).data)
    return digest.hexdigest()


def _write(file: BinaryIO, parts: Parts, metadata: dict[str, str]) -> None:
    """Write arrays in the format of safetensors.

    The `save_file` of the package expects whole arrays, and some of its versions copy them.
    """
    # The arrays with the widest elements come first, so that each array is aligned.
    names = sorted(parts, key=lambda name: (-parts[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        first, start = parts[name][0], end
        shape = (sum(len(part) for part in parts[name]), *first.shape[1:]) if first.ndim else ()
        end += sum(part.nbytes for part in parts[name])
        header[name] = {
            "dtype": DTYPES[first.dtype.name],
            "shape": shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # up to a multiple of 8 bytes, where the arrays begin
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        for part in parts[name]:
            file.write(leaves.as_bytes(part).data)


def read_header(path: str | os.PathLike[str]) -> Saved:
    """Read what a file says of itself, and none of its arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if `save` did not write the file.
    """
    path = find(path)
    header, data_start = _read_safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    if "agentzoo" not in metadata:
        raise ConfigurationError(
            f"{path} is a safetensors file, but not one that agentzoo saved. Pass a file that "
            f"save() wrote."
        )
    text, checksum = metadata["agentzoo"], metadata.get("sha256")
    content = schema.parse(path, text)
    schema.check(path, content, _FORMAT_ONLY, "header")
    if content["format"] > FORMAT:
        raise LaterFormatError(
            f"{path} has format {content['format']}, which this version cannot read. Please update "
            f"agentzoo."
        )
    schema.check(path, content, schema.HEADER, "header")
    entries = {name: _entry(path, name, about, data_start) for name, about in header.items()}
    in_blocks = blocks.from_json(path, content["blocks"]) if "blocks" in content else {}
    entries |= {name: Entry(array.shape, array.dtype) for name, array in in_blocks.items()}
    saved = Saved(path, content, checksum, text, entries, in_blocks)
    _check_header(saved)
    return saved


def _check_header(saved: Saved) -> None:
    """Raise `ConfigurationError` unless the JSON of a file speaks of the arrays that it has."""
    tags, written = saved.content["tags"], saved.content.get("sparse", {})
    in_file = saved.entries.keys() - saved.blocks.keys()
    wrong = {*(saved.entries.keys() - tags.keys()), *(written.keys() - in_file)}
    wrong |= {
        name
        for name, about in written.items()
        if name in in_file and not sparse.fits(about, saved.entries[name].shape)
    }
    if wrong:
        raise ConfigurationError(
            f"{saved.path} is damaged: its header does not fit the array {min(wrong)}. Use an "
            f"earlier checkpoint."
        )


def verify_file(path: str | os.PathLike[str]) -> None:
    """Check that a file and the blocks that belong to it are whole.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if they are damaged.
    """
    verify(read_header(path))


def verify(saved: Saved) -> None:
    """Check that a file and the blocks that belong to it are whole.

    Raises:
      ConfigurationError: if they are damaged.
    """
    for _ in _arrays(saved, in_blocks=False):
        pass
    blocks.verify(saved.path.parent, list(saved.blocks.values()))


def _arrays(saved: Saved, in_blocks: bool = True) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of a file with their names, and compare the checksum at the end.

    Raises:
      ConfigurationError: if the file is damaged.
    """
    digest = hashlib.sha256(saved.text.encode())
    with open(saved.path, "rb", buffering=0) as file:
        for name in sorted(saved.entries.keys() - saved.blocks.keys()):
            entry = saved.entries[name]
            array = np.empty(entry.shape, entry.dtype)
            data = leaves.as_bytes(array)
            file.seek(entry.start)
            _read_into(file, data.data)
            digest.update(name.encode())
            digest.update(data.data)
            yield name, array
    if saved.checksum != digest.hexdigest():
        raise ConfigurationError(
            f"{saved.path} is damaged: its checksum does not match. Use an earlier checkpoint."
        )
    for name in saved.blocks if in_blocks else ():
        yield name, blocks.read(saved.path.parent, saved.blocks[name])


def _read_into(file: RawIOBase, data: memoryview) -> None:
    """Fill `data` from a file. What a file that has become shorter lacks keeps its value."""
    while len(data) and (length := file.readinto(data)):
        data = data[length:]


def _read_safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a file in the format of safetensors, and where the arrays begin.

    The package safetensors checks the format. It maps files into memory, and a process dies if a
    mapped file becomes shorter. So we only read the header with it.
    """
    try:
        with _check_format(path, framework="numpy"):
            pass
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length).decode()
    except (safetensors.SafetensorError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no saved agent, or it is damaged: {error}. Use an earlier checkpoint."
        ) from error
    return schema.parse(path, text), 8 + length


def _entry(path: Path, name: str, about: dict[str, Any], data_start: int) -> Entry:
    """Return what the header of a file says of an array."""
    for ours, theirs in DTYPES.items():
        if theirs == about["dtype"]:
            shape, (start, _) = tuple(about["shape"]), about["data_offsets"]
            return Entry(shape, np.dtype(ours), data_start + start)
    raise ConfigurationError(
        f"{path} holds {name} as {about['dtype']}, which agentzoo does not write. Pass a file that "
        f"save() wrote."
    )
