"""Saving and loading a pytree and a manifest, in the format of safetensors.

The metadata of a file has two entries. "agentzoo" is JSON with the format, the manifest, a tag for
each array that says what it stands for, and the rows that were written of arrays with many zeros.
"sha256" is the checksum of that JSON and of all arrays.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import safetensors
from numpy.typing import NDArray

from agentzoo.checkpoint import earlier, leaves, sparse
from agentzoo.checkpoint.files import find, replacing, with_suffix
from agentzoo.types import ConfigurationError, PyTree

FORMAT = 2  # Files of format 2 leave out rows of zeros. Files of format 1 have all rows.
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


class _Reader(Protocol):
    """What `safetensors.safe_open` returns, which has no types of its own."""

    def metadata(self) -> dict[str, str] | None: ...
    def keys(self) -> list[str]: ...
    def get_tensor(self, name: str) -> NDArray[Any]: ...


_open: Callable[..., AbstractContextManager[_Reader]] = safetensors.safe_open


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
    parts: Parts = {}
    tags: dict[str, str] = {}
    written: dict[str, sparse.Written] = {}
    for name, leaf in leaves.named_leaves(tree).items():
        array, tags[name] = leaves.to_array(leaf)
        runs = sparse.nonzero_runs(array)
        if runs is None:
            parts[name] = [array]
        else:
            # An array of zeros alone has one empty part, because a part tells the dtype.
            parts[name] = [array[start:stop] for start, stop in runs or [(0, 0)]]
            written[name] = {"rows": len(array), "runs": runs}
    content = {"format": 2, "sparse": written} if written else {"format": 1}
    text = json.dumps({**content, "tags": tags, "manifest": manifest})
    with replacing(path) as file:
        _write(file, parts, {"agentzoo": text, "sha256": _checksum(text, parts)})
    return path


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a saved file, with the entries that earlier versions lacked.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if `save` did not write the file, or if it is damaged.
    """
    header, _ = _read(path)
    return earlier.upgrade(header["manifest"])


def load(
    path: str | os.PathLike[str],
    template: PyTree,
    missing: tuple[str, ...] = (),
    surplus: str = "nothing",
) -> PyTree:
    """Load a pytree.

    Args:
      path: the file.
      template: a pytree with the structure, the shapes and the dtypes to load.
      missing: beginnings of names. Leaves with such names may be absent from the file, and are then
        taken from the template.
      surplus: the beginning of a name. Arrays of the file with such names may be absent from the
        template, and are then ignored.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is damaged or does not fit the template. The message names the
        array.
    """
    header, arrays = _read(path)
    saved_names = {earlier.current_name(name): name for name in arrays}
    found: dict[str, Any] = {}
    for current_name, leaf in leaves.named_leaves(template).items():
        name = saved_names.get(current_name, current_name)
        if name not in arrays and name.startswith(missing):
            found[current_name] = leaf
            continue
        if name not in arrays:
            raise ConfigurationError(
                f"{path} lacks {name}. It was saved by an agent with another network or other "
                f"options, so pass the same ones."
            )
        array = sparse.with_zeros(arrays.pop(name), header.get("sparse", {}).get(name))
        expected = leaves.describe(leaf)
        if leaves.Stored(array.shape, array.dtype, header["tags"][name]) != expected:
            raise ConfigurationError(
                f"{path} holds {name} as {array.dtype}{list(array.shape)}, but this agent has "
                f"{expected.dtype}{list(expected.shape)}. It was saved by an agent with another "
                f"network, other options, or another number of environments, so pass the same ones."
            )
        found[current_name] = leaves.from_array(array, expected.tag)
    unknown = [name for name in arrays if not name.startswith(surplus)]
    if unknown:
        raise ConfigurationError(
            f"{path} holds {unknown[0]}, which this agent does not have. It was saved by an agent "
            f"with other options, so pass the same ones."
        )
    return leaves.with_leaves(template, found)


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


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file, after checking that the file is whole."""
    path = find(path)
    try:
        with _open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except safetensors.SafetensorError as error:
        raise ConfigurationError(
            f"{path} is no saved agent, or it is damaged: {error}. Use an earlier checkpoint."
        ) from error
    if "agentzoo" not in metadata:
        raise ConfigurationError(
            f"{path} is a safetensors file, but not one that agentzoo saved. Pass a file that "
            f"save() wrote."
        )
    whole = {name: [array] for name, array in arrays.items()}
    if metadata.get("sha256") != _checksum(metadata["agentzoo"], whole):
        raise ConfigurationError(
            f"{path} is damaged: its checksum does not match. Use an earlier checkpoint."
        )
    header = json.loads(metadata["agentzoo"])
    if header["format"] > FORMAT:
        raise ConfigurationError(
            f"{path} has format {header['format']}, which this version cannot read. Please update "
            f"agentzoo."
        )
    return header, arrays
