"""A short name of weights: what was computed with others is told from it by this, at any step."""

import hashlib
from typing import Any

import jax
import numpy as np

LENGTH = 12  # hexadecimal digits


def of(variables: Any) -> str:
    """Returns the beginning of the sha256 of a tree's arrays, their names, shapes and types.

    One array at a time is fetched; about a second for 2 GB. Arrays of several processes must be
    whole on each of them, as those of a model that is evaluated are.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(repr((jax.tree_util.keystr(path), array.shape, array.dtype.name)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:LENGTH]
