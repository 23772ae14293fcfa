"""Edits an attribute of the images that the command line names, into files."""

import math
import pathlib
from typing import Any

import numpy as np

from dbae_jax import editing
from dbae_jax.api import edits
from dbae_jax.commands import edit_files, named_pictures, trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration import paths
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import attribute_directions
from dbae_jax.evaluation.suites.reconstruction import noise_seed

NEEDED = (
    "edit needs --attribute (the name of an attribute or class) and --image (image files, or "
    "images of the data set such as test:17)."
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
    """Decodes images from latent codes that are moved along an attribute's direction.

    Args:
      config: config that fits the run's model. Its section `sample` and its keys
        `eval.num_probe_images` and `eval.normalise_codes` apply; its data determine the direction.
      directory: the workdir.
      attribute: name of an attribute of the data, or of a class.
      image: names of images, separated by commas, see `named_pictures.read`.
      scales: scales of the edit, as they were written.
      fix_endpoint: holds the x_T of each image fixed; a Gaussian x_T is inferred first.
      out: folder for the files; default "edits" in the workdir.

    Returns:
      The PNG with one row per image: the image, and its edits in the order of the scales.

    Raises:
      ConfigError, DataError: if an argument, image or attribute is not valid.
      CheckpointError: if the workdir holds no model.
    """
    if not attribute or not image:
        raise ConfigError(NEEDED)
    names, numbers = paths.split(image), parse_scales(scales)
    folder = edit_files.check_folder(directory, out)
    opened = trained_model.open_model(config, directory, OF_MODEL).model
    context = trained_model.make_context(opened, directory)
    attribute_directions.check(context, attribute)
    model, sample = context.model, config.sample
    images = named_pictures.read_all(names, config.data, lambda: context.splits)
    step = attribute_directions.find(context, [attribute]).step(attribute)
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    z = model.encode(images)
    x_T = edits.endpoint_before_edit(model, images, z) if fix_endpoint else None
    moved = editing.moved(z, step, numbers)
    edited = edits.decode_rows(model, moved, x_T, rng=seed, plan=sample)
    shown = np.asarray(to_float(images))[:, None]
    settings: dict[str, Any] = {"attribute": attribute, "image": names, "scales": numbers}
    settings |= {"fix_endpoint": fix_endpoint, "normalise_codes": config.eval.normalise_codes}
    settings |= {"training_images": context.limit("train")}
    return edit_files.write(
        folder,
        (
            edit_files.slug([attribute]),
            edit_files.slug(names),
            "fixed" if fix_endpoint else "following",
        ),
        [
            (f"{edit_files.short(name)}\n{attribute}", row)
            for name, row in zip(names, np.concatenate([shown, edited], axis=1), strict=True)
        ],
        {"z": moved, "step": step, "images": to_uint8(edited), "before": images},
        edit_files.about(config, model, "edit") | context.settings() | settings,
        columns=["image", *(f"{number:+g}" for number in numbers)],
    )


def parse_scales(texts: list[str]) -> list[float]:
    """Returns the numbers of --scales.

    Raises:
      ConfigError: if a scale is not a finite number, or there is none.
    """
    numbers = []
    for text in texts or [""]:
        try:
            numbers.append(float(text))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise ConfigError(
                f"--scales={','.join(texts)} is not allowed: {text!r} is not a finite number; an "
                "example is --scales=-0.3,0,0.3."
            )
    return numbers
