"""Finds the folder of a prepared data set."""

import pathlib
import re

from dbae_jax.configuration import paths
from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.data.builders.preparation_file import PREPARATION, read_preparation
from dbae_jax.data.sources import IN_MEMORY
from dbae_jax.errors import DataError
from dbae_jax.runtime.buckets import access

# TFDS's own names of our data sets. The images are the same, but TFDS shuffles their order.
TFDS_NAMES = {"celeba": "celeb_a"}

# Data sets that have a builder; every other name is a folder of images.
KNOWN = ("ffhq", "celeba", "celebahq", "bedroom", "horse", "lfw", "emoji", "folder")


def find(name: str, data_dir: pathlib.Path, image_size: int) -> pathlib.Path:
    """Returns the folder of a prepared data set.

    If the data set was prepared with several stored sizes, the smallest size that is at least
    `image_size` is chosen. Published files count as larger than all stored sizes.

    Args:
      name: name of the data set.
      data_dir: folder of all prepared data sets.
      image_size: side of the images that will be read, in pixels.

    Raises:
      DataError: if the data set is not prepared, or its preparation is unfinished.
    """
    found = _versions(data_dir / name) or _versions(data_dir / TFDS_NAMES.get(name, name))
    complete = [folder for folder in found if (folder / "dataset_info.json").is_file()]
    if complete:
        return min(complete, key=lambda folder: _preference(folder, image_size))
    dataset = name if name in KNOWN else f"folder --name={name}"
    disk, then = data_dir, ""
    if access.is_bucket(data_dir):
        disk, then = pathlib.Path("data"), f", and copy data/{name} to {data_dir}/{name}"
    command = (
        f"python -m dbae_jax.data.prepare --dataset={dataset} --source=... --data_dir={disk}{then}"
    )
    if found:
        raise DataError(
            f"{found[0]} is incomplete: its preparation was interrupted; finish it with {command}"
        )
    raise DataError(
        f"config.data.name={name!r} is not prepared in config.data.data_dir={str(data_dir)!r}; "
        f"{_meant(name, data_dir)}run {command} (docs/reference/data_sets.md describes --source)."
    )


def _meant(name: str, data_dir: pathlib.Path) -> str:
    """Returns part of a sentence about a folder nearby, or data set of a like name, if any."""
    above = [folder for folder in (data_dir.parent, data_dir.parent.parent) if folder != data_dir]
    below = sorted(p for p in data_dir.glob("*") if p.is_dir()) if data_dir.is_dir() else []
    near = [folder for folder in (*above, *below) if _versions(folder / name)]
    if near:
        return f"did you mean config.data.data_dir={str(near[0])!r}? "
    prepared = [folder.name for folder in below if _versions(folder)]
    meant = did_you_mean(name, [*prepared, *IN_MEMORY])
    if prepared:
        return f"{meant}prepared are {', '.join(prepared)}; "
    if meant:
        return meant
    return "" if data_dir.is_dir() else f"this folder does not exist; {paths.nearest(data_dir)}"


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the version folders, finished or not, one or two levels below a data set's folder."""
    below = sorted(p for level in ("*", "*/*") for p in folder.glob(level) if p.is_dir())
    return [p for p in below if re.fullmatch(r"\d+\.\d+\.\d+(\.partial)?", p.name)]


def _preference(folder: pathlib.Path, image_size: int) -> tuple:
    """Returns a sort key: the folder with the smallest key suits images of this size best."""
    size = 0
    if (folder / PREPARATION).is_file():
        size = read_preparation(folder)["storage"]["size"]
    too_small = 0 < size < image_size
    version = tuple(-int(part) for part in folder.name.split("."))
    return (too_small, size or float("inf"), "webp" in folder.parent.name, version)
