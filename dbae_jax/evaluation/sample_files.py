"""Folders of sampled images: sampling the missing ones, file names, and reading them in order.

A folder holds samples.json (the settings of the samples), grid.png, and one of two formats:
000000.png, ..., or 000000-000255.npz, ... with `images` (uint8 [n, H, W, C]), `index` [n] and
`seed`.
"""

import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.data import images
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.runtime import files, processes, rngs
from dbae_jax.runtime.progress import Progress

FORMATS = ("png", "npz")
SETTINGS, GRID = "samples.json", "grid.png"
SHARD = 256  # images per npz file
GRID_SIDE = 8  # images per row and per column of the grid


def settings(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings with which the images of a folder were sampled.

    Raises:
      DataError: if the folder does not hold sampled images.
    """
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no sampled images: {SETTINGS} there cannot be read; sample some with "
            "`dbae sample`."
        ) from error
    if not isinstance(found, dict) or found.get("format") not in FORMATS:
        raise DataError(f"{path} does not state which of {', '.join(FORMATS)} the images are.")
    return found


def batches(
    folder: pathlib.Path, num: int, *, shape: tuple[int, int, int] | None = None
) -> Iterator[np.ndarray]:
    """Yields images 0 ... num - 1 of a folder in order: uint8 [n, H, W, C], n at most `SHARD`.

    Args:
      folder: folder that `sample` wrote.
      num: number of images.
      shape: required shape (H, W, C) of an image; None for any.

    Raises:
      DataError: if an image is missing or damaged, or has a different shape.
    """
    read = {"png": _read_images, "npz": _read_shard}[settings(folder)["format"]]
    for start in range(0, num, SHARD):
        count = min(SHARD, num - start)
        try:
            batch = read(folder, start, count)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{folder} does not hold valid images {start} to {start + count - 1} ({error}); "
                f"sample {num} images with `dbae sample`, which adds the missing ones."
            ) from error
        if batch.dtype != np.uint8 or (shape is not None and batch.shape[1:] != shape):
            raise DataError(
                f"{folder} holds images {batch.dtype} {list(batch.shape[1:])}, not uint8 "
                f"{'[H, W, C]' if shape is None else list(shape)}."
            )
        yield batch


def how(config: Config) -> dict[str, Any]:
    """Returns the arguments of `DBAE.sample` that a config asks for."""
    prior = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    return prior | vars(config.sample)


def model_identity(model: DBAE) -> dict[str, Any]:
    """Returns everything about a model that its samples depend on."""
    return {
        "autoencoder_step": model.step,
        "autoencoder_fingerprint": model.fingerprint,
        "prior_step": model.prior.step,
        "prior_fingerprint": model.prior.fingerprint,
        "dtype": model.config.model.dtype,
        "matmul_precision": model.config.model.precision,
    }


def sample(
    model: DBAE,
    out: pathlib.Path,
    *,
    num: int,
    how: dict[str, Any],
    file_format: str = "npz",
    seed: int = 0,
) -> None:
    """Samples those of the images 0 ... num - 1 that have no file yet, and writes the grid.

    Args:
      model: a model with a latent prior.
      out: folder for the files.
      num: number of images.
      how: arguments of `DBAE.sample`.
      file_format: one of `FORMATS`.
      seed: seed of the images.

    Raises:
      CheckpointError: if the model has no latent prior.
      ConfigError: if the folder holds images that were sampled with different settings.
    """
    _claim(out, {"seed": seed, "format": file_format, "how": how} | model_identity(model))
    parts = processes.from_writer(lambda: _missing(out, num, file_format, model.batch_size))
    with Progress("Sampling images", sum(map(len, parts)), "images") as progress:
        for indices in map(np.array, parts):
            keys = rngs.per_example(rngs.key_of(seed), indices)
            sampled = images.to_uint8(model.sample(len(indices), keys, **how))
            _WRITERS[file_format](out, indices, sampled, seed)
            progress.advance(len(indices))
    if processes.is_writer():
        _write_grid(out, min(num, GRID_SIDE**2))


def _image_file(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"{index:06d}.png"


def _shards(folder: pathlib.Path, start: int) -> list[pathlib.Path]:
    """Returns the npz files whose first image has this index."""
    return list(folder.glob(f"{start:06d}-*.npz"))


def _last_index(path: pathlib.Path) -> int:
    """Returns the index of the last image of an npz file."""
    return int(path.stem.partition("-")[2])


def _read_images(folder: pathlib.Path, start: int, count: int) -> np.ndarray:
    found = []
    for index in range(start, start + count):
        with Image.open(_image_file(folder, index)) as file:
            found.append(np.asarray(file))
    batch = np.stack(found)
    return batch[..., None] if batch.ndim == 3 else batch


def _read_shard(folder: pathlib.Path, start: int, count: int) -> np.ndarray:
    shards = _shards(folder, start)
    if not shards:
        raise ValueError(f"there is no file {start:06d}-*.npz")
    path = max(shards, key=_last_index)
    with np.load(path, allow_pickle=False) as file:
        batch, index = file["images"], file["index"]
    if len(batch) < count or not np.array_equal(index[:count], np.arange(start, start + count)):
        raise ValueError(f"{path.name} holds different images")
    return batch[:count]


def _claim(out: pathlib.Path, settings: dict[str, Any]) -> None:
    """Writes the settings into a folder; refuses a folder with different settings."""
    problem = processes.from_writer(lambda: _obstacle(out, settings))
    if problem:
        raise ConfigError(problem)
    files.write_json(out / SETTINGS, settings)


def _obstacle(out: pathlib.Path, settings: dict[str, Any]) -> str | None:
    """Returns why a folder cannot take images that are sampled with these settings, or None."""
    path = out / SETTINGS
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return f"--out={out} holds a damaged {SETTINGS}; name a different folder."
        differing = [key for key in settings if found.get(key) != settings[key]]
        if differing:
            return (
                f"--out={out} holds images sampled with different values of {', '.join(differing)} "
                f"(see {SETTINGS} there); name a different folder."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        return f"--out={out} is not a folder of samples; name an empty or a new folder."
    return None


def _missing(out: pathlib.Path, num: int, file_format: str, batch_size: int) -> list[list[int]]:
    """Returns the indices of the images without a file, in parts that are sampled together."""
    if file_format == "npz":
        starts = range(0, num, SHARD)
        parts = [list(range(start, min(start + SHARD, num))) for start in starts]
        lasts = [max(map(_last_index, _shards(out, start)), default=-1) for start in starts]
        return [part for part, last in zip(parts, lasts, strict=True) if last < part[-1]]
    indices = [i for i in range(num) if not _image_file(out, i).exists()]
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _write_images(out: pathlib.Path, indices: np.ndarray, sampled: np.ndarray, seed: int) -> None:
    for index, image in zip(indices, sampled, strict=True):
        images.save_image(_image_file(out, index), image)


def _write_shard(out: pathlib.Path, indices: np.ndarray, sampled: np.ndarray, seed: int) -> None:
    """Writes a file and removes files that hold fewer of the same images."""
    path = out / f"{indices[0]:06d}-{indices[-1]:06d}.npz"
    files.write_npz(path, {"images": sampled, "index": indices, "seed": np.array(seed)})
    if processes.is_writer():
        for smaller in _shards(out, indices[0]):
            if smaller != path:
                smaller.unlink()


_WRITERS = {"png": _write_images, "npz": _write_shard}


def _write_grid(out: pathlib.Path, num: int) -> None:
    """Writes a grid of the first images, which are read from their files."""
    shown = np.asarray(images.to_float(next(batches(out, num))))
    white = np.ones((-len(shown) % GRID_SIDE, *shown.shape[1:]), np.float32)
    rows = np.concatenate([shown, white]).reshape(-1, GRID_SIDE, *shown.shape[1:])
    images.save_grid(out / GRID, list(rows))
