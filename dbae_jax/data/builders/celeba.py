"""Builder of CelebA, aligned and cropped: 202,599 faces, 40 attributes, official splits."""

import pathlib
from typing import ClassVar

from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.base import ImageBuilder
from dbae_jax.data.builders.listing import (
    Listing,
    Options,
    Split,
    require_known,
    require_present,
    stems,
)
from dbae_jax.data.files.stores import open_store

# As published, and as Kaggle hands them out.
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
ARCHIVE = "img_align_celeba.zip"


class Celeba(ImageBuilder, skip_registration=True):
    """CelebA at 178x218 pixels as published, in the order of file names; attributes are 0 or 1."""

    name = "celeba"
    EXPECTED: ClassVar = {"train": 162_770, "validation": 19_867, "test": 19_962}
    HOMEPAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    DESCRIPTION = "CelebFaces Attributes: 202,599 aligned faces of 178x218 pixels."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(
            source,
            folders=("img_align_celeba", "img_align_celeba_png"),
            archives=(ARCHIVE,),
            lmdb_name=lambda index: f"{index + 1:06d}.jpg",
        )
        if options.check:
            annotations.check_archive(getattr(store, "path", source))
        file, data = annotations.read_file(ATTRIBUTES, source, options, store)
        table = annotations.celeba_attributes(data, file)
        images = stems(store.names)
        require_known(images, table.rows, file)
        file, data = annotations.read_file(PARTITION, source, options, store)
        partition = annotations.celeba_partition(data, file)
        require_known(images, partition, file)
        present = require_present(sorted(partition), images, options)
        keys = {split: [k for k in present if partition[k] == split] for split in cls.EXPECTED}
        splits = {
            split: Split([images[key] for key in chosen], chosen, table.select(chosen))
            for split, chosen in keys.items()
            if chosen or not options.allow_partial
        }
        return Listing(store, splits, attribute_names=table.names)
