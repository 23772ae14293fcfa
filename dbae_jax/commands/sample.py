"""Samples images from a model's latent prior into files.

Image i depends on the seed and i alone. A run that was stopped resumes with the missing files.
"""

import logging
import pathlib

from dbae_jax.commands import trained_model
from dbae_jax.configuration.config import Config
from dbae_jax.evaluation import sample_files
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
    """Samples those of the images 0 ... num - 1 that have no file yet.

    The files are described in `sample_files`.

    Args:
      config: config of the run. Its section `sample` and its keys `prior.sampler` and
        `prior.sample_steps` apply.
      directory: the workdir.
      num: number of images.
      out: folder for the files; default "samples" in the workdir.
      file_format: "png" or "npz".
      seed: seed of the images.

    Returns:
      The folder.

    Raises:
      CheckpointError: if the workdir holds no model, or its model has no latent prior.
      ConfigError: if the config does not fit the model, or the folder cannot be written or holds
        different images.
    """
    out = directory / FOLDER if out is None else out
    files.check_folder(out, "--out")
    model = trained_model.open_model(config, directory).model
    how = sample_files.how(config)
    sample_files.sample(model, out, num=num, how=how, file_format=file_format, seed=seed)
    log.info("%d sampled images of seed %d are in %s.", num, seed, out)
    return out
