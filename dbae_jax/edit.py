"""Interpolations and edits of pictures named on the command line, as files.

Each call writes three files of one name into a folder, WORKDIR/edits or --out: a PNG, a row a
picture, the picture itself first; an .npz with codes and images; a .json with the settings, to
which the model's fingerprint and the data belong. The name ends with a digest of the settings: the
same call again replaces its files; one of another model, other data or arguments does not.
"""

import functools
import hashlib
import json
import logging
import math
import pathlib
import re
from typing import Any

import numpy as np

from dbae_jax import api_edits, editing, evaluate, files, picture_input, sharding, workdir
from dbae_jax.api import DBAE
from dbae_jax.config import Config, to_dict
from dbae_jax.data import registry
from dbae_jax.errors import ConfigError
from dbae_jax.evaluators import directions
from dbae_jax.evaluators.context import Context
from dbae_jax.evaluators.reconstruction import noise_seed
from dbae_jax.images import save_grid, to_float, to_uint8

FOLDER = "edits"  # default, in the workdir
DIGITS = 8  # of the settings' digest
OF_PICTURES = ("crop", "image_size", "lmdb", "train_split", "test_split")  # keys of config.data

log = logging.getLogger(__name__)


def interpolate(
    config: Config,
    directory: pathlib.Path,
    *,
    first: str | None,
    second: str | None,
    points: int = 11,
    method: str = "linear",
    infer_endpoint: bool = False,
    out: pathlib.Path | None = None,
) -> pathlib.Path:
    """Decodes codes on the way from one picture to another.

    Args:
      config: must fit the run's model; `sample` is followed.
      directory: the workdir.
      first: names of pictures, with commas between, see `picture_input.read`.
      second: of as many.
      points: of each way, both ends included.
      method: "linear" or "spherical".
      infer_endpoint: of a model whose x_T is free, see `DBAE.interpolate`.
      out: folder for the files; default "edits" in the workdir.

    Returns:
      The PNG: rows of first picture, `points` decodings, second picture.

    Raises:
      ConfigError, DataError: for arguments or pictures that will not do.
      CheckpointError: if the workdir holds no model.
    """
    ends = _ends(first, second)
    if points < 2:
        raise ConfigError(f"--points={points} is not allowed: it must be 2 or more.")
    if infer_endpoint and config.bridge.endpoint != "free":
        raise ConfigError(
            "--infer_endpoint is of models with config.bridge.endpoint='free': this one's x_T is "
            "decoded from z."
        )
    folder = _folder(directory, out)
    model = _model(config, directory)
    splits = functools.partial(_splits, config)
    pictures = [picture_input.read_all(names, config.data, splits) for names in ends]
    seed = noise_seed(config.sample, free=model.gaussian_endpoint)
    z, x_T = api_edits.latent_paths(model, *pictures, points, method, infer_endpoint=infer_endpoint)
    decoded = api_edits.decode_rows(model, z, x_T, rng=seed, **vars(config.sample))
    shown = [np.asarray(to_float(some))[:, None] for some in pictures]
    settings = {"first": ends[0], "second": ends[1], "points": points, "method": method}
    settings |= {"infer_endpoint": infer_endpoint}
    return _write(
        folder,
        (_slug(ends[0]), _slug(ends[1]), method),
        np.concatenate([shown[0], decoded, shown[1]], axis=1),
        {"z": z, "images": to_uint8(decoded), "first": pictures[0], "second": pictures[1]},
        _about(config, model, "interpolate") | settings,
    )


def edit(
    config: Config,
    directory: pathlib.Path,
    *,
    attribute: str | None,
    image: str | None,
    scales: list[str],
    fix_endpoint: bool = False,
    out: pathlib.Path | None = None,
) -> pathlib.Path:
    """Decodes pictures with codes moved along an attribute's direction.

    Args:
      config: must fit the run's model; `sample`, and of `eval` num_probe_images and
        normalise_codes are followed. Its data give the direction.
      directory: the workdir.
      attribute: name of an attribute of the data, or of a class.
      image: names of pictures, with commas between, see `picture_input.read`.
      scales: numbers, as they were written.
      fix_endpoint: keeps each picture's x_T (a free one is inferred).
      out: folder for the files; default "edits" in the workdir.

    Returns:
      The PNG: rows of picture and edits in the order of the scales.

    Raises:
      ConfigError, DataError: for arguments, pictures or attributes that will not do.
      CheckpointError: if the workdir holds no model.
    """
    if not attribute or not image:
        raise ConfigError("--mode=edit needs --attribute, a name, and --image, files or items.")
    names, numbers = _names(image), parse_scales(scales)
    folder = _folder(directory, out)
    context = _context(config, directory)
    directions.check(context, attribute)
    model, sample = context.model, config.sample
    pictures = picture_input.read_all(names, config.data, lambda: context.splits)
    step = directions.find(context, [attribute]).step(attribute)
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    z = model.encode(pictures)
    x_T = api_edits.endpoint_before_edit(model, pictures, z) if fix_endpoint else None
    there = editing.moved(z, step, numbers)
    edited = api_edits.decode_rows(model, there, x_T, rng=seed, **vars(sample))
    shown = np.asarray(to_float(pictures))[:, None]
    settings = {"attribute": attribute, "image": names, "scales": numbers}
    settings |= {"fix_endpoint": fix_endpoint, "normalise_codes": config.eval.normalise_codes}
    settings |= {"training_images": context.limit("train")}
    return _write(
        folder,
        (_slug([attribute]), _slug(names), "fixed" if fix_endpoint else "following"),
        np.concatenate([shown, edited], axis=1),
        {"z": there, "step": step, "images": to_uint8(edited), "before": pictures},
        _about(config, model, "edit") | context.settings() | settings,
    )


def _ends(first: str | None, second: str | None) -> tuple[list[str], list[str]]:
    """Returns the names of the pictures on both ends."""
    if not first or not second:
        raise ConfigError(
            "--mode=interpolate needs --first and --second: image files, or items such as test:17."
        )
    ends = _names(first), _names(second)
    if len(ends[0]) != len(ends[1]):
        raise ConfigError(
            f"--first names {len(ends[0])} pictures and --second {len(ends[1])}: give as many."
        )
    return ends


def parse_scales(texts: list[str]) -> list[float]:
    """Returns the numbers that --scales lists.

    Raises:
      ConfigError: if one is no finite number, or there are none.
    """
    numbers = []
    for text in texts or [""]:
        try:
            numbers.append(float(text))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise ConfigError(
                f"--scales={','.join(texts)} is not allowed: {text!r} is no finite number; write "
                "such as --scales=-0.3,0,0.3."
            )
    return numbers


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _splits(config: Config) -> dict[str, Any]:
    return {split: registry.make_source(config.data, split) for split in ("train", "test")}


def _load(config: Config, directory: pathlib.Path) -> tuple[workdir.Loaded, Any]:
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    workdir.check_same_model(directory, to_dict(loaded.config), config, evaluate.OF_MODEL)
    return loaded, mesh


def _model(config: Config, directory: pathlib.Path) -> DBAE:
    loaded, mesh = _load(config, directory)
    return DBAE(config, loaded.variables, mesh=mesh, step=loaded.step)


def _context(config: Config, directory: pathlib.Path) -> Context:
    return evaluate.make_context(config, directory, *_load(config, directory))


def _about(config: Config, model: DBAE, mode: str) -> dict[str, Any]:
    """Returns what determines the pictures beside the arguments: model, data, sampler."""
    sample = vars(config.sample)
    return {
        "mode": mode,
        "step": model.step,
        "weights": "ema",
        "fingerprint": model.fingerprint,
        **{key: getattr(config.model, key) for key in ("dtype", "matmul_precision")},
        "data": config.data.name,
        **{key: getattr(config.data, key) for key in OF_PICTURES},
        "sample": sample,
        "nfe": model.nfe(**sample),
    }


def _folder(directory: pathlib.Path, out: pathlib.Path | None) -> pathlib.Path:
    """Returns the folder for the files; refuses one that cannot be written."""
    folder = directory / FOLDER if out is None else out
    files.check_folder(folder, "--out")
    return folder


def _slug(names: list[str]) -> str:
    """Returns a part of a file name that tells the first of several names."""
    name = pathlib.Path(names[0]).stem
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "picture"
    return word if len(names) == 1 else f"{word}-and-{len(names) - 1}-more"


def _write(
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
