"""Writing the policy of an agent to a file that needs no agentzoo.

`Algorithm.export` is the function for users.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from agentzoo.checkpoint.files import replacing
from agentzoo.export.program import make_program
from agentzoo.policy import PolicyFunction
from agentzoo.types import ConfigurationError, EnvSpec, PyTree

__all__ = ["export"]

_ONNX, _STABLEHLO = ".onnx", ".stablehlo"


def export(
    path: str | os.PathLike[str],
    policy: PolicyFunction,
    params: PyTree,
    spec: EnvSpec,
    about: Mapping[str, Any],
) -> Path:
    """Write a policy as one file, all or nothing; see `Algorithm.export`.

    Args:
      path: the file. Its suffix decides the format.
      policy: the policy.
      params: the parameters of the policy.
      spec: what the agent knows of its environments.
      about: plain JSON that an ONNX file keeps as metadata.

    Returns:
      The path of the file.

    Raises:
      ConfigurationError: if the format is unknown, a package is missing, the policy cannot be
        converted, or the folder does not exist.
    """
    path = with_suffix(path)
    program = make_program(policy, jax.device_get(params), spec)
    if path.suffix == _ONNX:
        # Imported here because it imports packages that are slow to import and optional.
        from agentzoo.export.onnx import to_onnx

        data = to_onnx(program, about)
    else:
        from agentzoo.export.stablehlo import to_stablehlo

        data = to_stablehlo(program)
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}). Choose another path."
        ) from error
    return path


def with_suffix(path: str | os.PathLike[str]) -> Path:
    """Return the path with the suffix of a format; StableHLO is the default.

    Raises:
      ConfigurationError: if the path has the suffix of another format, or its folder does not
        exist.
    """
    path = Path(path)
    if not path.suffix and path.name:
        path = path.with_name(path.name + _STABLEHLO)
    if path.suffix not in (_ONNX, _STABLEHLO):
        raise ConfigurationError(
            f"{path} names no format that a policy can be exported to. Choose a path that ends in "
            f"{_ONNX} or {_STABLEHLO}."
        )
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"{path} cannot be written, because there is no folder {path.parent}. Make the folder "
            f"first, or choose another path."
        )
    return path
