"""What a data set consists of, before anything is written: images by split, with what is known."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dbae_jax.data.builders.stores import Store
from dbae_jax.errors import DataError

SAMPLED = 8  # images whose bytes tell a source from another where sizes are not known


@dataclasses.dataclass(frozen=True)
class Options:
    """How a source is read.

    Attributes:
      annotations: folder of the attribute and split files; None: beside the images.
      table: CSV of attributes, for a folder of images; None: its attributes.csv, if there is one.
      check: compares files with their published checksums, where these are known.
      allow_partial: images that the annotation files name may be missing.
    """

    annotations: pathlib.Path | None = None
    table: pathlib.Path | None = None
    check: bool = True
    allow_partial: bool = False


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of a split in their order, and one entry each of what is known of them.

    Attributes:
      names: in the store.
      ids: what an example is called: the stem of its file, an LMDB's number or key.
      attributes: [N, K], int8 or float32.
      labels: int [N].
    """

    names: Sequence[str]
    ids: Sequence[str]
    attributes: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """A data set: where its images lie and how they are split.

    Attributes:
      store: of the images.
      splits: by name.
      attribute_names: of the K columns of attributes.
      class_names: of the labels.
      named_splits: further names for parts: name -> (split, start, stop).
      left_out: images of the source that no split holds, such as those without attributes.
    """

    store: Store
    splits: Mapping[str, Split]
    attribute_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    named_splits: Mapping[str, tuple[str, int, int]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def count(self) -> int:
        """Returns the number of images over all splits."""
        return sum(len(split.names) for split in self.splits.values())

    def fingerprint(self) -> str:
        """Returns a hash of everything, the images' bytes as far as `contents` knows them."""
        digest = hashlib.sha256(self.outline().encode())
        for name, split in self.splits.items():
            digest.update(self.contents(name, 0, len(split.names)).encode())
        return digest.hexdigest()

    def contents(self, split: str, start: int, stop: int) -> str:
        """Returns a hash of the sizes of some images, and of the bytes of a few whose size is dear.

        Another source is told from this one by it even where all names are the same.
        """
        names = self.splits[split].names[start:stop]
        sizes = [self.store.size(name) for name in names]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        dear = [name for name, size in zip(names, sizes, strict=True) if size is None]
        for index in np.unique(np.linspace(0, len(dear) - 1, SAMPLED).astype(int)) if dear else ():
            try:
                digest.update(hashlib.sha256(self.store.read(dear[index])).digest())
            except (DataError, OSError):
                digest.update(b"broken")  # told when all are read
        return digest.hexdigest()

    def outline(self) -> str:
        """Returns a hash of everything but the images' bytes."""
        digest = hashlib.sha256(json.dumps([self.attribute_names, self.class_names]).encode())
        for name, split in self.splits.items():
            digest.update(json.dumps([name, *split.ids, *split.names]).encode())
            for column in (split.attributes, split.labels):
                digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def stems(names: Sequence[str]) -> dict[str, str]:
    """Returns stem -> name: {"000001": "img_align_celeba/000001.jpg"}.

    Raises:
      DataError: if two images have the same stem.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(pathlib.PurePosixPath(name).stem, name)
        if other != name:
            raise DataError(f"{other} and {name} have the same name; name the folder of one set.")
    return found


def require_known(have: Mapping[str, str], rows: Mapping[str, object], file: str) -> None:
    """Checks that every image has its row in an annotation file.

    Raises:
      DataError: naming the first images that have none.
    """
    unknown = [name for key, name in have.items() if key not in rows]
    if unknown:
        raise DataError(f"{file} has no row for {_first(unknown)}.")


def require_present(wanted: Sequence[str], have: Mapping[str, str], options: Options) -> list[str]:
    """Returns those of the wanted keys that there are images for.

    Raises:
      DataError: naming the first that are missing, unless a part is allowed.
    """
    missing = [key for key in wanted if key not in have]
    if missing and not options.allow_partial:
        raise DataError(
            f"images are missing: {_first(missing)}; complete the source, or pass --allow_partial."
        )
    return [key for key in wanted if key in have]


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
