"""Named random streams: every draw is a function of (root key, step, stream name)."""

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream; other names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def per_example(key: jax.Array, start: int | jax.Array, count: int) -> jax.Array:
    """Returns `count` keys, for examples start, start + 1, ...: the same in whatever batch."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jax.numpy.arange(count))
