"""Folders of drawn images: their names, and reading them back in order.

A folder holds samples.json (what they were drawn with), and 000000.png, ... or
000000-000255.npz, ... with `images` [n, H, W, C], uint8, `index` [n] and `seed`.
"""

import json
import logging
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.data import images
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.runtime import files, processes, rngs

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


log = logging.getLogger(__name__)


GRID = "grid.png"


GRID_SIDE = 8  # images


def how(config: Config) -> dict[str, Any]:
    """Returns how a config says that images are drawn: arguments of `DBAE.sample`."""
    prior = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    return prior | vars(config.sample)


def drawn_by(model: DBAE) -> dict[str, Any]:
    """Returns whose images a model's are: its weights, its prior's, and how they compute."""
    return {
        "autoencoder_step": model.step,
        "autoencoder_fingerprint": model.fingerprint,
        "prior_step": model.prior.step,
        "prior_fingerprint": model.prior.fingerprint,
        "dtype": model.config.model.dtype,
        "matmul_precision": model.config.model.matmul_precision,
    }


def draw(
    model: DBAE,
    out: pathlib.Path,
    *,
    num: int,
    how: dict[str, Any],
    file_format: str = "npz",
    seed: int = 0,
) -> None:
    """Draws images 0 ... num - 1 of a seed, those that have no file yet, and a grid of them.

    Args:
      model: with a prior.
      out: folder for the files.
      num: of images.
      how: arguments of `DBAE.sample`.
      file_format: of `sample_files.FORMATS`.
      seed: of the images.

    Raises:
      CheckpointError: if the model has no prior.
      ConfigError: if the folder holds other images.
    """
    settings = {"seed": seed, "format": file_format, "how": how}
    settings |= drawn_by(model)
    _claim(out, settings)
    units = processes.from_writer(lambda: _missing(out, num, file_format, model.batch_size))
    for count, indices in enumerate(map(np.array, units)):
        keys = rngs.per_example(jax.random.key(seed), indices)
        drawn = images.to_uint8(model.sample(len(indices), keys, **how))
        _WRITERS[file_format](out, indices, drawn, seed)
        log.info("%d of %d parts drawn, up to image %d.", count + 1, len(units), indices[-1])
    if processes.is_writer():
        _paint(out, min(num, GRID_SIDE**2))


def _claim(out: pathlib.Path, settings: dict[str, Any]) -> None:
    """Records how images are drawn, or refuses a folder of images drawn otherwise."""
    problem = processes.from_writer(lambda: _claimed_otherwise(out, settings))
    if problem:
        raise ConfigError(problem)
    files.write_json(out / SETTINGS, settings)


def _claimed_otherwise(out: pathlib.Path, settings: dict[str, Any]) -> str | None:
    """Returns why a folder is not for images drawn with these settings, or None."""
    path = out / SETTINGS
    if path.exists():
        try:
            there = json.loads(path.read_text())
        except ValueError:
            there = None
        if not isinstance(there, dict):
            return f"--out={out} holds a torn {SETTINGS}; name another folder."
        differing = [key for key in settings if there.get(key) != settings[key]]
        if differing:
            return (
                f"--out={out} holds images drawn with other values of {', '.join(differing)} (see "
                f"{SETTINGS} there); name another folder."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        return f"--out={out} is no folder of samples; name an empty or a new one."
    return None


def _missing(out: pathlib.Path, num: int, file_format: str, batch_size: int) -> list[list[int]]:
    """Returns the indices of images without a file, in the parts that are drawn at a time."""
    if file_format == "npz":
        starts = range(0, num, SHARD)
        parts = [list(range(start, min(start + SHARD, num))) for start in starts]
        return [part for part in parts if _last_drawn(out, part[0]) < part[-1]]
    indices = [i for i in range(num) if not picture(out, i).exists()]
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _last_drawn(out: pathlib.Path, start: int) -> int:
    """Returns the index of the last image of the part that begins here; -1 without one."""
    found = [last_of(path) for path in shards(out, start)]
    return max(found, default=-1)


def _write_pictures(out: pathlib.Path, indices: np.ndarray, drawn: np.ndarray, seed: int) -> None:
    for index, image in zip(indices, drawn, strict=True):
        images.save_image(picture(out, index), image)


def _write_shard(out: pathlib.Path, indices: np.ndarray, drawn: np.ndarray, seed: int) -> None:
    """Writes a file in place of those of the same images that hold fewer of them."""
    path = shard(out, indices)
    files.write_npz(path, {"images": drawn, "index": indices, "seed": np.array(seed)})
    if processes.is_writer():
        for other in shards(out, indices[0]):
            if other != path:
                other.unlink()


_WRITERS = {"png": _write_pictures, "npz": _write_shard}


def _paint(out: pathlib.Path, num: int) -> None:
    """Shows the first images in a grid, as they are in their files."""
    shown = next(batches(out, num))
    shown = np.asarray(images.to_float(shown))
    missing = -len(shown) % GRID_SIDE
    white = np.ones((missing, *shown.shape[1:]), np.float32)
    rows = np.concatenate([shown, white]).reshape(-1, GRID_SIDE, *shown.shape[1:])
    images.save_grid(out / GRID, list(rows))
