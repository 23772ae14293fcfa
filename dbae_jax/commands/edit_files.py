"""The three files that an interpolation or an edit writes."""

import hashlib
import json
import logging
import pathlib
import re
from typing import Any

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import save_grid
from dbae_jax.runtime import files

log = logging.getLogger(__name__)


FOLDER = "edits"  # default, in the workdir


DIGITS = 8  # of the settings' digest


OF_PICTURES = ("crop", "image_size", "lmdb", "train_split", "test_split")  # keys of config.data


def split_names(text: str) -> list[str]:
    """Returns the names in a list with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def about(config: Config, model: DBAE, mode: str) -> dict[str, Any]:
    """Returns what determines the pictures beside the arguments: model, data, sampler."""
    return {
        "mode": mode,
        "step": model.step,
        "weights": "ema",
        "fingerprint": model.fingerprint,
        **{key: getattr(config.model, key) for key in ("dtype", "matmul_precision")},
        "data": config.data.name,
        **{key: getattr(config.data, key) for key in OF_PICTURES},
        "sample": vars(config.sample),
        "nfe": model.nfe(plan=config.sample),
    }


def check_folder(directory: pathlib.Path, out: pathlib.Path | None) -> pathlib.Path:
    """Returns the folder for the files; refuses one that cannot be written."""
    folder = directory / FOLDER if out is None else out
    files.check_folder(folder, "--out")
    return folder


def slug(names: list[str]) -> str:
    """Returns a part of a file name that tells the first of several names."""
    name = pathlib.Path(names[0]).stem
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "picture"
    return word if len(names) == 1 else f"{word}-and-{len(names) - 1}-more"


def write(
    folder: pathlib.Path,
    words: tuple[str, ...],
    rows: np.ndarray,
    arrays: dict[str, np.ndarray],
    settings: dict[str, Any],
) -> pathlib.Path:
    """Writes the files, named by `words` and a digest of the settings; returns the PNG."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGITS]
    stem = "_".join((*words, digest))
    named = {ending: folder / f"{stem}.{ending}" for ending in ("png", "npz", "json")}
    save_grid(named["png"], list(rows))
    files.write_npz(named["npz"], arrays)
    files.write_json(named["json"], settings)
    log.info("%s shows it; codes and settings are beside it.", named["png"])
    return named["png"]
