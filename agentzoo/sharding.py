"""Several devices as one: each computes with its share of a batch, and JAX adds up what they find.

An agent's state is the same on all of them. Where an agent has put a batch together it passes it
through `shard_batch`, which does nothing for an agent on one device.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from agentzoo.types import ConfigurationError, PyTree

_AXIS = "batch"


def make_mesh(n_devices: int | str) -> Mesh | None:
    """The first devices that there are, or "all", on all hosts of `jax.distributed`; None for one.

    Raises:
      ConfigurationError: if there are not as many.
    """
    devices = jax.devices()
    if n_devices == "all":
        n_devices = len(devices)
    if not isinstance(n_devices, int | np.integer) or n_devices < 1:
        raise ConfigurationError(
            f'n_devices={n_devices!r}; expected a number of devices, or "all".'
        )
    if n_devices > len(devices):
        advice = (
            "; XLA_FLAGS=--xla_force_host_platform_device_count=4 would make four of a CPU"
            if devices[0].platform == "cpu"
            else ""
        )
        raise ConfigurationError(
            f"n_devices={n_devices}, but JAX sees {len(devices)} ({devices[0].platform}){advice}."
        )
    if n_devices == 1:
        return None
    if len({device.process_index for device in devices[:n_devices]}) < jax.process_count():
        raise ConfigurationError(
            f"n_devices={n_devices} leaves some of the {jax.process_count()} hosts without one of the {len(devices)} devices; "
            'use n_devices="all".'
        )
    return Mesh(np.array(devices[:n_devices]), (_AXIS,), axis_types=(AxisType.Auto,))


def use_mesh(mesh: Mesh | None) -> Any:
    """A context in which functions are traced, so that `shard_batch` shares between the devices of the mesh."""
    return (
        contextlib.nullcontext()
        if mesh is None
        else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    )


def shard_batch(batch: PyTree, axis: int = 0) -> PyTree:
    """A batch of which each device has its share, of `axis` of all arrays.

    Raises:
      ConfigurationError: if the devices cannot have equal shares.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if _AXIS not in mesh.shape:
        return batch
    number = mesh.shape[_AXIS]
    for x in jax.tree.leaves(batch):
        if x.shape[axis] % number:
            raise ConfigurationError(
                f"A batch of {x.shape[axis]} cannot be shared equally between {number} devices; choose batch_size (with memory, the number "
                f"of sequences; for IMPALA, n_envs) as a multiple of {number}."
            )
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(*[None] * axis, _AXIS))


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays of which each device of the mesh has a copy."""
    return (
        tree
        if mesh is None
        else jax.tree.map(lambda x: _put(x, NamedSharding(mesh, PartitionSpec())), tree)
    )


def shard(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays of which each device of the mesh has its share of the first axis, or a copy where equal shares cannot be."""
    if mesh is None:
        return tree

    def put(x: Any) -> Any:
        return _put(
            x,
            NamedSharding(
                mesh,
                PartitionSpec(_AXIS) if x.ndim and x.shape[0] % mesh.size == 0 else PartitionSpec(),
            ),
        )

    return jax.tree.map(put, tree)


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """What every host has, on the devices of all hosts, unless it is there already."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return x
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x)
        )
    return jax.make_array_from_callback(x.shape, sharding, np.asarray(x).__getitem__)


def gather(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays that each host can read, with the shares of all hosts, each of which has to ask for it."""
    return _collector(mesh)(tree) if mesh is not None and mesh.is_multi_process else tree


@functools.lru_cache(maxsize=4)
def _collector(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def from_first_host(number: float, mesh: Mesh | None) -> float:
    """What the first host has measured, so that all of them do the same."""
    if mesh is None or not mesh.is_multi_process:
        return number
    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))
