"""Draws images from a model's prior into files.

Image i is a function of (seed, i): its file is the same whatever else is drawn with it, and a run
that was stopped goes on with the files that are missing.
"""

import logging
import pathlib

from dbae_jax.api import sample_files
from dbae_jax.commands import trained_model
from dbae_jax.configuration.config import Config
from dbae_jax.runtime import files

FOLDER = "samples"  # default, in the workdir

log = logging.getLogger(__name__)


def sample(
    config: Config,
    directory: pathlib.Path,
    *,
    num: int,
    out: pathlib.Path | None = None,
    file_format: str = "png",
    seed: int = 0,
) -> pathlib.Path:
    """Draws images 0 ... num - 1 of a seed, those that have no file yet.

    Writes samples.json (what they were drawn with), grid.png (the first 64), and 000000.png, ...
    or 000000-000255.npz, ... with `images` [n, H, W, C], uint8, `index` [n] and `seed`.

    Args:
      config: must fit the run's; `sample`, `prior.sampler` and `prior.sample_steps` are followed.
      directory: the workdir.
      num: of images.
      out: folder for the files; default "samples" in the workdir.
      file_format: "png" or "npz".
      seed: of the images.

    Returns:
      `out`.

    Raises:
      CheckpointError: if the workdir holds no model, or one without a prior.
      ConfigError: if it holds another model, or `out` other images or no place for files.
    """
    out = directory / FOLDER if out is None else out
    files.check_folder(out, "--out")
    model, _ = trained_model.open_model(config, directory)
    how = sample_files.how(config)
    sample_files.draw(model, out, num=num, how=how, file_format=file_format, seed=seed)
    log.info("%d images of seed %d are in %s.", num, seed, out)
    return out
