"""Stores: image files that are read by name from a folder, a zip, a tar or an LMDB file."""

import io
import lzma
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from dbae_jax.data import lmdb_files
from dbae_jax.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
TABLE_SUFFIXES = (".csv", ".json")  # files that a tar holds beside its images
TAR_SUFFIXES = (".tgz", ".tar.gz", ".tar")

_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


class Store(Protocol):
    """Image files that are read by name, also from several threads.

    Attributes:
      names: relative paths with "/" of the images; for an LMDB, names that stand for its keys.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes; None if only reading it would tell."""


class FolderStore:
    """Images in a folder and its sub-folders, without hidden files."""

    def __init__(self, root: pathlib.Path):
        """Lists the images.

        Raises:
          DataError: if the name of an image is not UTF-8.
        """
        self.root = root
        self.names = _sorted_names(_image_paths(root), root)

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        return (self.root / name).read_bytes()

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes; None for a link to a missing file."""
        try:
            return (self.root / name).stat().st_size
        except OSError:  # Reading the file will report the error.
            return None


class ZipStore:
    """Images in a zip file, which is not unpacked."""

    def __init__(self, path: pathlib.Path):
        """Opens a zip file and lists its images.

        Raises:
          DataError: if the file is not a zip file or is cut off.
        """
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as a zip file: {_one_line(error)}; download it again."
            ) from error
        self.path = path
        listed = dict.fromkeys(self._file.namelist())  # A zip may repeat a name; the last counts.
        self.names = _sorted_names(filter(_is_image, listed), path)

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file in the zip.

        Raises:
          DataError: if the file is encrypted, damaged, or compressed by an unsupported method.
        """
        try:
            return self._file.read(name)
        except (RuntimeError, OSError, *_ARCHIVE_ERRORS) as error:
            raise DataError(
                f"{name} in {self.path} cannot be read: {_one_line(error)}; download the zip file "
                "again, or unpack it and name its folder with --source."
            ) from error

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes when it is unpacked."""
        return self._file.getinfo(name).file_size

    def find(self, name: str) -> bytes | None:
        """Returns the first file of this name in any folder of the zip; None if there is none."""
        found = [n for n in self._file.namelist() if pathlib.PurePosixPath(n).name == name]
        return self.read(found[0]) if found else None

    def extra(self, path: str) -> bytes | None:
        """Returns the file at this path in the zip; None if there is none."""
        return self.read(path) if path in self._file.namelist() else None


class TarStore:
    """Images of a small tar file, held in memory because compressed tars have no random access."""

    def __init__(self, path: pathlib.Path):
        """Reads the images and tables of a tar file.

        Raises:
          DataError: if the file is not a tar file or is cut off.
        """
        self._data = {}
        try:
            with tarfile.open(path) as file:
                for member in file:
                    name = member.name.removeprefix("./")
                    if member.isfile() and (_is_image(name) or name.endswith(TABLE_SUFFIXES)):
                        with file.extractfile(member) or io.BytesIO() as content:
                            self._data[name] = content.read()
        except (tarfile.TarError, OSError, *_ARCHIVE_ERRORS) as error:
            raise DataError(
                f"{path} cannot be read as a tar file: {_one_line(error)}; download it again."
            ) from error
        self.names = _sorted_names(filter(_is_image, self._data), path)

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        return self._data[name]

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes."""
        return len(self._data[name])

    def extra(self, path: str) -> bytes | None:
        """Returns the table at this path in the tar; None if there is none."""
        return self._data.get(path)

    def find(self, name: str) -> bytes | None:
        """Returns the first table of this name in any folder of the tar; None if there is none."""
        return next((d for n, d in self._data.items() if n.rpartition("/")[2] == name), None)


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
        raise DataError(f"--source={source} does not exist; name the folder or file of the images.")
    store: Store
    if lmdb_files.is_lmdb(source):
        store = _open_lmdb(source, lmdb_name)
    else:
        path = source if source.is_file() else _images_inside(source, folders, archives)
        store = FolderStore(path) if path.is_dir() else _open_archive(path)
    if not store.names:
        raise DataError(
            f"--source={source} holds no images: no file name ends in one of "
            f"{', '.join(IMAGE_SUFFIXES)}; name the folder or file of the images."
        )
    return store


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


def _open_archive(path: pathlib.Path) -> Store:
    if path.suffix == ".zip":
        return ZipStore(path)
    if path.name.endswith(TAR_SUFFIXES):
        return TarStore(path)
    raise DataError(
        f"--source={path} has an unknown type; it must be a folder, a .zip, a .tgz or an LMDB."
    )


def _images_inside(
    source: pathlib.Path, folders: Sequence[str], archives: Sequence[str]
) -> pathlib.Path:
    levels = [source, *sorted(p for p in source.iterdir() if p.is_dir())]
    for names, exists in ((folders, pathlib.Path.is_dir), (archives, pathlib.Path.is_file)):
        for path in (level / name for name in names for level in levels):
            if exists(path):
                return path
    return source


def _image_paths(root: pathlib.Path) -> list[str]:
    """Returns the images below a folder; a folder that links also lead to is listed once."""
    names, visited = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Links come last, so that a folder is listed under its own name.
        subfolders[:] = sorted(
            (name for name in subfolders if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(folder, name)), name),
        )
        here = pathlib.Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files if _is_image(name)]
    return names


def _sorted_names(names: Iterable[str], where: pathlib.Path) -> list[str]:
    """Returns the names in order; raises DataError for a name that is not UTF-8."""
    found = sorted(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise DataError(
                f"{where} holds an image whose name is not UTF-8, {shown}; rename it."
            ) from error
    return found


def _is_image(name: str) -> bool:
    path = pathlib.PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
