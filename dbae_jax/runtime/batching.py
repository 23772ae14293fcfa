"""Inputs of any length, worked off in batches of one size on one device or a mesh of them."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.runtime import sharding

Tree = TypeVar("Tree")  # of arrays
Array = jax.Array | np.ndarray


def run(
    fn: Callable[..., Tree], *arrays: Any, size: int, mesh: jax.sharding.Mesh | None = None
) -> Tree:
    """Applies `fn` to slices of `size` examples and joins the answers on the host.

    Args:
      fn: takes slices of the arrays (or of the leaves of trees) along their first axis, the last
        one filled up to `size`, and answers with a tree of arrays of as many examples.
      arrays: all of the same length, or trees of such.
      size: a multiple of the mesh's devices.
      mesh: devices that share each slice; of several processes each gets the whole answer.
    """
    count = len(jax.tree.leaves(arrays)[0])
    answers = []
    for start in range(0, count, size):
        chunk = jax.tree.map(lambda a: a[start : start + size], arrays)  # noqa: B023
        missing = max(start + size - count, 0)
        if missing:  # repeat the last example: any valid filling would do
            chunk = jax.tree.map(lambda a: _lengthen(a, missing), chunk)  # noqa: B023
        if mesh is not None:
            chunk = jax.tree.map(lambda a: sharding.spread(mesh, np.asarray(a)), chunk)
        answer = jax.device_get(fn(*chunk))
        answers.append(jax.tree.map(lambda a: a[: size - missing], answer))  # noqa: B023
    return jax.tree.map(lambda *parts: np.concatenate(parts), *answers)


def whole_size(size: int, mesh: jax.sharding.Mesh | None) -> int:
    """Returns `size`, rounded up to a multiple of the mesh's devices."""
    count = 1 if mesh is None else mesh.devices.size
    return -(-size // count) * count


def _lengthen(array: Array, missing: int) -> Array:
    xp = jnp if isinstance(array, jax.Array) else np
    return xp.concatenate([array, xp.repeat(array[-1:], missing, axis=0)])
