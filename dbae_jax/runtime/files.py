"""Writes files of a run: each is complete or missing, and one process writes it."""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, Self

import numpy as np

from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes
from dbae_jax.runtime.buckets import access

PUT_SECONDS = 60  # at least, between two copies of a growing file in a bucket


def obstacle(path: pathlib.Path) -> str | None:
    """Returns why a file cannot be written, or None if it can.

    Missing folders are no obstacle, since they are made. Whether a bucket can be written shows when
    its lock is taken.
    """
    if access.is_bucket(path):
        return None
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def check_file(path: pathlib.Path, name: str = "") -> None:
    """Checks that a file can be written, before long work makes its content.

    Args:
      path: the file.
      name: how the error names it, such as "--json=FILE". Default: the path.

    Raises:
      ConfigError: if it cannot be written; the error states why.
    """
    problem = f"{path} is a folder" if path.is_dir() else obstacle(path)
    if problem:
        raise ConfigError(f"{name or path} cannot be written: {problem}.")


def check_folder(folder: pathlib.Path, name: str) -> None:
    """Checks that files can be written into a folder, before long work makes their content.

    Args:
      folder: the folder, which may be missing; it is not made.
      name: name of the folder for the error, such as "--out".

    Raises:
      ConfigError: if files cannot be written there; the error states why.
    """
    problem = obstacle(folder / "file")
    if problem:
        raise ConfigError(f"{name}={folder} cannot be written: {problem}.")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it; its folder is made if missing.

    Only process 0 of a run does this. In a bucket, the file is put under its name at once.
    """
    if not processes.is_writer():
        return
    with _replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that becomes the file `path` at the end, or goes away at an error."""
    if access.is_bucket(path):
        with tempfile.NamedTemporaryFile(prefix="dbae_jax-") as file:
            yield file
            file.flush()
            access.put(pathlib.Path(file.name), path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    with _open_alone(fresh) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())  # an error of the disk must show before the file is replaced
            os.replace(fresh, path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def _open_alone(path: pathlib.Path) -> IO[bytes]:
    """Opens an empty temporary file; waits while another process writes a file of this name.

    The name is the same for every process, so that a killed process leaves one file at most, which
    the next one overwrites. A file system without locks lets two processes write at once.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb")
        with contextlib.ExitStack() as stack:
            stack.enter_context(file)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # Without its name, the file is the finished file of the other process, or was deleted.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    stack.pop_all()
                    return file


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as `write_bytes` writes bytes, without a copy of the file in memory."""
    if not processes.is_writer():
        return
    with _replacing(path) as file:
        np.savez(file, **dict[str, Any](arrays))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text in UTF-8 as `write_bytes` writes bytes."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes values as indented JSON; NaN and infinity raise ValueError, as JSON lacks them."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


class GrowingFile:
    """A text file to which lines are added; a context manager. Only process 0 of a run writes it.

    On a disk each line is written at once. A bucket cannot add to an object: the whole file is put
    again after `PUT_SECONDS`, by `flush`, and at the end.
    """

    def __init__(self, path: pathlib.Path, text: str):
        """Writes the file with the lines that it begins with, and opens it."""
        write_text(path, text)
        self._path, self._text, self._put = path, text, time.monotonic()
        writes_on_disk = processes.is_writer() and not access.is_bucket(path)
        self._file = (path if writes_on_disk else pathlib.Path(os.devnull)).open("a")

    def add(self, line: str) -> None:
        """Adds a line."""
        self._file.write(line + "\n")
        self._file.flush()
        if access.is_bucket(self._path):
            self._text += line + "\n"
            if time.monotonic() - self._put > PUT_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Writes what a bucket does not have yet."""
        if access.is_bucket(self._path):
            write_text(self._path, self._text)
            self._put = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.flush()
