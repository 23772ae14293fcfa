"""Latent codes of a split: encoded a few batches at a time, kept in a file, and read in batches."""

import functools
import itertools
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dbae_jax.data import sources
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError
from dbae_jax.runtime import kept, sharding
from dbae_jax.runtime.progress import Progress

READ_BATCHES = 8  # batches of images that are in memory at once
# Entries next to "image" that the examples of a source may have.
KNOWN = ("label", "attributes", "factors", "id")


class Encoder(Protocol):
    """A model that encodes images, such as `DBAE`."""

    @property
    def batch_size(self) -> int: ...

    def posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...


class Codes(NamedTuple):
    """Latent codes of N images.

    Attributes:
      mean: means of q(z | x_0), [N, D], float32.
      sigma: standard deviations of q(z | x_0), [N, D]; None for a deterministic encoder.
      known: labels and other entries of the images, by their names in `KNOWN`.
    """

    mean: np.ndarray
    sigma: np.ndarray | None
    known: Mapping[str, np.ndarray] = types.MappingProxyType({})

    def statistics(self) -> dict[str, np.ndarray]:
        """Returns "mean" and "std" [D] of the means; std is 1 for dimensions that do not vary."""
        std = self.mean.std(axis=0, dtype=np.float64)
        return {
            "mean": self.mean.mean(axis=0, dtype=np.float64).astype(np.float32),
            "std": np.where(std > 0, std, 1.0).astype(np.float32),
        }

    def at(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the codes of indices [B] as a batch."""
        parts = {"mean": self.mean, "sigma": self.sigma}
        return {name: part[indices] for name, part in parts.items() if part is not None}

    def part(self, start: int, stop: int) -> "Codes":
        """Returns the codes of images start, ..., stop - 1."""
        rows = slice(start, stop)
        sigma = None if self.sigma is None else self.sigma[rows]
        return Codes(self.mean[rows], sigma, {k: v[rows] for k, v in self.known.items()})


def encode(
    model: Encoder,
    source: Source,
    *,
    count: int | None = None,
    num_threads: int,
    flip: bool = False,
    with_known: bool = False,
) -> Codes:
    """Encodes images of a source, with a few batches of images in memory.

    Args:
      model: the encoder.
      source: source of the images.
      count: number of images, the first ones; None or a larger number than there are for all.
      num_threads: threads that read images.
      flip: mirrors the images.
      with_known: also returns the entries `KNOWN` of the images.

    Raises:
      DataError: if there are no images.
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


def load_or_make(
    path: pathlib.Path, identity: dict[str, Any], make: Callable[[], dict[str, Codes]]
) -> dict[str, Codes]:
    """Returns the latent codes of several splits, read from a file or made and kept in it.

    Args:
      path: the file.
      identity: everything that the codes depend on, see `kept.read_or_make`.
      make: encodes the images and returns split -> codes; called on every process or on none.
    """

    def arrays() -> dict[str, np.ndarray]:
        made = make().items()
        return {f"{split}_{name}": a for split, c in made for name, a in _arrays(c).items()}

    found = kept.read_or_make(path, identity, arrays)
    splits = [name.removesuffix("_mean") for name in found if name.endswith("_mean")]
    return {split: _of_split(found, split) for split in splits}


def _arrays(codes: Codes) -> dict[str, np.ndarray]:
    sigma = {} if codes.sigma is None else {"sigma": codes.sigma}
    return {"mean": codes.mean} | sigma | dict(codes.known)


def _of_split(arrays: dict[str, np.ndarray], split: str) -> Codes:
    known = {k: arrays[f"{split}_{k}"] for k in KNOWN if f"{split}_{k}" in arrays}
    return Codes(arrays[f"{split}_mean"], arrays.get(f"{split}_sigma"), known)


def batches(
    codes: Codes, *, batch_size: int, seed: int, start_step: int, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Yields the batches of codes for steps start_step, start_step + 1, ... without end.

    Every epoch has a new permutation, which depends on the seed and the epoch alone.

    Args:
      codes: the codes.
      batch_size: codes per batch over all processes.
      seed: seed of the permutations.
      start_step: first step.
      mesh: devices over which a batch is split.

    Yields:
      A global batch {"mean": [B, D]}, with "sigma" for a stochastic encoder. Each process provides
      its own part.
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
