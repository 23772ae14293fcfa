"""Data sets as random-access sources of uint8 images."""

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from sklearn import datasets

from dbae_jax.errors import ConfigError

# Names of the data sets that are made in memory: no prepared one may be called so.
IN_MEMORY = ("digits", "shapes", "shapes_correlated")

TEST_BLOCK, TEST_EVERY = 10, 50  # digits: the first ten of every fifty are held out
READ_AT_ONCE = 256  # examples


class Source(Protocol):
    """Random access to examples {"image": uint8 [H, W, C], "label": int} (label where known).

    Prepared data sets also give "id", a string, and "attributes" [K], int8 or float32, where known.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class BatchedSource(Source, Protocol):
    """A source that makes many examples at once faster than one by one."""

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples of `indices` [B], stacked."""


class ArraySource:
    """Images held in memory, with labels or without."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        """Takes images: uint8 [N, H, W, C] and labels: int [N]."""
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = {"image": self.images[index]}
        if self.labels is not None:
            example["label"] = self.labels[index]
        return example

    def __repr__(self) -> str:
        return f"ArraySource(images={self.images.shape})"


def digits(split: str, image_size: int) -> ArraySource:
    """The 1,797 handwritten digits of scikit-learn, 8x8 scans enlarged (PIL bilinear).

    Split by index: the first ten of every fifty are "test", the others "train". (The file repeats
    0 to 9 in places, so a split by single indices would not hold the classes evenly.)

    Returns:
      Images uint8 [N, image_size, image_size, 1], ink bright, and labels 0 to 9.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"digits have no split {split!r}: it must be train or test.")
    loaded = datasets.load_digits()
    held_out = np.arange(len(loaded.images)) % TEST_EVERY < TEST_BLOCK
    chosen = held_out if split == "test" else ~held_out
    shape = (image_size, image_size)
    images = [
        np.asarray(
            Image.fromarray(scan.astype(np.float32)).resize(shape, Image.Resampling.BILINEAR)
        )
        for scan in loaded.images[chosen]
    ]
    pixels = np.round(np.stack(images) * (255 / 16)).astype(np.uint8)[..., None]
    return ArraySource(pixels, loaded.target[chosen])


def read(
    source: Source, indices: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Returns the examples of `indices` [B], stacked: the entries `names`, default all."""
    if isinstance(source, BatchedSource):
        return source.batch(indices)
    examples = [source[int(index)] for index in indices]
    return {name: np.stack([e[name] for e in examples]) for name in names or examples[0]}


def chunks(
    source: Source,
    size: int,
    *,
    count: int | None = None,
    names: Sequence[str] = ("image",),
    num_threads: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the first `count` examples (default: all), in order, `size` at a time.

    Args:
      source: of the examples.
      size: of a chunk; the last one may be shorter.
      count: how many; more than there are counts as all.
      names: entries to give, those that the source has.
      num_threads: that read a chunk together.
    """
    count = len(source) if count is None else min(count, len(source))
    names = [name for name in names if name in source[0]] if count else []
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, count, size):
            indices = np.arange(start, min(start + size, count))
            pieces = [piece for piece in np.array_split(indices, num_threads) if len(piece)]
            parts = list(pool.map(lambda piece: read(source, piece, names), pieces))
            yield {name: np.concatenate([part[name] for part in parts]) for name in names}


def gather(source: Source, count: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the first `count` (default: all) images [N, H, W, C] and labels [N] or None."""
    parts = list(chunks(source, READ_AT_ONCE, count=count, names=("image", "label")))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined["image"], joined.get("label")
