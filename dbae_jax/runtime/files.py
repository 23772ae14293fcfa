"""Files of a run: whole or not there, and written by one process of several."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes


def obstacle(path: pathlib.Path) -> str | None:
    """Returns why a file could not be written here, folders made as needed; None if it could."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def check_folder(folder: pathlib.Path, name: str) -> None:
    """Refuses a folder that files could not be written into, before what they are of is made.

    Args:
      folder: may be missing, and is not made.
      name: what the user called it by, such as "--out".

    Raises:
      ConfigError: saying why.
    """
    problem = obstacle(folder / "file")
    if problem:
        raise ConfigError(f"{name}={folder} cannot be written: {problem}.")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file beside its name and moves it there; its folder is made if missing.

    Does nothing on the processes of a run that do not write.
    """
    if not processes.is_writer():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As `write_bytes`, for named arrays, which are written one after the other."""
    if not processes.is_writer():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    with fresh.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(fresh, path)


def write_text(path: pathlib.Path, text: str) -> None:
    """As `write_bytes`, for text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes values as indented JSON; not-a-number is refused, for JSON has none."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
