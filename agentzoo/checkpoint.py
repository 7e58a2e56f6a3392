"""Saving and loading a pytree of arrays with a manifest, as one safetensors file. No code is stored, and none is run on loading."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from agentzoo.types import ConfigurationError, PyTree

FORMAT = 1
SUFFIX = ".safetensors"


def save(path: str | os.PathLike, tree: PyTree, manifest: dict[str, Any]) -> Path:
    """Writes a pytree, all or nothing: a crash leaves the file that was there before.

    Args:
      path: where to; `.safetensors` is added if it has no suffix.
      tree: a pytree of arrays, typed PRNG keys and numbers.
      manifest: plain JSON, kept beside the arrays.

    Returns:
      The path of the file.
    """
    path = _with_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays, tags = {}, {}
    for name, leaf in _named_leaves(tree).items():
        arrays[name], tags[name] = _to_array(leaf)
    text = json.dumps({"format": FORMAT, "tags": tags, "manifest": manifest})
    data = safetensors.numpy.save(arrays, {"agentzoo": text, "sha256": _digest(text, arrays)})
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a saved file.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if it is not one that `save` wrote.
    """
    return _read(path)[0]["manifest"]


def load(path: str | os.PathLike, template: PyTree, missing: tuple[str, ...] = (), surplus: str = "nothing") -> PyTree:
    """Reads a pytree.

    Args:
      path: the file.
      template: a pytree of the same structure, shapes and dtypes.
      missing: leaves of the template whose names begin so need not be in the file and are kept from the template.
      surplus: leaves whose names begin so may be in the file and not in the template.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is damaged, or does not fit the template; the message names the array.
    """
    header, arrays = _read(path)
    leaves = []
    for name, leaf in _named_leaves(template).items():
        if name not in arrays:
            if name.startswith(missing):
                leaves.append(leaf)
                continue
            raise ConfigurationError(f"{path} lacks {name}; it was saved by an agent with another network or other options.")
        expected, tag = _to_array(leaf)
        found = arrays.pop(name)
        if (found.shape, found.dtype, header["tags"][name]) != (expected.shape, expected.dtype, tag):
            raise ConfigurationError(
                f"{path} holds {name} as {found.dtype}{list(found.shape)}, but this agent has {expected.dtype}{list(expected.shape)}; "
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


def exists(path: str | os.PathLike) -> bool:
    """Whether `save` to this path would replace a file."""
    return _with_suffix(path).is_file()


def _with_suffix(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _to_array(leaf: Any) -> tuple[np.ndarray, str]:
    """An array that safetensors can store, and a tag that tells what it stands for."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)), f"key:{jax.random.key_impl(leaf)}"
    if not hasattr(leaf, "dtype"):
        return np.asarray(leaf), type(leaf).__name__
    # safetensors writes garbage for other memory orders than C.
    array = np.array(leaf, order="C")
    if array.dtype == ml_dtypes.bfloat16:  # not known to its NumPy interface
        return array.view(np.uint16), "bfloat16"
    return array, "array"


def _from_array(array: np.ndarray, tag: str) -> Any:
    if tag.startswith("key:"):
        return jax.random.wrap_key_data(jnp.array(array), impl=tag.removeprefix("key:"))
    if tag in ("int", "float", "bool"):
        return array.item()
    return jnp.array(array.view(ml_dtypes.bfloat16) if tag == "bfloat16" else array)


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file, after checking that it is whole."""
    path = find(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ConfigurationError(f"{path} is not a saved agent, or it is damaged: {error}") from error
    if "agentzoo" not in metadata:
        raise ConfigurationError(f"{path} is a safetensors file, but not one that agentzoo saved.")
    if metadata.get("sha256") != _digest(metadata["agentzoo"], arrays):
        raise ConfigurationError(f"{path} is damaged: its checksum does not match. Use an earlier checkpoint.")
    header = json.loads(metadata["agentzoo"])
    if header["format"] != FORMAT:
        raise ConfigurationError(f"{path} has format {header['format']}, which this version does not read; update agentzoo.")
    return header, arrays
