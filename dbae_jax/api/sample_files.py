"""Folders of drawn images: their names, and reading them back in order.

A folder holds samples.json (what they were drawn with), and 000000.png, ... or
000000-000255.npz, ... with `images` [n, H, W, C], uint8, `index` [n] and `seed`.
"""

import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from dbae_jax.errors import DataError

FORMATS = ("png", "npz")
SETTINGS = "samples.json"
SHARD = 256  # images an npz file


def picture(folder: pathlib.Path, index: int) -> pathlib.Path:
    """Returns the PNG file of an image."""
    return folder / f"{index:06d}.png"


def shard(folder: pathlib.Path, indices: np.ndarray) -> pathlib.Path:
    """Returns the npz file of images in a row."""
    return folder / f"{indices[0]:06d}-{indices[-1]:06d}.npz"


def shards(folder: pathlib.Path, start: int) -> list[pathlib.Path]:
    """Returns the npz files whose first image this is."""
    return list(folder.glob(f"{start:06d}-*.npz"))


def last_of(path: pathlib.Path) -> int:
    """Returns the index of the last image of an npz file."""
    return int(path.stem.partition("-")[2])


def settings(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what the images of a folder were drawn with.

    Raises:
      DataError: if it is no folder of drawn images.
    """
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no drawn images: {SETTINGS} there cannot be read; draw some with "
            "--mode=sample."
        ) from error
    if not isinstance(found, dict) or found.get("format") not in FORMATS:
        raise DataError(f"{path} does not say in which of {', '.join(FORMATS)} the images are.")
    return found


def batches(
    folder: pathlib.Path, num: int, *, shape: tuple[int, int, int] | None = None
) -> Iterator[np.ndarray]:
    """Yields images 0 ... num - 1 of a folder in order: uint8 [n, H, W, C], n at most 256.

    Args:
      folder: that --mode=sample wrote.
      num: how many.
      shape: (H, W, C) that they must have; None: any.

    Raises:
      DataError: if an image is missing, torn or of another shape, in one sentence.
    """
    read = {"png": _read_pictures, "npz": _read_shard}[settings(folder)["format"]]
    for start in range(0, num, SHARD):
        count = min(SHARD, num - start)
        try:
            images = read(folder, start, count)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{folder} does not hold images {start} to {start + count - 1} whole ({error}); "
                f"draw {num} images with --mode=sample, which makes the missing ones."
            ) from error
        if images.dtype != np.uint8 or (shape is not None and images.shape[1:] != shape):
            raise DataError(
                f"{folder} holds images {images.dtype} {list(images.shape[1:])}, not uint8 "
                f"{'[H, W, C]' if shape is None else list(shape)}."
            )
        yield images


def _read_pictures(folder: pathlib.Path, start: int, count: int) -> np.ndarray:
    found = []
    for index in range(start, start + count):
        with Image.open(picture(folder, index)) as file:
            found.append(np.asarray(file))
    images = np.stack(found)
    return images[..., None] if images.ndim == 3 else images


def _read_shard(folder: pathlib.Path, start: int, count: int) -> np.ndarray:
    files = shards(folder, start)
    if not files:
        raise ValueError(f"there is no file {start:06d}-*.npz")
    path = max(files, key=last_of)
    with np.load(path, allow_pickle=False) as file:
        images, index = file["images"], file["index"]
    if len(images) < count or not np.array_equal(index[:count], np.arange(start, start + count)):
        raise ValueError(f"{path.name} holds other images")
    return images[:count]
