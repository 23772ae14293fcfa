"""Stores: image files that are read by name from a folder, a zip, a tar or an LMDB file."""

import os
import pathlib
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from dbae_jax.configuration import paths
from dbae_jax.data import lmdb_files
from dbae_jax.data.files import archives as archive_files
from dbae_jax.data.files import file_names
from dbae_jax.errors import DataError


class Store(Protocol):
    """Image files that are read by name, also from several threads.

    Attributes:
      names: relative paths with "/" of the images; for an LMDB, names that stand for its keys.
      aside: number of files that are left aside, by suffix.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def aside(self) -> Counter[str]: ...

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes; None if only reading it would tell."""


class FolderStore:
    """Images in a folder and its sub-folders, without hidden files."""

    def __init__(self, root: pathlib.Path):
        """Lists the images.

        Raises:
          DataError: if the name of an image is not UTF-8, or a folder cannot be read.
        """
        self.root = root
        names = _file_paths(root)
        self.names = file_names.in_order(filter(file_names.is_image, names), root)
        self.aside = file_names.left_aside(names)

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        path = self.root / name
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise DataError(f"{path} is not a regular file; remove it.")
        return path.read_bytes()

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes; None for a link to a missing file."""
        try:
            return (self.root / name).stat().st_size
        except OSError:  # Reading the file will report the error.
            return None


class LmdbStore:
    """Images of a DiffAE LMDB, whose numbers are translated into the data set's file names."""

    def __init__(self, images: lmdb_files.NumberedImages, name: Callable[[int], str]):
        """Names the images.

        Args:
          images: images by number.
          name: function that returns the file name of a number.
        """
        self._images = images
        self.names = [name(index) for index in range(len(images))]
        self._index = {name: index for index, name in enumerate(self.names)}
        self.aside = Counter[str]()

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        return self._images.read(self._index[name])

    def size(self, name: str) -> int | None:
        """Returns None: the LMDB library reads the image to find its size."""
        return None


class HashStore:
    """Images of an LSUN LMDB, named by their keys, in the order of the file's cursor."""

    def __init__(self, images: lmdb_files.HashedImages):
        """Lists the keys."""
        self._images = images
        self.names = images.keys()
        self.aside = Counter[str]()

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        return self._images.read(name)

    def size(self, name: str) -> int | None:
        """Returns None: the LMDB library reads the image to find its size."""
        return None


def open_store(
    source: pathlib.Path,
    *,
    folders: Sequence[str] = (),
    archives: Sequence[str] = (),
    lmdb_name: Callable[[int], str] | None = None,
) -> Store:
    """Opens the store at a path: an LMDB, a zip, a tar, or a folder.

    Args:
      source: file or folder. In a folder, the store is the first of `folders` found in it or one
        level below, else the first of `archives` found there, else the folder itself.
      folders: possible names of the folder that holds the images.
      archives: possible names of the archive that holds the images.
      lmdb_name: function from the index of an image in a DiffAE LMDB to its file name in the data
        set; None: DiffAE LMDBs are refused.

    Raises:
      DataError: if the path does not exist, cannot be read, or holds no images.
    """
    if not source.exists():
        raise DataError(
            f"--source={source} does not exist; {paths.nearest(source)}name the folder or file of "
            "the images."
        )
    store: Store
    if lmdb_files.is_lmdb(source):
        store = _open_lmdb(source, lmdb_name)
    else:
        path = source if source.is_file() else _images_inside(source, folders, archives)
        store = FolderStore(path) if path.is_dir() else archive_files.open_archive(path)
    if not store.names:
        _refuse_empty(source, store)
    return store


def _refuse_empty(source: pathlib.Path, store: Store) -> NoReturn:
    """Raises a DataError that says what a source without images holds instead."""
    held = f"no images but {file_names.counted(store.aside)}" if store.aside else "no files"
    hint = ""
    if source.is_dir():
        inside = [p for p in sorted(source.rglob("*")) if _is_source(p)]
        hint = f"did you mean --source={inside[0]}? " if inside else ""
    raise DataError(
        f"--source={source} holds {held}; {hint}name the folder or file of the "
        f"images, whose names end in one of {', '.join(file_names.IMAGE_SUFFIXES)}."
    )


def _is_source(path: pathlib.Path) -> bool:
    """Returns whether a path in a folder could be a source by itself."""
    is_archive = path.name.lower().endswith((".zip", *archive_files.TAR_SUFFIXES))
    return (is_archive and path.is_file()) or lmdb_files.is_lmdb(path)


def _open_lmdb(source: pathlib.Path, name: Callable[[int], str] | None) -> Store:
    images = lmdb_files.open_images(source)
    if isinstance(images, lmdb_files.HashedImages):
        return HashStore(images)
    if name is None:
        raise DataError(
            f"--source={source} is a DiffAE LMDB; this data set is not read from one; name the "
            "published files."
        )
    return LmdbStore(images, name)


def _images_inside(
    source: pathlib.Path, folders: Sequence[str], archives: Sequence[str]
) -> pathlib.Path:
    levels = [source, *sorted(p for p in source.iterdir() if p.is_dir())]
    for names, exists in ((folders, pathlib.Path.is_dir), (archives, pathlib.Path.is_file)):
        for path in (level / name for name in names for level in levels):
            if exists(path):
                return path
    return source


def _file_paths(root: pathlib.Path) -> list[str]:
    """Returns the files below a folder; a folder that links also lead to is listed once.

    Raises:
      DataError: if a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(
            f"the folder {error.filename} cannot be read: {error.strerror}; check its permissions, "
            "or move it out of --source."
        ) from error

    names, visited = [], set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Links come last, so that a folder is listed under its own name.
        subfolders[:] = sorted(
            (name for name in subfolders if not file_names.is_hidden(name)),
            key=lambda name: (os.path.islink(os.path.join(folder, name)), name),
        )
        here = pathlib.Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files]
    return names
