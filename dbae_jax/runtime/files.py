"""Writes files of a run: each is complete or missing, and one process writes it."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes


def obstacle(path: pathlib.Path) -> str | None:
    """Returns why a file cannot be written, or None if it can.

    Missing folders are no obstacle, since they are made.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


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

    Only process 0 of a run does this.
    """
    if not processes.is_writer():
        return
    with _replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes the file `path` at the end, or goes away at an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    try:
        with fresh.open("wb") as file:
            yield file
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


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
