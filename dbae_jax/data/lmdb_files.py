"""LMDB files of images, as DiffAE (numbered keys) and LSUN (hashes as keys) write them.

This is the only file that imports lmdb.
"""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Generator

import lmdb

from dbae_jax.errors import DataError

LENGTH_KEY = b"length"
HASH_DIGITS = 40  # length of LSUN's keys
_NUMBERED = re.compile(rb"(?:(\d+|None)-)?(\d+)")

# One environment per path: the library refuses to open a file twice in a process. A forked child
# must not use the environment of its parent, so every environment knows its process.
_open: weakref.WeakValueDictionary[str, "_Environment"] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class _Environment:
    """An open file and the process that opened it.

    The file is closed when no `LmdbFile` refers to the environment any more.
    """

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
    """Read-only access to an LMDB file, opened at the first read.

    Instances can be pickled, used after a fork and shared between threads.
    """

    def __init__(self, path: str | os.PathLike):
        """Checks that the file is complete.

        Args:
          path: a folder with data.mdb, or a single file.

        Raises:
          DataError: if the path is not an LMDB file, or the file is cut off.
        """
        self.path = os.path.realpath(path)
        self._local: _Environment | None = None
        self._check_complete()

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key; None if the file lacks the key."""
        try:
            with self._environment().begin() as transaction:
                return transaction.get(key)
        except lmdb.Error as error:
            raise DataError(
                f"{self.path}: the entry {key!r} cannot be read: {error}; copy the file again."
            ) from error

    def __iter__(self) -> Generator[bytes, None, None]:
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
                found.handle.close()  # the parent's environment, copied by a fork
                found = None
            if found is None:
                found = _open[self.path] = _Environment(self.path)
            return found

    def _check_complete(self) -> None:
        folder = pathlib.Path(self.path)
        data = folder / "data.mdb" if folder.is_dir() else folder
        if not data.is_file():
            raise DataError(
                f"{self.path} is not an LMDB file: it has no data.mdb; name a folder that has one."
            )
        try:
            environment = self._environment()
            pages = environment.info()["last_pgno"] + 1
            need = pages * environment.stat()["psize"]
        except (lmdb.Error, OSError, OverflowError) as error:
            raise DataError(
                f"{self.path} cannot be read as LMDB: {error}; check the path, or copy it again."
            ) from error
        # Reading past the end of a mapped file kills the process, so the size is checked first.
        if data.stat().st_size < need:
            raise DataError(
                f"{data} is cut off: {data.stat().st_size:,} of at least {need:,} bytes are there; "
                "copy it again."
            )


@dataclasses.dataclass(frozen=True)
class NumberedImages:
    """The images of a DiffAE LMDB by number; keys are like "256-00000", "None-0000000", "0000000".

    Attributes:
      file: LMDB file.
      prefix: beginning of every key before the number, such as "256-".
      width: number of digits of the number.
      count: number of images.
    """

    file: LmdbFile
    prefix: str
    width: int
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> bytes:
        """Returns the bytes of the image file with this number.

        Raises:
          DataError: if the file lacks the image.
        """
        key = f"{self.prefix}{index:0{self.width}d}"
        value = self.file.get(key.encode())
        if value is None:
            raise DataError(f"{self.file.path} has no image {key!r}; copy the file again.")
        return value


@dataclasses.dataclass(frozen=True)
class HashedImages:
    """The images of an LSUN LMDB by key, in the order of the file's cursor.

    Attributes:
      file: LMDB file.
    """

    file: LmdbFile

    def keys(self) -> list[str]:
        """Returns the keys of all images."""
        return [key.decode("ascii", "backslashreplace") for key in self.file]

    def read(self, key: str) -> bytes:
        """Returns the bytes of the image file with this key.

        Raises:
          DataError: if the file lacks the image.
        """
        value = self.file.get(key.encode("ascii"))
        if value is None:
            raise DataError(f"{self.file.path} has no image {key!r}; copy the file again.")
        return value


# Reads all keys of an LMDB file, and checks that every value lies in it. The library follows
# damaged pages to wherever they lead, which may kill the process: another process goes first.
_READ_ALL = """
import os, sys
import lmdb, numpy as np
path = sys.argv[1]
file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
environment = lmdb.open(path, subdir=os.path.isdir(path), readonly=True, lock=False)
first, last = sys.maxsize, 0
with environment.begin(buffers=True) as transaction:
    for key, value in transaction.cursor():
        at = np.frombuffer(value, np.uint8).__array_interface__["data"][0] if len(value) else 0
        first, last = min(first, at or first), max(last, at + len(value))
        bytes(key)
sys.exit(3 if last - first > os.path.getsize(file) else 0)
"""


def _check_undamaged(path: str) -> None:
    """Raises DataError for a file whose reading would kill this process."""
    file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    found = os.stat(file)
    _check_state(path, found.st_size, found.st_mtime_ns)


@functools.cache
def _check_state(path: str, size: int, mtime_ns: int) -> None:
    """Checks a file once for each of its states: the check reads the whole file."""
    del size, mtime_ns
    ended = subprocess.run(
        [sys.executable, "-c", _READ_ALL, path], capture_output=True, check=False
    )
    if ended.returncode == 0:
        return
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    reason = said[-1] if said else "its pages lead out of the file"
    raise DataError(f"{path} is damaged as an LMDB file ({reason[:160]}); copy it again.")


def is_lmdb(path: pathlib.Path) -> bool:
    """Returns whether a path is a folder with data.mdb, or a file named *.lmdb or *.mdb."""
    return (path / "data.mdb").is_file() or (
        path.is_file() and path.suffix.lower() in (".lmdb", ".mdb")
    )


def open_images(path: str | os.PathLike) -> NumberedImages | HashedImages:
    """Opens an LMDB file; its keys decide whether DiffAE or LSUN wrote it.

    Args:
      path: a folder with data.mdb, or a single file.

    Raises:
      DataError: if the file is missing, cut off, empty or unfinished, or holds a different number
        of images than its key "length" states.
    """
    file = LmdbFile(path)
    _check_undamaged(file.path)
    keys = iter(file)
    first = next(keys, None)
    keys.close()
    if first is None:
        raise DataError(f"{file.path} is empty: it has no keys; write or copy it again.")
    length = file.get(LENGTH_KEY)
    match = _NUMBERED.fullmatch(first)
    if length is None and match and len(first) < HASH_DIGITS:
        raise DataError(
            f"{file.path} is unfinished: it has numbered images, such as {first.decode()!r}, and "
            'no key "length", which is written last; write or copy it again.'
        )
    if length is None:
        return HashedImages(file)
    if not match or not length.isdigit():
        raise DataError(
            f"{file.path} is not in DiffAE's format: its keys must be like '256-00000', "
            f"the first is {first.decode('ascii', 'backslashreplace')!r}; write it as DiffAE does."
        )
    prefix = f"{match[1].decode()}-" if match[1] else ""
    images = NumberedImages(file, prefix, len(match[2]), int(length))
    if len(file) != images.count + 1:
        raise DataError(
            f"{file.path} states {images.count:,} images but contains {len(file) - 1:,}: "
            "it is incomplete, or holds several sizes; write or copy it again, with one size."
        )
    for index in (0, images.count - 1):
        images.read(index)
    return images
