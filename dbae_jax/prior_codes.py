"""The codes that a prior is trained on, dealt out in batches."""

import functools
import itertools
from collections.abc import Iterator

import jax
import numpy as np

from dbae_jax import sharding
from dbae_jax.codes import Codes

FILE = "codes.npz"


def batches(
    codes: Codes, *, batch_size: int, seed: int, start_step: int, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Yields the batches of steps start_step, start_step + 1, ... without end.

    The order, a new permutation every epoch, is a pure function of seed and step; batches are the
    global ones, {"mean"[, "sigma"]: [B, D]}, each process with its part.
    """

    @functools.lru_cache(maxsize=2)
    def permutation(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(codes.mean))

    local = batch_size // jax.process_count()
    first = jax.process_index() * local
    for step in itertools.count(start_step):
        positions = step * batch_size + first + np.arange(local)
        epochs, places = np.divmod(positions, len(codes.mean))
        indices = [permutation(e)[p] for e, p in zip(epochs.tolist(), places, strict=True)]
        yield sharding.to_global(mesh, codes.at(np.array(indices)))
