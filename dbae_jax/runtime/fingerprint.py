"""Fingerprints of weights: short hashes that tell which weights a result was computed with."""

import hashlib
from typing import Any

import jax
import numpy as np

LENGTH = 12  # hexadecimal digits


def of(variables: Any) -> str:
    """Returns the beginning of the sha256 over the names, shapes, types and values of arrays.

    Arrays are fetched one at a time; 2 GB take about a second. With several processes, every
    process must hold the whole arrays, as is the case for a model that is evaluated.

    Args:
      variables: tree of arrays.
    """
    hashed = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        hashed.update(repr((jax.tree_util.keystr(path), array.shape, array.dtype.name)).encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:LENGTH]


def of_encoder(variables: dict) -> str:
    """Returns `of` the encoder in the variables {"params", "stats"} of a model.

    Latent codes, the latent prior and directions in latent space depend on no other weights.
    """
    return of(variables["params"]["encoder"])
