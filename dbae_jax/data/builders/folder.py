"""Any folder of images, with labels from its sub-folders and attributes from a CSV."""

import collections
import csv
import hashlib
import pathlib

import numpy as np

from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.annotations import Attributes
from dbae_jax.data.builders.base import ImageBuilder
from dbae_jax.data.builders.listing import Listing, Options, Split
from dbae_jax.data.builders.stores import Store, TarStore, ZipStore, open_store
from dbae_jax.errors import DataError

TABLE = "attributes.csv"
SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}
TEST_SHARE = 10  # one in ten


class Folder(ImageBuilder, skip_registration=True):
    """Images in the order of their names.

    With sub-folders train/ and test/ (and val/ or validation/) these are the splits. Otherwise an
    image is "test" if the first 8 bytes of sha256(its name within the folder), as a big-endian
    number, are divisible by 10: one in ten, whatever else lies in the folder.

    Where every image lies in a sub-folder (of its split), the first sub-folder is its label.

    Names in an archive whose images all lie in one folder are those within it, unless it is a
    split's.
    """

    name = "folder"
    DESCRIPTION = "A folder of images."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        store = open_store(source)
        wrapper = _wrapper(store)
        members = _split([name.removeprefix(wrapper) for name in store.names])
        classes = _classes(members)
        table = _table(source, options, store, wrapper)
        splits = {}
        for split, parts in members.items():
            names = [name for name, _ in parts]
            labels = [classes.index(_first_folder(rest)) for _, rest in parts] if classes else None
            splits[split] = Split(
                [wrapper + name for name in names],
                names,
                table.select(names) if table else None,
                np.array(labels) if classes else None,
            )
        return Listing(store, splits, table.names if table else (), tuple(classes))


def in_test(name: str) -> bool:
    """Returns whether an image of a folder without splits is held out."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % TEST_SHARE == 0


def _wrapper(store: Store) -> str:
    """Returns the one folder that all images of an archive lie in, such as "flowers/", or ""."""
    tops = {name.partition("/")[0] for name in store.names}
    lies_below = all("/" in name for name in store.names)
    if not isinstance(store, ZipStore | TarStore) or len(tops) > 1 or not lies_below:
        return ""
    (top,) = tops
    return "" if top in SPLIT_FOLDERS else f"{top}/"


def _split(names: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Returns split -> (name, name below the split's folder)."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    by_folder = {"train", "test"} <= tops
    if not by_folder and tops & {"train", "test"}:
        raise DataError("there is a folder train or test and not the other; make both, or neither.")
    splits = collections.defaultdict(list)
    for name in names:
        top, _, rest = name.partition("/")
        if by_folder and top not in SPLIT_FOLDERS:
            raise DataError(f"{name} lies beside the folders train and test; move it into one.")
        if by_folder:
            splits[SPLIT_FOLDERS[top]].append((name, rest))
        else:
            splits["test" if in_test(name) else "train"].append((name, name))
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _classes(members: dict[str, list[tuple[str, str]]]) -> list[str]:
    folders = {_first_folder(rest) for parts in members.values() for _, rest in parts}
    return [] if "" in folders else sorted(folders)


def _first_folder(name: str) -> str:
    top, slash, _ = name.partition("/")
    return top if slash else ""


def _table(source: pathlib.Path, options: Options, store: Store, wrapper: str) -> Attributes | None:
    file, data = _table_file(source, options, store, wrapper)
    if data is None:
        return None
    try:
        table = annotations.csv_attributes(data.decode("utf-8-sig"), file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a CSV in UTF-8: {error}.") from error
    names = [name.removeprefix(wrapper) for name in store.names]
    short = collections.Counter(pathlib.PurePosixPath(name).name for name in names)
    rows = {}
    for name in names:
        bare = pathlib.PurePosixPath(name).name
        full = next((key for key in (name, wrapper + name) if key in table.rows), None)
        if full is None and (bare not in table.rows or short[bare] > 1):
            raise DataError(f"{file} has no row for {name}.")
        rows[name] = table.rows[full or bare]
    return Attributes(table.names, rows, table.values)


def _table_file(
    source: pathlib.Path, options: Options, store: Store, wrapper: str
) -> tuple[str, bytes | None]:
    """Returns name and bytes of the CSV that is named, or lies beside the images."""
    if options.table:
        if not options.table.is_file():
            raise DataError(f"--attributes={options.table} does not exist.")
        return options.table.name, options.table.read_bytes()
    if isinstance(store, ZipStore | TarStore):
        found = (store.extra(folder + TABLE) for folder in dict.fromkeys((wrapper, "")))
        return TABLE, next((data for data in found if data is not None), None)
    path = source / TABLE
    return TABLE, path.read_bytes() if path.is_file() else None
