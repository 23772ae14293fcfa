"""Device mesh and shardings: the only file that builds them.

The mesh has one axis over all devices. Weights are replicated, and batches are split along their
first axis. Programs are written for the global batch; jit turns reductions over the batch into
collectives.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from dbae_jax.errors import ConfigError


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "data", over devices; default: all devices."""
    devices = jax.devices() if devices is None else devices
    # Auto, because the modules of flax.linen do not annotate shardings.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding where every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, sharding: Sharding) -> Any:
    """Puts a tree that every process holds on all devices of a `replicated` sharding."""
    # jit instead of device_put, which knows only the devices of this process.
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)(tree)


def placed(abstract: Any, sharding: Sharding | None = None) -> Any:
    """Returns an abstract tree with a sharding at every leaf; default: the first device."""
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
    )


def batched(mesh: Mesh) -> NamedSharding:
    """Returns the sharding where the first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def results(mesh: Mesh | None) -> NamedSharding | None:
    """Returns the sharding of results that have one entry per example and go to the host.

    The devices of one process keep their parts, so that no device waits for another: XLA ends the
    process if CPU devices wait for each other for 40 seconds. In a run of several processes, every
    device gets the whole result. Without a mesh there is one device, and no sharding is needed.
    """
    if mesh is None:
        return None
    return replicated(mesh) if mesh.is_multi_process else batched(mesh)


def to_global(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns the global batch, of which each process gives its own part."""
    sharding = batched(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def spread(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """Splits an array, which every process holds whole, over the devices by its first axis."""
    return jax.make_array_from_callback(array.shape, batched(mesh), lambda part: array[part])


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Checks that the devices can share a batch evenly.

    Args:
      batch_size: examples per batch.
      mesh: devices that share it.
      key: config key of the batch size, for the error.

    Raises:
      ConfigError: if they cannot; the error names the nearest batch sizes that work.
    """
    count = mesh.devices.size
    if batch_size % count:
        below = batch_size - batch_size % count
        near = f"{below} or {below + count}" if below else f"{count}"
        raise ConfigError(
            f"config.{key}={batch_size} cannot be shared evenly by {count} devices; use {near}."
        )
