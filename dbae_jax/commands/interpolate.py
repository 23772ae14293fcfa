"""Interpolates between images that the command line names, into files."""

import functools
import pathlib
from typing import Any

import numpy as np

from dbae_jax.api import edits
from dbae_jax.commands import edit_files, named_pictures, trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration import paths
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
    """Decodes interpolated latent codes of pairs of images.

    Args:
      config: config that fits the run's model; its section `sample` applies.
      directory: the workdir.
      first: names of images, separated by commas, see `named_pictures.read`.
      second: names of as many images.
      points: codes per pair, including the codes of both images.
      method: "linear" or "spherical".
      infer_endpoint: infers a Gaussian x_T from the images, see `DBAE.interpolate`.
      out: folder for the files; default "edits" in the workdir.

    Returns:
      The PNG with one row per pair: the first image, `points` decoded images, the second image.

    Raises:
      ConfigError, DataError: if an argument or image is not valid.
      CheckpointError: if the workdir holds no model.
    """
    pairs = _pairs(first, second)
    _check(config, points, infer_endpoint=infer_endpoint)
    folder = edit_files.check_folder(directory, out)
    model = trained_model.open_model(config, directory, OF_MODEL).model
    splits = functools.partial(trained_model.open_splits, config)
    first_images, second_images = (
        named_pictures.read_all(names, config.data, splits) for names in pairs
    )
    seed = noise_seed(config.sample, free=model.gaussian_endpoint)
    z, x_T = edits.latent_paths(
        model, first_images, second_images, points, method, infer_endpoint=infer_endpoint
    )
    decoded = edits.decode_rows(model, z, x_T, rng=seed, plan=config.sample)
    shown = [np.asarray(to_float(some))[:, None] for some in (first_images, second_images)]
    labels = [
        f"{edit_files.short(one)}\nto {edit_files.short(other)}"
        for one, other in zip(*pairs, strict=True)
    ]
    rows = np.concatenate([shown[0], decoded, shown[1]], axis=1)
    settings: dict[str, Any] = {"first": pairs[0], "second": pairs[1], "points": points}
    settings |= {"method": method, "infer_endpoint": infer_endpoint}
    return edit_files.write(
        folder,
        (edit_files.slug(pairs[0]), edit_files.slug(pairs[1]), method),
        list(zip(labels, rows, strict=True)),
        {"z": z, "images": to_uint8(decoded), "first": first_images, "second": second_images},
        edit_files.about(config, model, "interpolate") | settings,
        columns=["first", *(f"{100 * a:.0f}%" for a in np.linspace(0, 1, points)), "second"],
    )


def _check(config: Config, points: int, *, infer_endpoint: bool) -> None:
    """Raises ConfigError for arguments that the model does not allow."""
    if points < 2:
        raise ConfigError(f"--points={points} is not allowed: it must be 2 or more.")
    if infer_endpoint and config.bridge.endpoint != "free":
        raise ConfigError(
            "--infer_endpoint needs a model with a Gaussian x_T (config.bridge.endpoint='free'): "
            "this model decodes x_T from z."
        )


def _pairs(first: str | None, second: str | None) -> tuple[list[str], list[str]]:
    """Returns the names of the first images and of the second images."""
    if not first or not second:
        raise ConfigError(
            "interpolate needs --first and --second: image files, or images of the data set "
            "such as test:17."
        )
    pairs = paths.split(first), paths.split(second)
    if len(pairs[0]) != len(pairs[1]):
        raise ConfigError(
            f"--first names {len(pairs[0])} images and --second {len(pairs[1])}: name equally many."
        )
    return pairs
