"""LMDB files of images: DiffAE's (numbered keys) and LSUN's (hash keys). Only file with lmdb."""

import dataclasses
import os
import pathlib
import re
import threading
import weakref
from collections.abc import Iterator

import lmdb

from dbae_jax.errors import DataError

LENGTH_KEY = b"length"
HASH_DIGITS = 40  # of LSUN's keys
_NUMBERED = re.compile(rb"(?:(\d+|None)-)?(\d+)")

# One environment a path: the library refuses to open a file twice in a process. Values are
# (process id, environment); a forked child must not use its parent's.
_open: weakref.WeakValueDictionary[str, "_Environment"] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class _Environment:
    """An open file and the process that opened it; closed when the last reader is gone."""

    def __init__(self, path: str):
        self.pid = os.getpid()
        self.handle = lmdb.open(
            path,
            subdir=os.path.isdir(path),
            readonly=True,
            lock=False,
            readahead=False,
            meminit=False,
            max_readers=32,
        )


class LmdbFile:
    """Read-only access to a file, opened when first read; pickles, forks and threads are safe."""

    def __init__(self, path: str | os.PathLike):
        """Takes a folder with data.mdb, or a single file; checks that it is whole.

        Raises:
          DataError: if there is no LMDB file, or it is cut off.
        """
        self.path = os.path.realpath(path)
        self._local: _Environment | None = None
        self._check_whole()

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, None if there is none."""
        with self._environment().begin() as transaction:
            return transaction.get(key)

    def __iter__(self) -> Iterator[bytes]:
        """Yields all keys, in the order of the file's cursor."""
        with self._environment().begin() as transaction:
            yield from transaction.cursor().iternext(keys=True, values=False)

    def __len__(self) -> int:
        return self._environment().stat()["entries"]

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.path, self._local = state["path"], None

    def _environment(self) -> lmdb.Environment:
        local = self._local
        if local is None or local.pid != os.getpid():
            local = self._local = self._shared()
        return local.handle

    def _shared(self) -> _Environment:
        with _lock:
            found = _open.get(self.path)
            if found is not None and found.pid != os.getpid():
                found.handle.close()  # the copy that a fork brought along
                found = None
            if found is None:
                found = _open[self.path] = _Environment(self.path)
            return found

    def _check_whole(self) -> None:
        folder = pathlib.Path(self.path)
        data = folder / "data.mdb" if folder.is_dir() else folder
        if not data.is_file():
            raise DataError(f"{self.path} is no LMDB file: it has no data.mdb.")
        try:
            environment = self._environment()
            pages = environment.info()["last_pgno"] + 1
            need = pages * environment.stat()["psize"]
        except lmdb.Error as error:
            raise DataError(f"{self.path} cannot be read as LMDB: {error}.") from error
        # Reading past the end of a mapped file kills the process, so this is checked beforehand.
        if data.stat().st_size < need:
            raise DataError(
                f"{data} is cut off: {data.stat().st_size:,} of at least {need:,} bytes are there; "
                "copy it again."
            )


@dataclasses.dataclass(frozen=True)
class NumberedImages:
    """The images of a DiffAE LMDB, by number: keys "256-00000", "None-0000000" or "0000000"."""

    file: LmdbFile
    prefix: str
    width: int
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> bytes:
        """Returns the encoded image of a number.

        Raises:
          DataError: if the file has no such image.
        """
        key = f"{self.prefix}{index:0{self.width}d}"
        value = self.file.get(key.encode())
        if value is None:
            raise DataError(f"{self.file.path} has no image {key!r}.")
        return value


@dataclasses.dataclass(frozen=True)
class HashedImages:
    """The images of an LSUN LMDB, by key, in the order of its cursor."""

    file: LmdbFile

    def keys(self) -> list[str]:
        """Returns the keys of all images."""
        return [key.decode("ascii", "backslashreplace") for key in self.file]

    def read(self, key: str) -> bytes:
        """Returns the encoded image of a key."""
        value = self.file.get(key.encode("ascii"))
        if value is None:
            raise DataError(f"{self.file.path} has no image {key!r}.")
        return value


def is_lmdb(path: pathlib.Path) -> bool:
    """Returns whether a path is a folder with data.mdb, or a file named *.lmdb or *.mdb."""
    return (path / "data.mdb").is_file() or (path.is_file() and path.suffix in (".lmdb", ".mdb"))


def open_images(path: str | os.PathLike) -> NumberedImages | HashedImages:
    """Opens an LMDB file and recognises by its content what it holds.

    Raises:
      DataError: if it is missing, cut off, empty, unfinished, or holds fewer images than it
        announces.
    """
    file = LmdbFile(path)
    keys = iter(file)
    first = next(keys, None)
    keys.close()
    if first is None:
        raise DataError(f"{file.path} is empty.")
    length = file.get(LENGTH_KEY)
    match = _NUMBERED.fullmatch(first)
    if length is None and match and len(first) < HASH_DIGITS:
        raise DataError(
            f"{file.path} is not finished: it has images by number, such as {first.decode()!r}, "
            "and no length, which is written last; write or copy it again."
        )
    if length is None:
        return HashedImages(file)
    if not match or not length.isdigit():
        raise DataError(
            f"{file.path} is not in DiffAE's format: its keys must be like '256-00000', "
            f"the first is {first.decode('ascii', 'backslashreplace')!r}."
        )
    prefix = f"{match[1].decode()}-" if match[1] else ""
    images = NumberedImages(file, prefix, len(match[2]), int(length))
    if len(file) != images.count + 1:
        raise DataError(
            f"{file.path} announces {images.count:,} images and holds {len(file) - 1:,}; "
            "it is not whole, or holds several sizes."
        )
    for index in (0, images.count - 1):
        images.read(index)
    return images
