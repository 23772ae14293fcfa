"""Named random streams: every draw is a function of (root key, step, stream name)."""

import zlib

import jax
import numpy as np


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream; other names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def per_example(key: jax.Array, indices: jax.Array | np.ndarray) -> jax.Array:
    """Returns the keys of examples, [n] for indices [n]: the same in whatever batch they stand.

    key: one key, folded with each index, or an array of keys, of which the indexed are taken.
    """
    if key.ndim:
        return key[indices]
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
