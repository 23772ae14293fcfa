"""Sources: random access to the examples of a data set, and functions that read them in batches."""

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from sklearn import datasets

from dbae_jax.errors import ConfigError

__all__ = [
    *("Source", "BatchedSource", "ArraySource", "digits"),
    *("overlap", "read", "chunks", "gather", "IN_MEMORY"),
]

# Names of the data sets that are made in memory; a prepared data set must have another name.
IN_MEMORY = ("digits", "shapes", "shapes_correlated")

TEST_BLOCK, TEST_EVERY = 10, 50  # digits: the first ten of every fifty are test images
READ_AT_ONCE = 256  # examples that `gather` reads at once


class Source(Protocol):
    """Random access to examples {"image": uint8 [H, W, C], ...} of a data set.

    Where known, an example also holds "label" (int), "id" (a string) and "attributes" (int8 or
    float32 [K]). The repr of a source identifies its examples.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class BatchedSource(Source, Protocol):
    """A source that returns a batch of examples faster than one example after the other."""

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples of `indices` [B] as arrays [B, ...]."""


class ArraySource:
    """Images in memory, with or without labels."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        """Stores the examples.

        Args:
          images: uint8 [N, H, W, C].
          labels: int [N]; None: examples have no labels.
        """
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

    def overlaps(self, other: Source) -> bool:
        """Returns whether another source holds exactly the same array of images."""
        return isinstance(other, ArraySource) and np.array_equal(self.images, other.images)


def digits(split: str, image_size: int) -> ArraySource:
    """Returns the 1,797 handwritten digits of scikit-learn, 8x8 pixels enlarged (PIL BILINEAR).

    The first ten of every fifty images are "test", the others "train". Blocks of ten keep the
    classes balanced, because scikit-learn's file repeats the sequence 0 to 9 in places.

    Args:
      split: "train" or "test".
      image_size: side of the images in pixels.

    Returns:
      Images uint8 [N, image_size, image_size, 1], bright digits on black, and labels 0 to 9.

    Raises:
      ConfigError: if the split is unknown.
    """
    if split not in ("train", "test"):
        raise ConfigError(
            f"digits have no split {split!r}: config.data.train_split and config.data.test_split "
            "must be train or test."
        )
    loaded = datasets.load_digits()
    is_test = np.arange(len(loaded.images)) % TEST_EVERY < TEST_BLOCK
    chosen = is_test if split == "test" else ~is_test
    shape = (image_size, image_size)
    images = [
        np.asarray(
            Image.fromarray(scan.astype(np.float32)).resize(shape, Image.Resampling.BILINEAR)
        )
        for scan in loaded.images[chosen]
    ]
    pixels = np.round(np.stack(images) * (255 / 16)).astype(np.uint8)[..., None]
    return ArraySource(pixels, loaded.target[chosen])


def overlap(first: Source, second: Source) -> bool:
    """Returns whether two sources share images, or may share images.

    The method `overlaps` of the first source decides, if it has one. Otherwise two sources share
    images if their reprs are equal.
    """
    overlaps = getattr(first, "overlaps", None)
    return repr(first) == repr(second) if overlaps is None else overlaps(second)


def read(
    source: Source, indices: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Returns the examples of `indices` as arrays [B, ...].

    Args:
      source: source of the examples.
      indices: int [B].
      names: entries of the examples that are returned; None: all. A `BatchedSource` returns all.
    """
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
    """Yields the first `count` examples in order, in chunks of `size` examples.

    Args:
      source: source of the examples.
      size: number of examples per chunk; the last chunk may be shorter.
      count: number of examples, at most those of the source; None: all.
      names: entries of the examples that are yielded, where the source has them.
      num_threads: number of threads that read a chunk together.

    Yields:
      Entries of a chunk by name, arrays [size, ...].
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
    """Returns the first `count` images and labels.

    Args:
      source: source of the examples; it must not be empty.
      count: number of examples; None: all.

    Returns:
      Images uint8 [N, H, W, C], and labels int [N] or None.
    """
    parts = list(chunks(source, READ_AT_ONCE, count=count, names=("image", "label")))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined["image"], joined.get("label")
