"""Named random streams: every random draw depends on (root key, step, stream name) alone."""

import zlib

import jax
import numpy as np

_WORD = 2**32 - 1


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream; different names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def key_of(seed: int) -> jax.Array:
    """Returns the key of a seed of any size, 0 or more; different seeds give different keys.

    jax itself reads the lowest 32 bits of a seed. The higher ones are folded in here, so that
    smaller seeds give the keys of `jax.random.key`.
    """
    key, rest = jax.random.key(seed & _WORD), seed >> 32
    while rest:
        key, rest = jax.random.fold_in(stream(key, "seed"), rest & _WORD), rest >> 32
    return key


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
