"""--mode=report: writes the report of a workdir's model, one HTML file that opens from disk."""

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
    """Shows the model of a workdir, with its averaged weights, on one page.

    Args:
      config: must fit the run's, its data too; `sample`, `prior` and `eval` are followed.
      directory: the workdir.
      config_path: name of the config's file, for the commands that the page names.
      overrides: keys of `config` that differ from that file, and their values, likewise.
      amounts: of what is shown; default by the size of images.

    Returns:
      The file.

    Raises:
      CheckpointError, ConfigError: if the workdir holds no model, or another one, or cannot be
        written.
      DataError: if the data are not there, or results.json is not one of ours.
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
    log.info("The report, %.1f MB, is %s.", len(content) / 1e6, path)
    return path
