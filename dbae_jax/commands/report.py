"""Writes a single HTML file about the model of a workdir, or about those of two."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import trained_model
from dbae_jax.configuration.config import Config
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import results
from dbae_jax.report import about, page
from dbae_jax.report.comparison import content
from dbae_jax.report.contents import Amounts, make_page
from dbae_jax.runtime import files
from dbae_jax.workdirs import records, workdir

log = logging.getLogger(__name__)

COMPARISON = "comparison.html"


def report(
    config: Config,
    directory: pathlib.Path,
    *,
    config_path: str = "CONFIG",
    overrides: Mapping[str, Any] | None = None,
    amounts: Amounts | None = None,
    model: DBAE | None = None,
    compare: pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes the report of the model of a workdir, with its EMA weights.

    With `compare`, it writes a page that compares the model with that of a different workdir.

    Args:
      config: sections "model" and "data" must match the run's; "sample", "prior" and "eval"
        control the page.
      directory: the workdir.
      config_path: file name of the config, for the commands on the page.
      overrides: keys of `config` that differ from this file, and their values, for the commands.
      amounts: numbers of images. Default: by the image size.
      model: the model of the workdir, if it was opened with this config already. A comparison does
        not use it.
      compare: a different workdir, or None.

    Returns:
      The path of the file.

    Raises:
      CheckpointError: if a workdir holds no model.
      ConfigError: if the workdir holds a different model or cannot be written.
      DataError: if data are missing, or results.json holds no results of an evaluation.
    """
    files.check_folder(directory, "--workdir")
    files.check_file(directory / (workdir.REPORT if compare is None else COMPARISON))
    if compare is not None:
        return _compare(config, directory, compare)
    if model is None:
        model = trained_model.open_model(config, directory, whole_batches=True).model
    measured = results.read(directory)
    context = trained_model.make_context(model, directory)
    command = about.Command(config_path, directory, overrides or {})
    amounts = amounts or Amounts.of_size(config.data.image_size)
    text = page.render(make_page(context, directory, measured, command, amounts))
    return _write(directory / workdir.REPORT, text)


def _compare(config: Config, directory: pathlib.Path, other: pathlib.Path) -> pathlib.Path:
    """Writes the page that compares the models of two workdirs into the first."""
    if other.resolve() == directory.resolve():
        raise ConfigError(f"--compare={other} is the workdir itself; name a different workdir.")
    names = (directory.name, other.name)
    if names[0] == names[1]:
        names = (str(directory), str(other))
    first = _run(names[0], directory, config)
    second = _run(names[1], other, None)
    context = trained_model.make_context(first.model, directory)
    made = content.compare(first, second, context)
    return _write(directory / COMPARISON, content.render(made))


def _run(name: str, directory: pathlib.Path, config: Config | None) -> content.Run:
    """Returns what the page needs of a run; without a config, that of its training."""
    model, _, data = trained_model.open_model(config, directory)
    return content.Run(
        name,
        model.config,
        model,
        records.read(directory),
        results.read(directory),
        data,
    )


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
    files.write_text(path, text)
    log.info("Wrote the report (%.1f MB) to %s.", len(text) / 1e6, path)
    return path
