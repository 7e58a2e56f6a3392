"""Saving and loading a pytree of arrays, with a manifest, as one safetensors file.

A file holds no code, and loading it runs none.
"""

from agentzoo.checkpoint.archive import (
    LaterFormatError,
    check_shapes,
    describe,
    load,
    read_manifest,
    save,
    verify_file,
)
from agentzoo.checkpoint.files import SUFFIX, exists, find
from agentzoo.checkpoint.leaves import all_finite
from agentzoo.checkpoint.store import CheckpointStore

__all__ = [
    "SUFFIX",
    "CheckpointStore",
    "LaterFormatError",
    "all_finite",
    "check_shapes",
    "describe",
    "exists",
    "find",
    "load",
    "read_manifest",
    "save",
    "verify_file",
]
