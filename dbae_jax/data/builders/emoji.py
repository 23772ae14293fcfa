"""Builder of the emoji of Google's Noto font: 3,786 colour images of 64x64, in ten categories.

The npm package emoji-datasource-google holds the images (Apache License 2.0) and a table of them,
emoji.json (MIT License).
"""

import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.base import ImageBuilder
from dbae_jax.data.builders.listing import Listing, Options, Split, require_present, stems
from dbae_jax.data.files.stores import open_store
from dbae_jax.errors import DataError

TABLE = "emoji.json"
FOLDER = "img/google/64"  # folder of the images in the package
ARCHIVE = "emoji-datasource-google-16.0.0.tgz"
# Code points of the skin tones, Fitzpatrick types 1-2 to 6 -> attribute.
TONES = {
    "1F3FB": "light_skin",
    "1F3FC": "medium_light_skin",
    "1F3FD": "medium_skin",
    "1F3FE": "medium_dark_skin",
    "1F3FF": "dark_skin",
}
PEOPLE = {"1F468", "1F469", "1F9D1"}  # man, woman, person
# Further code points of variations: male, female, facing right, joiner, variant in colour.
VARIATIONS = {"2642", "2640", "27A1", "200D", "FE0F"}
MIN_SUBCATEGORY = 60  # images of a subcategory that is an attribute
SHARES = {"train": 0.85, "validation": 0.05, "test": 0.1}  # of the images


class Image(NamedTuple):
    """An image that the table names: an emoji, or one of its skin tones."""

    category: str
    subcategory: str
    code_points: tuple[str, ...]  # in upper case

    @property
    def tones(self) -> set[str]:
        """Attributes of the skin tones; two people may have two of them."""
        return {TONES[point] for point in self.code_points if point in TONES}

    @property
    def emoji(self) -> str:
        """The code points that all skin tones and genders of an emoji share.

        Families and couples differ by their people, so each of them is an emoji of its own.
        """
        alone = sum(point in PEOPLE for point in self.code_points) == 1
        varied = VARIATIONS | TONES.keys() | (PEOPLE if alone else set())
        return "-".join(point for point in self.code_points if point not in varied)


class Emoji(ImageBuilder, skip_registration=True):
    """Emoji with transparent backgrounds; labels are categories.

    Attributes are 0 or 1: the skin tones, and the subcategories of `MIN_SUBCATEGORY` images or
    more. All skin tones and genders of an emoji are in one split.
    """

    name = "emoji"
    EXPECTED: ClassVar = {"train": 3_228, "validation": 169, "test": 389}
    HOMEPAGE = "https://github.com/iamcal/emoji-data"
    DESCRIPTION = "Emoji of Google's Noto font as images of 64x64 pixels, in ten categories."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(source, folders=(FOLDER,), archives=(ARCHIVE,))
        images = read_table(annotations.read_text(TABLE, source, options, store))
        inside = f"{FOLDER}/" if any(FOLDER in name for name in store.names) else ""
        paths = stems([name for name in store.names if inside in name])
        present = require_present(sorted(images), paths, options)
        large = large_subcategories(images)
        categories = tuple(sorted({image.category for image in images.values()}))
        splits, assigned = {}, assign(images)
        for split in SHARES:
            keys = [key for key in present if assigned[key] == split]
            chosen = [images[key] for key in keys]
            if keys or not options.allow_partial:
                splits[split] = Split(
                    [paths[key] for key in keys],
                    keys,
                    np.array(
                        [
                            [tone in image.tones for tone in TONES.values()]
                            + [image.subcategory == name for name in large]
                            for image in chosen
                        ],
                        np.int8,
                    ),
                    np.array([categories.index(image.category) for image in chosen]),
                )
        names = (*TONES.values(), *(name.replace("-", "_") for name in large))
        return Listing(store, splits, attribute_names=names, class_names=categories)


def read_table(text: str) -> dict[str, Image]:
    """Returns the images that emoji.json names, by the stem of their file.

    Raises:
      DataError: if the text is not a table of this form.
    """
    try:
        rows = json.loads(text)
        return {
            variant["image"].removesuffix(".png"): Image(
                row["category"], row["subcategory"], tuple(variant["unified"].split("-"))
            )
            for row in rows
            for variant in (row, *row.get("skin_variations", {}).values())
            if variant["has_img_google"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{TABLE} is not the table of emoji-datasource-google ({type(error).__name__}: "
            f"{error}); use the file of the package."
        ) from error


def large_subcategories(images: Mapping[str, Image]) -> list[str]:
    """Returns the subcategories of `MIN_SUBCATEGORY` images or more, in alphabetical order."""
    counts = Counter(image.subcategory for image in images.values())
    return sorted(name for name, count in counts.items() if count >= MIN_SUBCATEGORY)


def assign(images: Mapping[str, Image]) -> dict[str, str]:
    """Returns the split of each image: all skin tones and genders of an emoji are in one.

    Within each subcategory, the emoji with the most images are assigned first, each to the split
    that lacks the most images. Emoji with as many images follow the order of a hash.
    """
    emoji: dict[tuple[str, str], list[str]] = {}
    for key, image in images.items():
        emoji.setdefault((image.subcategory, image.emoji), []).append(key)
    totals = Counter(image.subcategory for image in images.values())
    lacking = {
        subcategory: {split: share * total for split, share in SHARES.items()}
        for subcategory, total in totals.items()
    }

    def order(item: tuple[tuple[str, str], list[str]]) -> tuple[int, str]:
        return -len(item[1]), hashlib.sha256(item[0][1].encode()).hexdigest()

    assigned: dict[str, str] = {}
    for (subcategory, _), keys in sorted(emoji.items(), key=order):
        left = lacking[subcategory]
        split = max(left, key=lambda name: left[name])
        left[split] -= len(keys)
        assigned |= dict.fromkeys(keys, split)
    return assigned
