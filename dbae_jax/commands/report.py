"""--mode=report: writes a single HTML file that shows and describes the model of a workdir."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from dbae_jax.commands import trained_model
from dbae_jax.configuration.config import Config
from dbae_jax.evaluation import results
from dbae_jax.report import about, page
from dbae_jax.report.contents import Amounts, make_page
from dbae_jax.runtime import files

log = logging.getLogger(__name__)

FILE = "report.html"


def report(
    config: Config,
    directory: pathlib.Path,
    *,
    config_path: str = "CONFIG",
    overrides: Mapping[str, Any] | None = None,
    amounts: Amounts | None = None,
) -> pathlib.Path:
    """Writes the report of the model of a workdir, with its EMA weights.

    Args:
      config: sections "model" and "data" must match the run's; "sample", "prior" and "eval"
        control the page.
      directory: the workdir.
      config_path: file name of the config, for the commands on the page.
      overrides: keys of `config` that differ from this file, and their values, for the commands.
      amounts: numbers of images. Default: by the image size.

    Returns:
      The path of the file.

    Raises:
      CheckpointError: if the workdir holds no model.
      ConfigError: if the workdir holds a different model or cannot be written.
      DataError: if data are missing, or results.json holds no results of an evaluation.
    """
    files.check_folder(directory, "--workdir")
    model, _ = trained_model.open_model(config, directory)
    measured = results.read(directory)
    context = trained_model.make_context(model, directory)
    command = about.Command(config_path, directory, overrides or {})
    path = directory / FILE
    amounts = amounts or Amounts.of_size(config.data.image_size)
    content = page.render(make_page(context, directory, measured, command, amounts))
    files.write_text(path, content)
    log.info("Wrote the report (%.1f MB) to %s.", len(content) / 1e6, path)
    return path
