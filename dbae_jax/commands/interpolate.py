"""Interpolations between images named on the command line, as files."""

import functools
import pathlib

import numpy as np

from dbae_jax.api import edits
from dbae_jax.commands import edit_files, named_pictures, trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation.suites.reconstruction import noise_seed


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
    folder = edit_files.check_folder(directory, out)
    model, _ = trained_model.open_model(config, directory, OF_MODEL)
    splits = functools.partial(trained_model.open_splits, config)
    pictures = [named_pictures.read_all(names, config.data, splits) for names in ends]
    seed = noise_seed(config.sample, free=model.gaussian_endpoint)
    z, x_T = edits.latent_paths(model, *pictures, points, method, infer_endpoint=infer_endpoint)
    decoded = edits.decode_rows(model, z, x_T, rng=seed, plan=config.sample)
    shown = [np.asarray(to_float(some))[:, None] for some in pictures]
    settings = {"first": ends[0], "second": ends[1], "points": points, "method": method}
    settings |= {"infer_endpoint": infer_endpoint}
    return edit_files.write(
        folder,
        (edit_files.slug(ends[0]), edit_files.slug(ends[1]), method),
        np.concatenate([shown[0], decoded, shown[1]], axis=1),
        {"z": z, "images": to_uint8(decoded), "first": pictures[0], "second": pictures[1]},
        edit_files.about(config, model, "interpolate") | settings,
    )


def _ends(first: str | None, second: str | None) -> tuple[list[str], list[str]]:
    """Returns the names of the pictures on both ends."""
    if not first or not second:
        raise ConfigError(
            "--mode=interpolate needs --first and --second: image files, or items such as test:17."
        )
    ends = edit_files.split_names(first), edit_files.split_names(second)
    if len(ends[0]) != len(ends[1]):
        raise ConfigError(
            f"--first names {len(ends[0])} pictures and --second {len(ends[1])}: give as many."
        )
    return ends
