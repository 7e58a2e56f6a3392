"""Training on several devices, each of which computes with its share of a batch.

JAX adds up the results. All devices have the same agent's state. An agent passes each batch through
`shard_batch`, which does nothing if there is only one device.
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
    """Return a mesh of the first devices, or None for one device.

    Args:
      n_devices: the number of devices, or "all" for those of all hosts of `jax.distributed`.

    Raises:
      ConfigurationError: if there are not so many devices, or some hosts would have none.
    """
    devices = jax.devices()
    if n_devices == "all":
        n_devices = len(devices)
    if not isinstance(n_devices, int | np.integer) or n_devices < 1:
        raise ConfigurationError(
            f"n_devices={n_devices!r} is not a number of devices. "
            f'Set n_devices to a positive integer or "all".'
        )
    if n_devices > len(devices):
        platform = devices[0].platform
        advice = f", or set XLA_FLAGS=--xla_force_host_platform_device_count={n_devices}"
        raise ConfigurationError(
            f"n_devices={n_devices}, but JAX sees {len(devices)} ({platform}). "
            f"Choose at most {len(devices)}{advice if platform == 'cpu' else ''}."
        )
    if n_devices == 1:
        return None
    if len({device.process_index for device in devices[:n_devices]}) < jax.process_count():
        raise ConfigurationError(
            f"n_devices={n_devices} leaves some of the {jax.process_count()} hosts without any of "
            f'the {len(devices)} devices. Set n_devices="all".'
        )
    return Mesh(np.array(devices[:n_devices]), (_AXIS,), axis_types=(AxisType.Auto,))


def use_mesh(mesh: Mesh | None) -> Any:
    """Return a context for tracing, in which `shard_batch` uses the devices of the mesh."""
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def shard_batch(batch: PyTree, axis: int = 0) -> PyTree:
    """Give each device an equal share of a batch, along `axis` of all arrays.

    Raises:
      ConfigurationError: if the shares cannot be equal.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if _AXIS not in mesh.shape:
        return batch
    number = mesh.shape[_AXIS]
    for x in jax.tree.leaves(batch):
        if x.shape[axis] % number:
            raise ConfigurationError(
                f"A batch of {x.shape[axis]} cannot be shared equally between {number} devices. "
                f"Choose batch_size (with memory, the number of sequences; for IMPALA, n_envs) as "
                f"a multiple of {number}."
            )
    # PartitionSpec(None, ..., None, "batch"): only `axis` is divided.
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(*[None] * axis, _AXIS))


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Give each device of the mesh a copy of all arrays."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _put(x, sharding), tree)


def shard(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Give each device of the mesh an equal share of the first axis of all arrays.

    If the number of devices does not divide the first axis, each device gets a copy.
    """
    if mesh is None:
        return tree

    def put(x: Any) -> Any:
        divisible = x.ndim and x.shape[0] % mesh.size == 0
        spec = PartitionSpec(_AXIS) if divisible else PartitionSpec()
        return _put(x, NamedSharding(mesh, spec))

    return jax.tree.map(put, tree)


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put an array that every host has on the devices of all hosts, unless it is there."""
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
    """Collect the shares of all hosts in arrays that each host can read.

    If there are several hosts, all of them have to call this function.
    """
    return _collector(mesh)(tree) if mesh is not None and mesh.is_multi_process else tree


@functools.lru_cache(maxsize=4)
def _collector(mesh: Mesh) -> Any:
    """Return the compiled identity whose outputs are copied to all devices of the mesh."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def from_first_host(number: float, mesh: Mesh | None) -> float:
    """Return the number that the first host measured, so that all hosts do the same."""
    if mesh is None or not mesh.is_multi_process:
        return number
    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))
