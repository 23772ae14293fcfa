"""The files of interpolations and edits: a PNG, an .npz and a .json with the same name.

The PNG shows one row per image, with the names of rows and columns. The .npz holds latent codes and
images, and the .json the settings, the model's fingerprint and the data. The name ends with a hash
of the settings: the same command replaces its files; a different model, different data or different
arguments write other files.
"""

import hashlib
import json
import logging
import pathlib
import re
from typing import Any

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.evaluation import pictures
from dbae_jax.runtime import files

FOLDER = "edits"  # default folder in the workdir
DIGITS = 8  # length of the hash in file names
# Keys of config.data that determine the images.
OF_IMAGES = ("crop", "background", "image_size", "lmdb", "train_split", "test_split")

log = logging.getLogger(__name__)


def about(config: Config, model: DBAE, mode: str) -> dict[str, Any]:
    """Returns the settings of an image that are no arguments: model, data and sampler."""
    return {
        "mode": mode,
        "step": model.step,
        "weights": "ema",
        "fingerprint": model.fingerprint,
        "dtype": config.model.dtype,
        "matmul_precision": config.model.precision,
        "data": config.data.name,
        **{key: getattr(config.data, key) for key in OF_IMAGES},
        "sample": vars(config.sample),
        "nfe": model.nfe(plan=config.sample),
    }


def check_folder(directory: pathlib.Path, out: pathlib.Path | None) -> pathlib.Path:
    """Returns the folder for the files, by default `FOLDER` in the workdir.

    Raises:
      ConfigError: if the folder cannot be written.
    """
    folder = directory / FOLDER if out is None else out
    files.check_folder(folder, "--out")
    return folder


def short(name: str) -> str:
    """Returns an item such as "test:3" as it is, and the name of a file without its folder."""
    return name.replace("\\", "/").rpartition("/")[2]


def slug(names: list[str]) -> str:
    """Returns a part of a file name that contains the first of several names."""
    name = pathlib.Path(names[0]).stem
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "picture"
    return word if len(names) == 1 else f"{word}-and-{len(names) - 1}-more"


def write(
    folder: pathlib.Path,
    words: tuple[str, ...],
    rows: list[tuple[str, np.ndarray]],
    arrays: dict[str, np.ndarray],
    settings: dict[str, Any],
    *,
    columns: list[str],
) -> pathlib.Path:
    """Writes the three files, and logs where they are.

    Args:
      folder: folder for the files.
      words: first parts of the file name.
      rows: of the PNG: names, and images [columns, H, W, C] in [-1, 1].
      arrays: content of the .npz.
      settings: content of the .json.
      columns: names of the columns of the PNG, from left to right.

    Returns:
      The PNG file.
    """
    text = json.dumps(settings, sort_keys=True)
    stem = "_".join((*words, hashlib.sha256(text.encode()).hexdigest()[:DIGITS]))
    named = {ending: folder / f"{stem}.{ending}" for ending in ("png", "npz", "json")}
    files.write_npz(named["npz"], arrays)
    files.write_json(named["json"], settings)
    pictures.labelled_grid(named["png"], rows, columns)
    log.info("The images are in %s, with the codes (.npz) and settings (.json).", named["png"])
    return named["png"]
