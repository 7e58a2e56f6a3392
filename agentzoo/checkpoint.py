"""Saving and loading a pytree of arrays with a manifest, as one safetensors file.

No code is stored, and none is run on loading.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors

from agentzoo.elements import has_channels_first
from agentzoo.types import ConfigurationError, PyTree

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None  # Windows has no such module, and does not remove files that are open

FORMAT = 2  # of files that leave out rows of zeros; those with all rows have format 1
SUFFIX = ".safetensors"
DTYPES = {
    **{
        f"{name}{bits}": f"{letter}{bits}"
        for name, letter in (("int", "I"), ("uint", "U"))
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "bool": "BOOL",
    "complex64": "C64",
}
"""Names of NumPy -> names of safetensors."""
BLOCK = 4_096  # bytes in a row that are examined for zeros together
WORTHWHILE = 65_536  # bytes of zeros that an array must have for them to be left out


def save(path: str | os.PathLike, tree: PyTree, manifest: dict[str, Any]) -> Path:
    """Writes a pytree, all or nothing: a crash leaves the file that was there before.

    Rows of large arrays that are zero are left out, as those of a replay buffer that is not full
    yet. Nothing is copied that the host's memory holds already.

    Args:
      path: where to; `.safetensors` is added if it has no suffix.
      tree: a pytree of arrays, typed PRNG keys and numbers.
      manifest: plain JSON, kept beside the arrays.

    Returns:
      The path of the file.
    """
    path = _with_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts, tags, sparse = {}, {}, {}
    for name, leaf in _named_leaves(tree).items():
        array, tags[name] = _to_array(leaf)
        runs = _nonzero_runs(array)
        parts[name] = (
            [array] if runs is None else [array[start:stop] for start, stop in runs or [(0, 0)]]
        )
        if runs is not None:
            sparse[name] = {"rows": len(array), "runs": runs}
    content = {"format": 2, "sparse": sparse} if sparse else {"format": 1}
    text = json.dumps({**content, "tags": tags, "manifest": manifest})
    with _replacing(path) as file:
        _write(file, parts, {"agentzoo": text, "sha256": _digest(text, parts)})
    return path


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a saved file.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if it is not one that `save` wrote.
    """
    return _upgraded(_read(path)[0]["manifest"])


def _upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with what earlier versions left out, as they understood it."""
    hyperparameters = manifest.get("hyperparameters", {})
    if "cnn" in hyperparameters and "images" not in hyperparameters:
        images = _earlier_images(manifest["spec"][0])
        kept = {
            "images": bool(images) if "" in images or not images else images,
            "scale_obs": False,
        }
        manifest = manifest | {"hyperparameters": hyperparameters | kept}
    return manifest


def _earlier_images(space: dict[str, Any]) -> list[str]:
    """The names of the parts that earlier versions took for images: bytes with three axes, or stacks."""
    if space["type"] in ("Dict", "Tuple"):
        inner = space["spaces"].items() if space["type"] == "Dict" else enumerate(space["spaces"])
        return [
            "/".join(filter(None, (str(key), name)))
            for key, part in inner
            for name in _earlier_images(part)
        ]
    axes = {"Box": (3,), "FrameStack": (3, 4)}.get(space["type"], ())
    if space.get("dtype") != "uint8" or len(space["shape"]) not in axes:
        return []
    image = space["shape"][-3:]
    # They took the first axis of an image for its channels if none is shorter, and the last one in
    # stacks of images.
    earlier = space["type"] == "Box" and image[0] == min(image)
    grey = space["type"] == "FrameStack" and len(space["shape"]) == 3
    if not grey and has_channels_first(*image) != earlier:
        raise ConfigurationError(
            f"The agent was saved by an earlier version of agentzoo, which took the {'first' if earlier else 'last'} "
            f"axis of images of shape {image} for their channels; train it anew."
        )
    return [""]


def load(
    path: str | os.PathLike,
    template: PyTree,
    missing: tuple[str, ...] = (),
    surplus: str = "nothing",
) -> PyTree:
    """Reads a pytree.

    Args:
      path: the file.
      template: a pytree of the same structure, shapes and dtypes.
      missing: leaves of the template whose names begin so need not be in the file and are kept from
        the template.
      surplus: leaves whose names begin so may be in the file and not in the template.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is damaged, or does not fit the template; the message names
        the array.
    """
    header, arrays = _read(path)
    leaves = []
    for name, leaf in _named_leaves(template).items():
        if name not in arrays:
            if name.startswith(missing):
                leaves.append(leaf)
                continue
            raise ConfigurationError(
                f"{path} lacks {name}; it was saved by an agent with another network or other options."
            )
        shape, dtype, tag = _describe(leaf)
        found = _with_zeros(arrays.pop(name), header.get("sparse", {}).get(name))
        if (found.shape, found.dtype, header["tags"][name]) != (shape, dtype, tag):
            raise ConfigurationError(
                f"{path} holds {name} as {found.dtype}{list(found.shape)}, but this agent has {dtype}{list(shape)}; "
                f"it was saved by an agent with another network, other options, or another number of environments."
            )
        leaves.append(_from_array(found, tag))
    unknown = [name for name in arrays if not name.startswith(surplus)]
    if unknown:
        raise ConfigurationError(f"{path} holds {unknown[0]}, which this agent does not have.")
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def find(path: str | os.PathLike) -> Path:
    """The file that a path means, with or without its suffix, or the agent's file in a folder.

    In a folder it is `model.safetensors`, which ends a run, or else `best_model.safetensors`, which
    `EvalCallback` writes, or else the only file with that suffix.

    Raises:
      FileNotFoundError: if there is none.
      ConfigurationError: if a folder holds several.
    """
    folder = Path(path)
    # "." has no name that could get a suffix.
    for candidate in (folder, *([_with_suffix(folder)] if folder.name else [])):
        if candidate.is_file():
            return candidate
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no saved agent at {path}.")
    for name in ("model", "best_model"):
        if (folder / f"{name}{SUFFIX}").is_file():
            return folder / f"{name}{SUFFIX}"
    # Files whose names begin with a dot are left by a crash while they were written.
    found = sorted(file for file in folder.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if len(found) > 1:
        advice = f"choose one of {_some(found)}."
        raise ConfigurationError(f"{path} holds {len(found)} saved agents; {advice}")
    if found:
        return found[0]
    within = sorted({file.parent for file in folder.glob(f"*/*{SUFFIX}")})
    advice = f"; choose a folder in it: {_some(within)}." if within else "."
    raise FileNotFoundError(f"There is no saved agent in the folder {path}{advice}")


def _some(paths: list[Path]) -> str:
    """The names of paths, but not of too many."""
    names = ", ".join(path.name for path in paths[:10])
    return names + (", ..." if len(paths) > 10 else "")


def all_finite(tree: PyTree) -> bool:
    """Return whether the floating-point arrays of a tree are free of NaN and infinity."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


def exists(path: str | os.PathLike) -> bool:
    """Whether `save` to this path would replace a file."""
    return _with_suffix(path).is_file()


def _with_suffix(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _describe(leaf: Any) -> tuple[tuple[int, ...], np.dtype, str]:
    """Shape and dtype of the array that stands for a leaf in a file, and a tag that tells what it stands for."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return data.shape, np.dtype(data.dtype), f"key:{jax.random.key_impl(leaf)}"
    if not hasattr(leaf, "dtype"):
        return (), np.asarray(leaf).dtype, type(leaf).__name__
    if leaf.dtype == ml_dtypes.bfloat16:  # not known to the NumPy interface of safetensors
        return leaf.shape, np.dtype(np.uint16), "bfloat16"
    return leaf.shape, np.dtype(leaf.dtype), "array"


def _to_array(leaf: Any) -> tuple[np.ndarray, str]:
    """The array that stands for a leaf in a file, in memory order C, and its tag."""
    _, dtype, tag = _describe(leaf)
    if tag.startswith("key:"):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(
            0
        )  # a new array object: JAX keeps what it has brought to the host as long as the object lives
    return np.asarray(leaf, order="C").view(dtype), tag


def _from_array(array: np.ndarray, tag: str) -> Any:
    if tag.startswith("key:"):
        return jax.random.wrap_key_data(jnp.array(array), impl=tag.removeprefix("key:"))
    if tag in ("int", "float", "bool"):
        return array.item()
    return jax.device_put(
        array.view(ml_dtypes.bfloat16) if tag == "bfloat16" else array, may_alias=False
    )


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _nonzero_runs(array: np.ndarray) -> list[list[int]] | None:
    """The runs `[start, stop)` of rows to be written, or None for all, where leaving out rows of zeros would save little."""
    if array.nbytes < WORTHWHILE:
        return None
    row = array.nbytes // len(array)
    block = 8 * -(-BLOCK // (8 * row))  # rows, so many that a block is a multiple of 8 bytes
    data, whole = _bytes(array), len(array) // block * block * row
    padded = np.zeros(
        len(array) // block + 3, bool
    )  # whether a block has anything else, between two that have not
    padded[1:-2] = data[:whole].view(np.uint64).reshape(-1, block * row // 8).any(axis=1)
    padded[-2] = data[whole:].any()
    runs = np.minimum(np.flatnonzero(padded[1:] != padded[:-1]) * block, len(array)).reshape(-1, 2)
    left_out = len(array) - np.sum(runs[:, 1] - runs[:, 0])
    return runs.tolist() if left_out * row >= WORTHWHILE else None


def _with_zeros(array: np.ndarray, sparse: dict[str, Any] | None) -> np.ndarray:
    """The array of which some rows were written."""
    if sparse is None:
        return array
    whole, position = np.zeros((sparse["rows"], *array.shape[1:]), array.dtype), 0
    for start, stop in sparse["runs"]:
        whole[start:stop] = array[position : position + stop - start]
        position += stop - start
    return whole


def _digest(text: str, parts: dict[str, list[np.ndarray]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(parts):
        digest.update(name.encode())
        for part in parts[name]:
            digest.update(_bytes(part).data)
    return digest.hexdigest()


def _write(file: BinaryIO, parts: dict[str, list[np.ndarray]], metadata: dict[str, str]) -> None:
    """Writes arrays, each of which is given in parts along its first axis, in the format of safetensors.

    The package's own `save_file` wants whole arrays, and some of its versions copy them.
    """
    names = sorted(
        parts, key=lambda name: (-parts[name][0].itemsize, name)
    )  # so that each array is aligned
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
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        for part in parts[name]:
            file.write(_bytes(part).data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces the one at `path` when all is written, with the same permissions."""
    target = Path(os.path.realpath(path))  # a link stays a link
    _remove_leftovers(target)
    temporary, file = _open_temporary(target)
    try:
        with file:
            yield file
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _open_temporary(target: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `target`, which is locked as long as it is open."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        file = open(temporary, "xb")  # noqa: SIM115 (closed by the caller)
        if fcntl is None:
            return temporary, file
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process has removed it, before it was locked


def _remove_leftovers(target: Path) -> None:
    """Removes the temporary files of processes that ended while they were writing `target`, but not of those that still are."""
    pattern = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name):
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                if fcntl is not None:
                    file = stack.enter_context(open(path, "rb"))
                    fcntl.flock(
                        file, fcntl.LOCK_EX | fcntl.LOCK_NB
                    )  # fails where another process writes
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes sure that a new name in a folder survives a crash of the machine."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file, after checking that it is whole."""
    path = find(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ConfigurationError(
            f"{path} is not a saved agent, or it is damaged: {error}"
        ) from error
    if "agentzoo" not in metadata:
        raise ConfigurationError(f"{path} is a safetensors file, but not one that agentzoo saved.")
    if metadata.get("sha256") != _digest(
        metadata["agentzoo"], {name: [array] for name, array in arrays.items()}
    ):
        raise ConfigurationError(
            f"{path} is damaged: its checksum does not match. Use an earlier checkpoint."
        )
    header = json.loads(metadata["agentzoo"])
    if header["format"] > FORMAT:
        raise ConfigurationError(
            f"{path} has format {header['format']}, which this version does not read; update agentzoo."
        )
    return header, arrays
