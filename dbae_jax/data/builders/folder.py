"""Builder of any folder of images, with labels from sub-folders and attributes from a CSV."""

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
TEST_EVERY = 10  # one image in ten is a test image


class Folder(ImageBuilder, skip_registration=True):
    """Images of a folder or archive in the order of their names.

    Splits: the sub-folders train/ and test/ (and val/ or validation/), if they exist. Otherwise one
    image in ten belongs to "test": the first 8 bytes of sha256(path of the image in the folder), as
    a big-endian number, are divisible by 10. The rule does not depend on the other images.

    Labels: the first sub-folder (below the folder of the split), if every image lies in one.

    Names: paths in the folder. If all images of an archive lie in one wrapping folder, and it is
    not the folder of a split, paths start below this folder.
    """

    name = "folder"
    DESCRIPTION = "A folder of images."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(source)
        wrapper = _wrapping_folder(store)
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
    """Returns whether an image belongs to "test" where the folder has no sub-folders for splits.

    Args:
      name: path of the image in the folder.
    """
    sha256 = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(sha256[:8], "big") % TEST_EVERY == 0


def _wrapping_folder(store: Store) -> str:
    """Returns the folder that holds all images of an archive, such as "flowers/"; "" if none."""
    tops = {name.partition("/")[0] for name in store.names}
    in_folders = all("/" in name for name in store.names)
    if not isinstance(store, ZipStore | TarStore) or len(tops) > 1 or not in_folders:
        return ""
    (top,) = tops
    return "" if top in SPLIT_FOLDERS else f"{top}/"


def _split(names: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Returns, for every split, (name, name below the folder of the split) of its images."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    by_folder = {"train", "test"} <= tops
    if not by_folder and tops & {"train", "test"}:
        raise DataError(
            "--source has a folder train or test and not the other; create both, or neither."
        )
    splits = collections.defaultdict(list)
    for name in names:
        top, _, rest = name.partition("/")
        if by_folder and top not in SPLIT_FOLDERS:
            raise DataError(
                f"{name} lies outside the folders train and test of --source; move it into one of "
                "them."
            )
        if by_folder:
            splits[SPLIT_FOLDERS[top]].append((name, rest))
        else:
            splits["test" if in_test(name) else "train"].append((name, name))
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _classes(members: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Returns the names of the labels; none unless every image lies in a sub-folder."""
    folders = {_first_folder(rest) for parts in members.values() for _, rest in parts}
    return [] if "" in folders else sorted(folders)


def _first_folder(name: str) -> str:
    top, slash, _ = name.partition("/")
    return top if slash else ""


def _table(source: pathlib.Path, options: Options, store: Store, wrapper: str) -> Attributes | None:
    """Returns the attributes of all images by their path in the folder; None without a CSV."""
    file, data = _table_file(source, options, store, wrapper)
    if data is None:
        return None
    try:
        table = annotations.csv_attributes(data.decode("utf-8-sig"), file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read as a CSV in UTF-8: {error}; save it as a CSV in UTF-8."
        ) from error
    names = [name.removeprefix(wrapper) for name in store.names]
    uses = collections.Counter(pathlib.PurePosixPath(name).name for name in names)
    rows = {}
    for name in names:
        file_name = pathlib.PurePosixPath(name).name
        path = next((key for key in (name, wrapper + name) if key in table.rows), None)
        if path is None and (file_name not in table.rows or uses[file_name] > 1):
            raise DataError(
                f"{file} has no row for {name}; add one, whose first column is the path, or the "
                "file name if no other image has this name."
            )
        rows[name] = table.rows[path or file_name]
    return Attributes(table.names, rows, table.values)


def _table_file(
    source: pathlib.Path, options: Options, store: Store, wrapper: str
) -> tuple[str, bytes | None]:
    """Returns name and bytes of the CSV that --attributes names, or that lies with the images."""
    if options.table:
        if not options.table.is_file():
            raise DataError(
                f"--attributes={options.table} is not a file; name a CSV file of attributes."
            )
        return options.table.name, options.table.read_bytes()
    if isinstance(store, ZipStore | TarStore):
        found = (store.extra(folder + TABLE) for folder in dict.fromkeys((wrapper, "")))
        return TABLE, next((data for data in found if data is not None), None)
    path = source / TABLE
    return TABLE, path.read_bytes() if path.is_file() else None
