"""Builder of LFW, funneled: 13,233 faces with 73 real-valued attributes, split by person."""

import pathlib
from typing import ClassVar

from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.base import ImageBuilder
from dbae_jax.data.builders.listing import Listing, Options, Split, require_present, stems
from dbae_jax.data.files.stores import open_store
from dbae_jax.errors import DataError

ATTRIBUTES = "lfw_attributes.txt"
PEOPLE = {"train": "peopleDevTrain.txt", "test": "peopleDevTest.txt"}
ARCHIVE = "lfw-funneled.tgz"


class Lfw(ImageBuilder, skip_registration=True):
    """LFW in the splits of its people files; images without attributes are left out.

    Attributes are float32: signed margins of the classifiers of Kumar et al.
    """

    name = "lfw"
    EXPECTED: ClassVar = {"train": 9_525, "test": 3_708}  # includes images that are left out
    HOMEPAGE = "http://vis-www.cs.umass.edu/lfw/"
    DESCRIPTION = "Labeled Faces in the Wild, funneled, with the attributes of Kumar et al."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(source, folders=("lfw_funneled",), archives=(ARCHIVE,))
        if options.check:
            annotations.check_archive(source / ARCHIVE if source.is_dir() else source)
        text = annotations.read_text(ATTRIBUTES, source, options)
        table = annotations.lfw_attributes(text, ATTRIBUTES)
        images = stems(store.names)
        splits, left_out = {}, []
        for split, file in PEOPLE.items():
            people = annotations.lfw_people(annotations.read_text(file, source, options), file)
            present = require_present(people, images, options)
            keys = [key for key in present if key in table.rows]
            left_out += [key for key in present if key not in table.rows]
            splits[split] = Split([images[key] for key in keys], keys, table.select(keys))
        both = set(splits["train"].ids) & set(splits["test"].ids)
        if both:
            raise DataError(
                f"{min(both)} is listed in both {PEOPLE['train']} and {PEOPLE['test']}; use the "
                "published files."
            )
        return Listing(store, splits, attribute_names=table.names, left_out=tuple(left_out))
