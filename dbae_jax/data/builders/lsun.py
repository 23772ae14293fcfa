"""Builders of LSUN bedroom and horse, from the published LMDB files or from those of DiffAE."""

import pathlib
from collections import Counter
from typing import ClassVar

from dbae_jax.data import lmdb_files
from dbae_jax.data.builders.base import ImageBuilder, Storage
from dbae_jax.data.builders.listing import Listing, Options, Split
from dbae_jax.data.files.stores import Store, open_store
from dbae_jax.errors import DataError


class _StoreOfSplits:
    """One store of the images of several stores; names are "split/name"."""

    def __init__(self, stores: dict[str, Store]):
        """Takes the store of each split."""
        self._stores = stores
        self.names = [f"{split}/{name}" for split, s in stores.items() for name in s.names]
        self.aside = Counter[str]()

    def read(self, name: str) -> bytes:
        split, _, rest = name.partition("/")
        return self._stores[split].read(rest)

    def size(self, name: str) -> int | None:
        split, _, rest = name.partition("/")
        return self._stores[split].size(rest)


class _Lsun(ImageBuilder, skip_registration=True):
    """A category of LSUN in the order of its LMDB's cursor, without labels.

    Images are stored as DiffAE stores them: short side 256 (LANCZOS), central square, WebP of
    quality 90. The published images would need no more space, but have many sizes.
    """

    name = "lsun"
    STORAGE = Storage(256, "webp")
    HOMEPAGE = "https://github.com/fyu/lsun"
    DESCRIPTION = "A category of LSUN."
    FOLDERS: ClassVar[dict[str, tuple[str, ...]]] = {}  # split -> possible names of its LMDB

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        if not source.exists():
            raise DataError(
                f"--source={source} does not exist; name the LMDB folder of the images."
            )
        found = {"train": source} if lmdb_files.is_lmdb(source) else cls._find(source)
        stores = {split: open_store(path, lmdb_name=str) for split, path in found.items()}
        splits = {
            split: Split([f"{split}/{name}" for name in store.names], list(store.names))
            for split, store in stores.items()
        }
        return Listing(_StoreOfSplits(stores), splits)

    @classmethod
    def _find(cls, source: pathlib.Path) -> dict[str, pathlib.Path]:
        found = {}
        for split, names in cls.FOLDERS.items():
            paths = [source / name for name in names if lmdb_files.is_lmdb(source / name)]
            if paths:
                found[split] = paths[0]
        if "train" not in found:
            raise DataError(
                f"--source={source} is not an LMDB file and holds no {cls.FOLDERS['train'][0]}; "
                "unzip the published file and name its folder."
            )
        return found


class Bedroom(_Lsun, skip_registration=True):
    """LSUN bedroom: "train", and "validation" if its LMDB lies next to the LMDB of "train"."""

    name = "bedroom"
    EXPECTED: ClassVar = {"train": 3_033_042}
    DESCRIPTION = "LSUN bedroom: 3,033,042 photographs, and 300 for validation."
    FOLDERS: ClassVar = {
        "train": ("bedroom_train_lmdb", "bedroom_train"),
        "validation": ("bedroom_val_lmdb", "bedroom_val"),
    }


class Horse(_Lsun, skip_registration=True):
    """LSUN horse: one split "train"."""

    name = "horse"
    EXPECTED: ClassVar = {"train": 2_000_340}
    DESCRIPTION = "LSUN horse: 2,000,340 photographs."
    FOLDERS: ClassVar = {"train": ("horse", "horse_lmdb")}
