"""Interpolations and edits of pictures named on the command line, as files.

Each call writes three files of one name into a folder, WORKDIR/edits or --out: a PNG, a row a
picture, the picture itself first; an .npz with codes and images; a .json with the settings, to
which the model's fingerprint and the data belong. The name ends with a digest of the settings: the
same call again replaces its files; one of another model, other data or arguments does not.
"""

import logging
import math
import pathlib

import numpy as np

from dbae_jax import editing
from dbae_jax.api import edits
from dbae_jax.commands import edit_files, named_pictures, trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import attribute_directions
from dbae_jax.evaluation.suites.reconstruction import noise_seed

log = logging.getLogger(__name__)


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
    names, numbers = edit_files.split_names(image), parse_scales(scales)
    folder = edit_files.check_folder(directory, out)
    opened, _ = trained_model.open_model(config, directory, OF_MODEL)
    context = trained_model.make_context(opened, directory)
    attribute_directions.check(context, attribute)
    model, sample = context.model, config.sample
    pictures = named_pictures.read_all(names, config.data, lambda: context.splits)
    step = attribute_directions.find(context, [attribute]).step(attribute)
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    z = model.encode(pictures)
    x_T = edits.endpoint_before_edit(model, pictures, z) if fix_endpoint else None
    there = editing.moved(z, step, numbers)
    edited = edits.decode_rows(model, there, x_T, rng=seed, plan=sample)
    shown = np.asarray(to_float(pictures))[:, None]
    settings = {"attribute": attribute, "image": names, "scales": numbers}
    settings |= {"fix_endpoint": fix_endpoint, "normalise_codes": config.eval.normalise_codes}
    settings |= {"training_images": context.limit("train")}
    return edit_files.write(
        folder,
        (
            edit_files.slug([attribute]),
            edit_files.slug(names),
            "fixed" if fix_endpoint else "following",
        ),
        np.concatenate([shown, edited], axis=1),
        {"z": there, "step": step, "images": to_uint8(edited), "before": pictures},
        edit_files.about(config, model, "edit") | context.settings() | settings,
    )


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
