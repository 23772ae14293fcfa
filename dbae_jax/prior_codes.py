"""The codes that a prior is trained on: encoded once, kept in a file, dealt out in batches."""

import concurrent.futures
import functools
import itertools
import json
import logging
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from dbae_jax import files, sharding
from dbae_jax.api import DBAE
from dbae_jax.data import sources
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError

FILE = "codes.npz"
READ_BATCHES = 8  # of images, in memory at once

log = logging.getLogger(__name__)


class Codes(NamedTuple):
    """Means and scales of q(z | x_0): [N, D], float32; deterministic codes have no scale."""

    mean: np.ndarray
    sigma: np.ndarray | None

    def statistics(self) -> dict[str, np.ndarray]:
        """Returns mean and std [D] of the means over the set; 1 where they do not vary."""
        std = self.mean.std(axis=0, dtype=np.float64)
        return {
            "mean": self.mean.mean(axis=0, dtype=np.float64).astype(np.float32),
            "std": np.where(std > 0, std, 1.0).astype(np.float32),
        }

    def at(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the codes of indices [B] as a batch."""
        parts = {"mean": self.mean, "sigma": self.sigma}
        return {name: part[indices] for name, part in parts.items() if part is not None}


def encode(model: DBAE, source: Source, *, count: int | None = None, num_threads: int) -> Codes:
    """Encodes the first `count` images of a source (default: all), a few batches in memory.

    Raises:
      DataError: if there are none.
    """
    count = len(source) if count is None else min(count, len(source))
    if not count:
        raise DataError(f"{source!r} holds no images to encode.")
    step, parts = READ_BATCHES * model.batch_size, []
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, count, step):
            indices = np.arange(start, min(start + step, count))
            pieces = [piece for piece in np.array_split(indices, num_threads) if len(piece)]
            read = pool.map(lambda piece: sources.read(source, piece, ("image",))["image"], pieces)
            parts.append(model.posterior(np.concatenate(list(read))))
            log.info("Encoded %d of %d images.", indices[-1] + 1, count)
    mean, sigma = zip(*parts, strict=True)
    return Codes(np.concatenate(mean), None if sigma[0] is None else np.concatenate(sigma))


def write(path: pathlib.Path, codes: dict[str, Codes], identity: dict[str, Any]) -> None:
    """Writes the codes of several splits, and whose they are."""
    arrays = {f"{split}_{name}": a for split, c in codes.items() for name, a in _arrays(c)}
    files.write_npz(path, arrays | {"identity": np.array(json.dumps(identity))})


def read(path: pathlib.Path, identity: dict[str, Any]) -> dict[str, Codes] | None:
    """Returns what `write` wrote, or None if the file is missing, torn or of other codes."""
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            if json.loads(str(file["identity"])) != identity:
                log.info("The codes in %s are of another model or other images.", path)
                return None
            arrays = dict(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("The codes in %s cannot be read (%s); encoding again.", path, error)
        return None
    splits = [name.removesuffix("_mean") for name in arrays if name.endswith("_mean")]
    return {s: Codes(arrays[f"{s}_mean"], arrays.get(f"{s}_sigma")) for s in splits}


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


def _arrays(codes: Codes) -> list[tuple[str, np.ndarray]]:
    return [(name, array) for name, array in codes._asdict().items() if array is not None]
