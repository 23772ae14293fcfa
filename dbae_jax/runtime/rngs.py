"""Named random streams: every random draw depends on (root key, step, stream name) alone."""

import zlib

import jax
import numpy as np


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream; different names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def per_example(key: jax.Array, indices: jax.Array | np.ndarray) -> jax.Array:
    """Returns the keys of examples: [n].

    An example has the same key in every batch that it is part of.

    Args:
      key: one key, which is folded with each index, or an array of keys, which is indexed.
      indices: [n], positions of the examples in the whole input.
    """
    if key.ndim:
        return key[indices]
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
