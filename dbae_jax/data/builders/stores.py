"""Where images come from: a folder, a zip, a tar or an LMDB file, all read by name."""

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
TAR_SUFFIXES = (".tgz", ".tar.gz", ".tar")

_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)  # of what is packed


class Store(Protocol):
    """Image files by name, readable from several threads."""

    names: Sequence[str]  # relative paths with "/", or the names that an LMDB's keys stand for

    def read(self, name: str) -> bytes: ...

    def size(self, name: str) -> int | None:
        """Returns the bytes of an image without reading it, None where that cannot be known."""


class FolderStore:
    """Images in a folder and below, hidden files left out."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.names = _checked(_walk(root), root)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except OSError:  # such as a link to nowhere: told when it is read
            return None


class ZipStore:
    """Images in a zip file, read from it without unpacking."""

    def __init__(self, path: pathlib.Path):
        """Opens a zip file.

        Raises:
          DataError: if it is none, or cut off.
        """
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{path} cannot be read as a zip file: {_line(error)}.") from error
        self.path = path
        listed = dict.fromkeys(
            self._file.namelist()
        )  # a zip may hold a name twice: the last counts
        self.names = _checked(filter(_is_image, listed), path)

    def read(self, name: str) -> bytes:
        """Returns a file of the zip.

        Raises:
          DataError: if it is encrypted, broken, or packed in a way that is not supported.
        """
        try:
            return self._file.read(name)
        except (RuntimeError, OSError, *_BROKEN) as error:
            raise DataError(f"{name} in {self.path} cannot be read: {_line(error)}.") from error

    def size(self, name: str) -> int | None:
        return self._file.getinfo(name).file_size

    def find(self, name: str) -> bytes | None:
        """Returns a file of that name in any folder of the zip, None if there is none."""
        found = [n for n in self._file.namelist() if pathlib.PurePosixPath(n).name == name]
        return self.read(found[0]) if found else None

    def extra(self, path: str) -> bytes | None:
        """Returns the file of that path in the zip, None if there is none."""
        return self.read(path) if path in self._file.namelist() else None


class TarStore:
    """Images of a small tar file, held in memory: compressed tars have no random access."""

    def __init__(self, path: pathlib.Path):
        """Reads a tar file.

        Raises:
          DataError: if it is none, or cut off.
        """
        self._data = {}
        try:
            with tarfile.open(path) as file:
                for member in file:
                    name = member.name.removeprefix("./")
                    if member.isfile() and (_is_image(name) or name.endswith(".csv")):
                        self._data[name] = file.extractfile(member).read()
        except (tarfile.TarError, OSError, *_BROKEN) as error:
            raise DataError(f"{path} cannot be read as a tar file: {_line(error)}.") from error
        self.names = _checked(filter(_is_image, self._data), path)

    def read(self, name: str) -> bytes:
        return self._data[name]

    def size(self, name: str) -> int | None:
        return len(self._data[name])

    def extra(self, path: str) -> bytes | None:
        """Returns the .csv file of that path in the tar, None if there is none."""
        return self._data.get(path)


class LmdbStore:
    """Images of a DiffAE LMDB, under the names that the data set gives its numbers."""

    def __init__(self, images: lmdb_files.NumberedImages, name: Callable[[int], str]):
        self._images = images
        self.names = [name(index) for index in range(len(images))]
        self._index = {name: index for index, name in enumerate(self.names)}

    def read(self, name: str) -> bytes:
        return self._images.read(self._index[name])

    def size(self, name: str) -> int | None:
        return None  # the library reads a value to tell its size


class HashStore:
    """Images of an LSUN LMDB, under their keys, in the order of its cursor."""

    def __init__(self, images: lmdb_files.HashedImages):
        self._images = images
        self.names = images.keys()

    def read(self, name: str) -> bytes:
        return self._images.read(name)

    def size(self, name: str) -> int | None:
        return None


def open_store(
    source: pathlib.Path,
    *,
    folders: Sequence[str] = (),
    archives: Sequence[str] = (),
    lmdb_name: Callable[[int], str] | None = None,
) -> Store:
    """Opens what `source` is: an LMDB, a zip, a tar, or a folder.

    Args:
      source: file or folder. In a folder, the first of `folders` that lies in it (or one level
        below) is taken, else the first of `archives`, else the folder itself.
      folders: names of the folder that holds the images.
      archives: names of the archive that holds them.
      lmdb_name: index of an image in a DiffAE LMDB -> its name in the data set; None: refused.

    Raises:
      DataError: if there is nothing there, or no image in it.
    """
    if not source.exists():
        raise DataError(f"--source={source} does not exist.")
    if lmdb_files.is_lmdb(source):
        store = _open_lmdb(source, lmdb_name)
    else:
        path = source if source.is_file() else _inside(source, folders, archives)
        store = FolderStore(path) if path.is_dir() else _open_archive(path)
    if not store.names:
        raise DataError(f"--source={source} holds no images.")
    return store


def _open_lmdb(source: pathlib.Path, name: Callable[[int], str] | None) -> Store:
    images = lmdb_files.open_images(source)
    if isinstance(images, lmdb_files.HashedImages):
        return HashStore(images)
    if name is None:
        raise DataError(f"--source={source} is a DiffAE LMDB; this data set is not read from one.")
    return LmdbStore(images, name)


def _open_archive(path: pathlib.Path) -> Store:
    if path.suffix == ".zip":
        return ZipStore(path)
    if path.name.endswith(TAR_SUFFIXES):
        return TarStore(path)
    raise DataError(f"--source={path} must be a folder, a .zip, a .tgz or an LMDB.")


def _inside(source: pathlib.Path, folders: Sequence[str], archives: Sequence[str]) -> pathlib.Path:
    levels = [source, *sorted(p for p in source.iterdir() if p.is_dir())]
    for names, exists in ((folders, pathlib.Path.is_dir), (archives, pathlib.Path.is_file)):
        for path in (level / name for name in names for level in levels):
            if exists(path):
                return path
    return source


def _walk(root: pathlib.Path) -> list[str]:
    """Lists the images below a folder; one that links lead to as well is listed once."""
    names, visited = [], set()
    for folder, below, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            below.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Links last, so that a folder goes by its own name.
        below[:] = sorted(
            (name for name in below if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(folder, name)), name),
        )
        here = pathlib.Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files if _is_image(name)]
    return names


def _checked(names: Iterable[str], where: pathlib.Path) -> list[str]:
    """Returns the names sorted; raises DataError for one that is no text."""
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
