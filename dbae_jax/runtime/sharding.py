"""Device mesh and shardings: the only file that names a mesh.

One axis over all devices; weights replicated, batches split along their first axis. Programs are
written for the global batch and jit places them: reductions over the batch become the collectives.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dbae_jax.errors import ConfigError


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "data", over `devices` (default: all)."""
    devices = jax.devices() if devices is None else devices
    # Auto: flax.linen's modules do not annotate shardings themselves.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, sharding: NamedSharding) -> Any:
    """Puts values that every process holds on all devices of a `replicated` sharding."""
    # jit, for device_put knows only the devices of this process.
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)(tree)


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_global(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Puts this process's part of a batch on its devices, as part of the global batch."""
    sharding = batched(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def spread(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """Splits an array that every process holds whole over the devices, by its first axis."""
    return jax.make_array_from_callback(array.shape, batched(mesh), lambda part: array[part])


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
      ConfigError: naming the config's `key` and the sizes that would do.
    """
    count = mesh.devices.size
    if batch_size % count:
        below = batch_size - batch_size % count
        near = f"{below} or {below + count}" if below else f"{count}"
        raise ConfigError(
            f"config.{key}={batch_size} cannot be shared evenly by {count} devices; use {near}."
        )
