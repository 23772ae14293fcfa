"""Builder of FFHQ: 70,000 faces, from the published folders or zip, or from a DiffAE LMDB."""

import bisect
import itertools
import pathlib
from typing import ClassVar

from dbae_jax.data.builders.base import ImageBuilder, Storage
from dbae_jax.data.builders.listing import Listing, Options, Split, stems
from dbae_jax.data.files.stores import open_store
from dbae_jax.errors import DataError

TEST_IMAGES = 10_000  # numbers below are test images. Source: DiffAE, dataset.py, FFHQlmdb


class Ffhq(ImageBuilder, skip_registration=True):
    """FFHQ in the order of its numbers, as one split "train" with two named parts.

    The part "test" holds the images with numbers below 10,000, and "train60k" the others. DiffAE
    and DBAE train on both parts, "train".
    """

    name = "ffhq"
    EXPECTED: ClassVar = {"train": 70_000}
    STORAGE = Storage(256)
    HOMEPAGE = "https://github.com/NVlabs/ffhq-dataset"
    DESCRIPTION = "Flickr-Faces-HQ: 70,000 aligned faces of 1024x1024 pixels."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(source, lmdb_name=lambda index: f"{index:05d}.png")
        images = stems(store.names)
        unnumbered = [name for stem, name in images.items() if not stem.isdigit()]
        if unnumbered:
            raise DataError(
                f"--source holds {unnumbered[0]}, which is not named by a number as the images of "
                "FFHQ are; remove it."
            )
        ids = sorted(images, key=int)
        numbers = [int(stem) for stem in ids]
        pairs = [(a, b) for a, b in itertools.pairwise(ids) if int(a) == int(b)]
        if pairs:
            first, second = pairs[0]
            raise DataError(
                f"--source holds {images[first]} and {images[second]}, which have the same number "
                f"{int(first)}; remove one of them."
            )
        edge = bisect.bisect_left(numbers, TEST_IMAGES)
        parts = {"test": ("train", 0, edge), "train60k": ("train", edge, len(ids))}
        split = Split([images[stem] for stem in ids], [f"{number:05d}" for number in numbers])
        named = {name: part for name, part in parts.items() if part[1] < part[2]}
        return Listing(store, {"train": split}, named_splits=named)
