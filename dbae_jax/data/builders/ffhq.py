"""FFHQ: 70,000 faces, from the published folders or zip, or from a DiffAE LMDB."""

import bisect
import itertools
import pathlib
from typing import ClassVar

from dbae_jax.data.builders.base import ImageBuilder, Storage
from dbae_jax.data.builders.listing import Listing, Options, Split, stems
from dbae_jax.data.builders.stores import open_store
from dbae_jax.errors import DataError

TEST_IMAGES = 10_000  # the first by number: DiffAE, dataset.py, FFHQlmdb


class Ffhq(ImageBuilder, skip_registration=True):
    """FFHQ in the order of its numbers, as one split, "train", with two parts named.

    "test" is those numbered below 10,000 and "train60k" the others; both lie in "train", which is
    what DiffAE and DBAE train on.
    """

    name = "ffhq"
    EXPECTED: ClassVar = {"train": 70_000}
    STORAGE = Storage(256)
    HOMEPAGE = "https://github.com/NVlabs/ffhq-dataset"
    DESCRIPTION = "Flickr-Faces-HQ: 70,000 aligned faces of 1024x1024 pixels."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        store = open_store(source, lmdb_name=lambda index: f"{index:05d}.png")
        have = stems(store.names)
        odd = [name for stem, name in have.items() if not stem.isdigit()]
        if odd:
            raise DataError(f"{odd[0]} is not named by a number, as the images of FFHQ are.")
        ids = sorted(have, key=int)
        numbers = [int(stem) for stem in ids]
        twice = [b for a, b in itertools.pairwise(ids) if int(a) == int(b)]
        if twice:
            raise DataError(f"two images have the number {int(twice[0])}.")
        first = bisect.bisect_left(numbers, TEST_IMAGES)
        parts = {"test": ("train", 0, first), "train60k": ("train", first, len(ids))}
        split = Split([have[stem] for stem in ids], [f"{number:05d}" for number in numbers])
        named = {name: part for name, part in parts.items() if part[1] < part[2]}
        return Listing(store, {"train": split}, named_splits=named)
