"""Processes inputs of any length in batches of one size, on one device or on a mesh."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.runtime import sharding

Tree = TypeVar("Tree")  # a tree of arrays
Array = TypeVar("Array", jax.Array, np.ndarray)
ProgressFn = Callable[[int, int], None]  # (examples that are done, all examples)


def run(
    fn: Callable[..., Tree],
    *arrays: Any,
    size: int,
    mesh: jax.sharding.Mesh | None = None,
    progress: ProgressFn | None = None,
) -> Tree:
    """Applies a function to slices of `size` examples and joins the results on the host.

    Args:
      fn: function of slices of the arrays along their first axis; returns a tree of arrays with
        one entry per example. The last slice is padded to `size`.
      *arrays: arrays, or trees of arrays, that all have the same length.
      size: examples per slice, a multiple of the number of devices in the mesh.
      mesh: devices that share each slice. With several processes, each process gets the whole
        result.
      progress: called after every slice.
    """
    count = len(jax.tree.leaves(arrays)[0])
    answers = []
    for start in range(0, count, size):
        chunk = jax.tree.map(lambda a: a[start : start + size], arrays)  # noqa: B023
        missing = max(start + size - count, 0)
        if missing:  # padding: the last example repeated; any valid example would do
            chunk = jax.tree.map(lambda a: _lengthen(a, missing), chunk)  # noqa: B023
        if mesh is not None:
            chunk = jax.tree.map(lambda a: sharding.spread(mesh, np.asarray(a)), chunk)
        answer = jax.device_get(fn(*chunk))
        answers.append(jax.tree.map(lambda a: a[: size - missing], answer))  # noqa: B023
        if progress is not None:
            progress(min(start + size, count), count)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *answers)


def padded_size(count: int, most: int, mesh: jax.sharding.Mesh | None) -> int:
    """Returns the size of the batches in which `count` examples run.

    Inputs that fit into one batch are padded to a power of four, so that few sizes are compiled.
    Compiling takes seconds on a CPU and up to minutes on an accelerator, for every size. Longer
    inputs run in batches of `most`, and the last one is padded to it. The padding costs up to four
    times the work, for instance with 5 examples, which run as 16.

    Args:
      count: number of examples.
      most: largest size, a multiple of the number of devices.
      mesh: devices that share every batch.
    """
    power = -(-(count - 1).bit_length() // 2)
    return min(most, whole_size(4**power, mesh))


def whole_size(size: int, mesh: jax.sharding.Mesh | None) -> int:
    """Returns `size`, rounded up to a multiple of the number of devices in the mesh."""
    count = 1 if mesh is None else mesh.devices.size
    return -(-size // count) * count


def whole_keys(key: jax.Array, size: int) -> jax.Array:
    """Repeats the last of several keys up to a multiple of `size`; one key stays as it is.

    Functions that get all keys then compile for few numbers of keys.
    """
    return _lengthen(key, -len(key) % size) if key.ndim else key


def _lengthen(array: Array, missing: int) -> Array:
    xp: Any = jnp if isinstance(array, jax.Array) else np
    return xp.concatenate([array, xp.repeat(array[-1:], missing, axis=0)])
