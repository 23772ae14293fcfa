"""Latent codes of splits: encoded with a few batches of images in memory, and cached in a file."""

import functools
import itertools
import json
import logging
import pathlib
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dbae_jax.data import sources
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError
from dbae_jax.runtime import files, processes, sharding
from dbae_jax.runtime.progress import Progress

READ_BATCHES = 8  # batches of images in memory at once
KNOWN = ("label", "attributes", "factors", "id")  # entries of examples next to "image"

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """A model that encodes images, such as `DBAE`."""

    @property
    def batch_size(self) -> int: ...

    def posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...


class Codes(NamedTuple):
    """Latent codes of N images: parameters of q(z | x_0) with latent dimension D.

    Attributes:
      mean: float32 [N, D].
      sigma: float32 [N, D], standard deviations; None: codes are deterministic.
      known: other entries of the N examples in the source, by name in `KNOWN`.
    """

    mean: np.ndarray
    sigma: np.ndarray | None
    known: Mapping[str, np.ndarray] = types.MappingProxyType({})

    def statistics(self) -> dict[str, np.ndarray]:
        """Returns "mean" and "std" [D] of the N means; std is 1 where the means are constant."""
        std = self.mean.std(axis=0, dtype=np.float64)
        return {
            "mean": self.mean.mean(axis=0, dtype=np.float64).astype(np.float32),
            "std": np.where(std > 0, std, 1.0).astype(np.float32),
        }

    def at(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a batch {"mean"[, "sigma"]: [B, D]} of the codes of images `indices` [B]."""
        parts = {"mean": self.mean, "sigma": self.sigma}
        return {name: part[indices] for name, part in parts.items() if part is not None}

    def part(self, start: int, stop: int) -> "Codes":
        """Returns the codes of images start, ..., stop - 1, with their entries of `known`."""
        here = slice(start, stop)
        sigma = None if self.sigma is None else self.sigma[here]
        return Codes(self.mean[here], sigma, {k: v[here] for k, v in self.known.items()})


def encode(
    model: Encoder,
    source: Source,
    *,
    count: int | None = None,
    num_threads: int,
    flip: bool = False,
    with_known: bool = False,
) -> Codes:
    """Encodes the first `count` images of a source, with a few batches of images in memory.

    Args:
      model: model that encodes.
      source: source of the images.
      count: number of images, at most those of the source; None: all.
      num_threads: number of threads that read images.
      flip: whether all images are mirrored.
      with_known: whether the other entries of the examples are kept (see `KNOWN`).

    Raises:
      DataError: if the source holds no images.
    """
    total = len(source) if count is None else min(count, len(source))
    size, parts, known = READ_BATCHES * model.batch_size, [], []
    names = ("image", *KNOWN) if with_known else ("image",)
    chunks = sources.chunks(source, size, count=total, names=names, num_threads=num_threads)
    with Progress("Encoding images", total, "images") as progress:
        for chunk in chunks:
            images = chunk.pop("image")
            parts.append(model.posterior(images[:, :, ::-1] if flip else images))
            known.append(chunk)
            progress.advance(len(images))
    if not parts:
        raise DataError(f"{source!r} holds no images to encode.")
    mean, sigma = zip(*parts, strict=True)
    return Codes(
        np.concatenate(mean),
        None if sigma[0] is None else np.concatenate(sigma),
        {name: np.concatenate([part[name] for part in known]) for name in known[0]},
    )


def kept(
    path: pathlib.Path, identity: dict[str, Any], make: Callable[[], dict[str, Codes]]
) -> dict[str, Codes]:
    """Returns the codes of several splits from a file, or encodes them and writes the file.

    All processes of a run encode together, so either all of them read the file or none does.

    Args:
      path: path of the file.
      identity: model and images of the codes, as JSON values; a file of a different identity is
        not used.
      make: function that encodes the splits; called on every process or on none.
    """
    found = read(path, identity)
    if processes.agree(int(found is not None)) and found is not None:
        return found
    made = make()
    write(path, made, identity)
    return made


def write(path: pathlib.Path, codes: Mapping[str, Codes], identity: dict[str, Any]) -> None:
    """Writes the codes of several splits to a file.

    Args:
      path: path of the file.
      codes: codes by split.
      identity: model and images of the codes, as JSON values.
    """
    arrays = {f"{split}_{name}": a for split, c in codes.items() for name, a in _arrays(c).items()}
    files.write_npz(path, arrays | {"identity": np.array(json.dumps(identity))})


def read(path: pathlib.Path, identity: dict[str, Any]) -> dict[str, Codes] | None:
    """Returns the codes of several splits from the file that `write` wrote.

    Args:
      path: path of the file.
      identity: model and images of the codes, as JSON values.

    Returns:
      Codes by split; None if the file is missing, damaged or of a different identity.
    """
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
    return {split: _of_split(arrays, split) for split in splits}


def _arrays(codes: Codes) -> dict[str, np.ndarray]:
    sigma = {} if codes.sigma is None else {"sigma": codes.sigma}
    return {"mean": codes.mean} | sigma | dict(codes.known)


def _of_split(arrays: dict[str, np.ndarray], split: str) -> Codes:
    known = {k: arrays[f"{split}_{k}"] for k in KNOWN if f"{split}_{k}" in arrays}
    return Codes(arrays[f"{split}_mean"], arrays.get(f"{split}_sigma"), known)


def batches(
    codes: Codes, *, batch_size: int, seed: int, start_step: int, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Yields the batches of steps start_step, start_step + 1, ..., without end.

    The order is a new permutation in every epoch and a pure function of seed and step.

    Args:
      codes: codes of the training images.
      batch_size: size B of the global batch over all processes.
      seed: seed of the order.
      start_step: step of the first batch.
      mesh: devices that hold the batches.

    Yields:
      Global batches {"mean"[, "sigma"]: [B, D]}, of which each process provides its part.
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
