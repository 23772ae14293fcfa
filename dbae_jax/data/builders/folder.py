"""Builder of any folder of images, with labels from sub-folders and attributes from a CSV."""

import collections
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.data.builders.base import ImageBuilder
from dbae_jax.data.builders.listing import Listing, Options, Split
from dbae_jax.data.files import tables
from dbae_jax.data.files.archives import TarStore, ZipStore
from dbae_jax.data.files.file_names import composed
from dbae_jax.data.files.stores import Store, open_store
from dbae_jax.data.files.tables import Attributes
from dbae_jax.errors import DataError

TABLE = "attributes.csv"
# Folders of splits, in lower case.
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
TEST_EVERY = 10  # one image in ten is a test image

# For every split, (name, name below the folder of the split) of its images.
Members = dict[str, list[tuple[str, str]]]


class Folder(ImageBuilder, skip_registration=True):
    """Images of a folder or archive in the order of their names.

    Splits: the sub-folders train/, test/ and val/, under any of the names in `SPLIT_FOLDERS`, in
    upper or lower case. Without them, one image in ten belongs to "test": the first 8 bytes of
    sha256(path of the image in the folder), as a big-endian number, are divisible by 10. The rule
    does not depend on the other images.

    Labels: the first sub-folder (below the folder of the split), if every image lies in one, and
    there are two or more.

    Names: paths in the folder, in composed Unicode. If all images of an archive lie in one wrapping
    folder, and it is not the folder of a split, paths start below this folder.
    """

    name = "folder"
    DESCRIPTION = "A folder of images."

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the images by split; see `ImageBuilder.list_images`."""
        store = open_store(source)
        wrapper = _wrapping_folder(store)
        stored = _by_composed_name(store.names, wrapper)
        members, notes = _split(list(stored))
        classes = _classes(members)
        notes += _about_classes(classes, members)
        classes = classes if len(classes) > 1 else []
        table, about = _table(source, options, store, wrapper, list(stored))
        splits = {}
        for split, parts in members.items():
            names = [name for name, _ in parts]
            labels = [classes.index(_first_folder(rest)) for _, rest in parts] if classes else None
            splits[split] = Split(
                [stored[name] for name in names],
                names,
                table.select(names) if table else None,
                np.array(labels) if classes else None,
            )
        attributes = table.names if table else ()
        if table and not options.table:
            store.aside[".csv"] -= 1  # the table is read, not left aside
        return Listing(store, splits, attributes, tuple(classes), notes=(*notes, *about))


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
    return "" if top.lower() in SPLIT_FOLDERS else f"{top}/"


def _by_composed_name(names: Sequence[str], wrapper: str) -> dict[str, str]:
    """Returns the names as stored, by their path below `wrapper` in composed Unicode."""
    stored: dict[str, str] = {}
    for name in names:
        path = composed(name.removeprefix(wrapper))
        if path in stored:
            raise DataError(
                f"--source has two images of the name {path}, which differ in how their letters "
                "with accents are stored; rename or remove one."
            )
        stored[path] = name
    return stored


def _split(names: list[str]) -> tuple[Members, list[str]]:
    """Returns the images of every split, and a sentence about how they were found."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    found = sorted(top for top in tops if top.lower() in SPLIT_FOLDERS)
    splits = collections.defaultdict(list)
    if not found:
        _refuse_splits_below(names)
        for name in names:
            splits["test" if in_test(name) else "train"].append((name, name))
        how = (
            "--source has no folders for splits (train, test, val), so a hash of its path puts "
            "one image in ten into the split test."
        )
    else:
        for name in names:
            top, _, rest = name.partition("/")
            _check_inside(name, top, rest, found)
            splits[SPLIT_FOLDERS[top.lower()]].append((name, rest))
        _check_splits(found, splits)
        said = ", ".join(f"{top}/ as {SPLIT_FOLDERS[top.lower()]}" for top in found)
        how = f"The folders of --source were taken for splits: {said}."
    ordered = {s: splits[s] for s in ("train", "validation", "test") if s in splits}
    return ordered, [how]


def _check_inside(name: str, top: str, rest: str, found: list[str]) -> None:
    """Checks that an image lies in a folder of a split."""
    if not rest or top not in found:
        raise DataError(
            f"{name} lies outside the folders of splits in --source, {', '.join(found)}; move it "
            f"into one of them. If {found[0]} is no split but a class, put the folders of all "
            "classes into a folder train."
        )


def _check_splits(found: list[str], splits: Members) -> None:
    """Checks that each split has one folder, and that there are training images."""
    by_split = collections.defaultdict(list)
    for top in found:
        by_split[SPLIT_FOLDERS[top.lower()]].append(top)
    for split, folders in by_split.items():
        if len(folders) > 1:
            raise DataError(
                f"--source has the folders {' and '.join(folders)}, which both mean the split "
                f"{split}; merge them, or rename one."
            )
    if "train" not in splits:
        raise DataError(
            f"--source has a folder {found[0]}, and none of training images; add a folder train, "
            f"or rename {found[0]} if it is no split but a class."
        )


def _refuse_splits_below(names: list[str]) -> None:
    """Refuses folders of splits one level below, which would be lost among the classes."""
    for name in names:
        top, _, rest = name.partition("/")
        below, slash, _ = rest.partition("/")
        if slash and below.lower() in SPLIT_FOLDERS:
            split = SPLIT_FOLDERS[below.lower()]
            raise DataError(
                f"--source holds {top}/{below}, which looks like the split {split} below the "
                f"folder {top}; name the folder of the splits (--source=.../{top}), or, if {top} "
                f"is a class, put the split first ({below}/{top}). If {below} is no split, rename "
                "it."
            )


def _classes(members: Members) -> list[str]:
    """Returns the names of the labels; none unless every image lies in a sub-folder."""
    folders = {_first_folder(rest) for parts in members.values() for _, rest in parts}
    return [] if "" in folders else sorted(folders)


def _about_classes(classes: list[str], members: Members) -> list[str]:
    """Returns a sentence about labels, and one about classes that a split lacks."""
    folders = {_first_folder(rest) for parts in members.values() for _, rest in parts} - {""}
    if len(classes) == 1:
        return [
            f"All images lie in one folder, {classes[0]}. One class is no class: there are no "
            "labels, and the probe of labels does not apply."
        ]
    if not classes:
        others = f", though some lie in folders such as {min(folders)}" if folders else ""
        return [f"There are no labels: not every image lies in a sub-folder{others}."]
    notes = [f"The {len(classes):,} sub-folders were taken for classes: {_some(classes)}."]
    for split, parts in members.items():
        lacking = sorted(set(classes) - {_first_folder(rest) for _, rest in parts})
        if lacking:
            notes.append(f"The split {split} has no image of {_some(lacking)}.")
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _first_folder(name: str) -> str:
    top, slash, _ = name.partition("/")
    return top if slash else ""


def _table(
    source: pathlib.Path, options: Options, store: Store, wrapper: str, names: list[str]
) -> tuple[Attributes | None, list[str]]:
    """Returns the attributes of all images by their path, and sentences about the CSV.

    There are none without a CSV.
    """
    file, data = _table_file(source, options, store, wrapper)
    if data is None:
        return None, []
    table, notes = tables.attributes(tables.read(data, file))
    known = {composed(key): row for key, row in table.rows.items()}
    uses = collections.Counter(pathlib.PurePosixPath(name).name for name in names)
    rows, used = {}, set()
    for name in names:
        file_name = pathlib.PurePosixPath(name).name
        key = next((key for key in (name, composed(wrapper) + name) if key in known), None)
        if key is None and (file_name not in known or uses[file_name] > 1):
            raise DataError(
                f"{file} has no row for {name}; {did_you_mean(file_name, list(known)[:10_000])}"
                "add a row, whose first column is the path, or the file name if no other image "
                "has this name."
            )
        rows[name] = known[key or file_name]
        used.add(key or file_name)
    if len(used) < len(known):
        unused = next(key for key in known if key not in used)
        notes.append(f"{file}: {len(known) - len(used):,} rows name no image, such as {unused}.")
    return Attributes(table.names, rows, table.values), notes


def _table_file(
    source: pathlib.Path, options: Options, store: Store, wrapper: str
) -> tuple[str, bytes | None]:
    """Returns name and bytes of the CSV that --attributes names, or that lies with the images."""
    if options.table:
        path: pathlib.Path | None = options.table
        if not options.table.is_file():
            raise DataError(
                f"--attributes={options.table} is not a file; name a CSV file of attributes."
            )
    elif isinstance(store, ZipStore | TarStore):
        found = (store.extra(folder + TABLE) for folder in dict.fromkeys((wrapper, "")))
        return TABLE, next((data for data in found if data is not None), None)
    else:
        there = source.iterdir() if source.is_dir() else ()
        path = next((p for p in there if p.name.lower() == TABLE), None)
    if path is None:
        return TABLE, None
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the file.") from error
