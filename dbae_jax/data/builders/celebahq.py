"""Builder of CelebA-HQ from the files of CelebAMask-HQ: 30,000 faces with 40 attributes."""

import pathlib
from typing import ClassVar

from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.base import ImageBuilder, Storage
from dbae_jax.data.builders.listing import (
    Listing,
    Options,
    Split,
    require_known,
    require_present,
    stems,
)
from dbae_jax.data.files.stores import open_store
from dbae_jax.errors import DataError

ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
IMAGES = "CelebA-HQ-img"


class Celebahq(ImageBuilder, skip_registration=True):
    """CelebA-HQ in the order of its numbers, as one split "train".

    Attributes are joined to images by file name.
    """

    name = "celebahq"
    EXPECTED: ClassVar = {"train": 30_000}
    STORAGE = Storage(256)
    HOMEPAGE = "https://github.com/switchablenorms/CelebAMask-HQ"
    DESCRIPTION = "CelebA-HQ, from CelebAMask-HQ: 30,000 faces of 1024x1024 pixels."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(
            source,
            folders=(IMAGES,),
            archives=("CelebAMask-HQ.zip",),
            lmdb_name=lambda index: f"{index}.jpg",
        )
        _, data = annotations.read_file([ATTRIBUTES], source, options, store)
        table = annotations.celeba_attributes(data, ATTRIBUTES)
        # The zip also holds segmentation masks.
        faces = [name for name in store.names if IMAGES in pathlib.PurePosixPath(name).parts]
        images = stems(faces or store.names)
        require_known(images, table.rows, ATTRIBUTES)
        unnumbered = [key for key in table.rows if not key.isdigit()]
        if unnumbered:
            raise DataError(
                f"{ATTRIBUTES}: rows must begin like '0.jpg', got {unnumbered[0]!r}; use the "
                "published file."
            )
        keys = require_present(sorted(table.rows, key=int), images, options)
        split = Split([images[key] for key in keys], keys, table.select(keys))
        return Listing(store, {"train": split}, attribute_names=table.names)
