"""Policies as StableHLO, which `jax.export` can load without agentzoo."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
from jax.extend.core import jaxpr_as_fun

from agentzoo.export.program import Program
from agentzoo.types import PyTree

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""The platforms on which an exported policy can run, wherever the agent was trained."""


def to_stablehlo(program: Program) -> bytes:
    """Return a policy as the bytes of a file that `jax.export.deserialize` reads.

    The file takes batches of any size, and runs on every platform.
    """
    (batch_size,) = jax.export.symbolic_shape("batch")
    arguments = program.arguments(batch_size)
    # Matrix products are as exact on accelerators as on the CPU, where the agent may be used.
    with jax.default_matmul_precision("highest"), _without_locations():
        # XLA would leave out what no result depends on, but the file would hold its parameters.
        traced = jaxpr_as_fun(program.trace(arguments))

        def call(*arguments: PyTree) -> Any:
            action, *state = traced(*jax.tree.leaves(arguments))
            return (action, tuple(state)) if program.is_recurrent else action

        exported = jax.export.export(jax.jit(call), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Leave out the places in source code that each operation comes from.

    They are paths of this machine, and take up about a fifth of a small file.
    """
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
