"""Trees of many small arrays, such as biases and scales of norms, in few kernels.

A kernel of a GPU takes microseconds to start, and milliseconds to compile on any platform. XLA
makes one or more for each array of a tree, unless the arrays are pieces of one large array.
"""

import itertools
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dbae_jax.runtime.platforms import by_gpu

Tree = TypeVar("Tree")  # of arrays

SMALL = 8192  # largest number of entries of an array that is joined with others


def joined(tree: Tree) -> Tree:
    """Returns the same tree; in programs for GPUs, its small arrays are pieces of one array."""
    return by_gpu(_joined, lambda tree: tree, tree)


def norm(tree: Tree) -> jax.Array:
    """Returns the global L2 norm of a tree of arrays, a scalar, with few kernels."""
    leaves = jax.tree.leaves(tree)
    small = [leaf for leaf in leaves if leaf.size <= SMALL]
    # The sums over rows become part of the kernels that write the arrays.
    rows = [jnp.square(leaf).sum(-1) for leaf in leaves if leaf.size > SMALL]
    parts = [jnp.square(_one_array(small)).sum() if small else 0.0]
    parts += [_one_array(rows).sum()] if rows else []
    return jnp.sqrt(sum(parts))


def _joined(tree: Tree) -> Tree:
    leaves, structure = jax.tree.flatten(tree)
    small = [i for i, leaf in enumerate(leaves) if leaf.size <= SMALL]
    ends = list(itertools.accumulate(leaves[i].size for i in small))
    pieces = jnp.split(_one_array([leaves[i] for i in small]), ends[:-1])
    for i, piece in zip(small, pieces, strict=True):
        leaves[i] = piece.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _one_array(arrays: list[jax.Array]) -> jax.Array:
    """Returns the entries of all arrays in one array, which XLA must write."""
    return lax.optimization_barrier(jnp.concatenate([array.ravel() for array in arrays]))
