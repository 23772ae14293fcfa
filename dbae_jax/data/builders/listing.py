"""The list of a data set's images by split, with labels and attributes, before they are written."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dbae_jax.data.files.stores import Store
from dbae_jax.errors import DataError

HASHED_IMAGES = 8  # images whose bytes enter `Listing.contents_hash` if their sizes are unknown


@dataclasses.dataclass(frozen=True)
class Options:
    """How the published files are read.

    Attributes:
      annotations: folder of the attribute and split files; None: next to the images.
      table: CSV of attributes for a folder of images; None: the folder's attributes.csv, if any.
      check: whether files are compared with their published checksums, where these are known.
      allow_partial: whether images that the annotation files name may be missing.
    """

    annotations: pathlib.Path | None = None
    table: pathlib.Path | None = None
    check: bool = True
    allow_partial: bool = False


@dataclasses.dataclass(frozen=True)
class Split:
    """The N images of a split in their order, with their labels and attributes.

    Attributes:
      names: N names of the images in the store.
      ids: N names of the examples: the stem of an image's file, or the number or key in an LMDB.
      attributes: [N, K], int8 or float32; None: the data set has no attributes.
      labels: int [N]; None: the data set has no labels.
    """

    names: Sequence[str]
    ids: Sequence[str]
    attributes: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """All images of a data set: the store that holds them, and their splits.

    Attributes:
      store: files of the images.
      splits: splits by name.
      attribute_names: names of the K columns of attributes.
      class_names: names of the labels.
      named_splits: further names for ranges of a split: name -> (split, start, stop).
      left_out: names of images that belong to no split, such as images without attributes.
      notes: sentences about what the source was taken for.
    """

    store: Store
    splits: Mapping[str, Split]
    attribute_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    named_splits: Mapping[str, tuple[str, int, int]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self) -> int:
        """Returns the number of images over all splits."""
        return sum(len(split.names) for split in self.splits.values())

    def fingerprint(self) -> str:
        """Returns a hash of the whole listing: `outline_hash` and `contents_hash` of all images."""
        sha256 = hashlib.sha256(self.outline_hash().encode())
        for name, split in self.splits.items():
            sha256.update(self.contents_hash(name, 0, len(split.names)).encode())
        return sha256.hexdigest()

    def contents_hash(self, split: str, start: int, stop: int) -> str:
        """Returns a hash that distinguishes images from different images of the same names.

        The hash covers the file sizes of the images. Where the store does not know sizes without
        reading the images, it covers the bytes of at most `HASHED_IMAGES` images instead.

        Args:
          split: name of a split.
          start: index of the first image.
          stop: index after the last image.
        """
        names = self.splits[split].names[start:stop]
        sizes = [self.store.size(name) for name in names]
        sha256 = hashlib.sha256(json.dumps(sizes).encode())
        unsized = [name for name, size in zip(names, sizes, strict=True) if size is None]
        chosen = np.unique(np.linspace(0, len(unsized) - 1, HASHED_IMAGES).astype(int))
        for index in chosen if unsized else ():
            try:
                sha256.update(hashlib.sha256(self.store.read(unsized[index])).digest())
            except (DataError, OSError):
                sha256.update(b"broken")  # The image is reported later, when all are read.
        return sha256.hexdigest()

    def outline_hash(self) -> str:
        """Returns a hash of names, ids, labels and attributes, without the bytes of the images."""
        sha256 = hashlib.sha256(json.dumps([self.attribute_names, self.class_names]).encode())
        for name, split in self.splits.items():
            sha256.update(json.dumps([name, *split.ids, *split.names]).encode())
            for column in (split.attributes, split.labels):
                sha256.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        return sha256.hexdigest()


def stems(names: Sequence[str]) -> dict[str, str]:
    """Returns the images by file stem: {"000001": "img_align_celeba/000001.jpg"}.

    Raises:
      DataError: if two images have the same stem.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(pathlib.PurePosixPath(name).stem, name)
        if other != name:
            raise DataError(
                f"--source holds {other} and {name}, which have the same name; name a folder that "
                "holds every image once."
            )
    return found


def require_known(images: Mapping[str, str], rows: Mapping[str, object], file: str) -> None:
    """Checks that every image has a row in an annotation file.

    Args:
      images: names of the images by stem, as `stems` returns them.
      rows: rows of the annotation file by stem.
      file: name of the annotation file, for error messages.

    Raises:
      DataError: if images have no row; the error names the first three.
    """
    unknown = [name for stem, name in images.items() if stem not in rows]
    if unknown:
        raise DataError(
            f"{file} has no row for {_first(unknown)}; use the annotation file that was published "
            "with these images, or remove the images."
        )


def require_present(
    wanted: Sequence[str], images: Mapping[str, str], options: Options
) -> list[str]:
    """Returns the wanted stems that have an image.

    Args:
      wanted: stems that an annotation file names.
      images: names of the images by stem, as `stems` returns them.
      options: allow_partial accepts missing images.

    Raises:
      DataError: if images are missing without allow_partial; the error names the first three.
    """
    missing = [stem for stem in wanted if stem not in images]
    if missing and not options.allow_partial:
        raise DataError(
            f"images are missing: the annotation files name {_first(missing)}, and --source does "
            "not hold them; add these images, or pass --allow_partial."
        )
    return [stem for stem in wanted if stem in images]


def _first(names: Sequence[str]) -> str:
    """Returns the first three names and the number of the others as text."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
