"""Runs suites of measurements on a trained model and writes results.json.

A suite that was measured with the current settings is not measured again. results.json is written
after each suite. The model may be measured on data that it was not trained on, if the images have
its size and channels.
"""

import logging
import pathlib
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import jax

from dbae_jax.api.dbae import DBAE
from dbae_jax.api.directions import CACHE
from dbae_jax.commands import trained_model
from dbae_jax.commands.trained_model import OF_MODEL, Opened
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data import identity
from dbae_jax.errors import ConfigError, TooFewError
from dbae_jax.evaluation import pictures, results, summary
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.registry import SUITES, asked_for
from dbae_jax.evaluation.results import Book
from dbae_jax.runtime import files, processes
from dbae_jax.workdirs import lock, workdir

# Keys that identify the data of a run.
OF_DATA = (
    *("data.name", "data.crop", "data.background"),
    *("data.train_split", "data.test_split"),
)

TRAJECTORIES = 4  # images in trajectory.png, with two rows each

log = logging.getLogger(__name__)


def evaluate(
    config: Config, directory: pathlib.Path, *, report: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """Measures the model of a workdir with its EMA weights, and writes results.json.

    The suite "reconstruction" also writes reconstructions.png and trajectory.png, if the data are
    those of the training and the results have no label.

    Args:
      config: config that fits the run's model; its sections `data`, `sample` and `eval` apply.
      directory: the workdir.
      report: writes a report after the measurements; called with the keyword argument `model`, so
        that it uses the programs that are compiled already. A report needs the data settings of
        the training and a file that can be written, so both are checked before any measurement.

    Returns:
      The requested suites -> their entries in results.json.

    Raises:
      CheckpointError, ConfigError, DataError: if the workdir holds no such model, or a requested
        suite cannot be measured, or the workdir cannot be written; raised before any measurement.
      TooFewError: if a suite that the config names itself needs more images than there are.
    """
    names = asked_for(config.eval.suite)
    files.check_folder(directory, "--workdir")
    workdir.check_exists(directory)
    if report is not None:
        files.check_file(directory / workdir.REPORT)
    same_keys = OF_MODEL if report is None else workdir.FIXED_SECTIONS
    with lock.held(directory / CACHE):
        opened = trained_model.open_model(config, directory, same_keys, whole_batches=True)
        entries = _evaluate(config, directory, names, opened)
    if report is not None:
        report(model=opened.model)
    return entries


def _evaluate(
    config: Config, directory: pathlib.Path, names: dict[str, bool], opened: Opened
) -> dict[str, Any]:
    model, trained, trained_on = opened
    context = trained_model.make_context(model, directory)
    same_data = not workdir.differing(to_dict(trained), config, OF_DATA)
    _tell_data(context, trained_on if same_data else None)
    plan = settings_by_suite(context, names)
    book = Book(directory, _about(directory, model))
    pending = _pending(book, context, plan)
    for name in list(pending):
        try:
            _measure(context, book, name, plan[name])
        except TooFewError as error:
            if names[name]:
                raise
            log.warning("The suite %s does not apply: %s", name, error)
            pending.remove(name)

    if "reconstruction" in plan and same_data and not config.eval.label:
        _paint(context, directory, measured_now="reconstruction" in pending)
    entries = _entries(book, context, plan)
    summary.report(entries)
    log.info("The results are in %s.", directory / results.FILE)
    return entries


def _tell_data(context: Context, trained_on: dict[str, Any] | None) -> None:
    """Logs what the splits hold, and warns if the model was trained on other images.

    Args:
      context: model and data.
      trained_on: identity of the training images; None if it is not known, or if the model was
        trained on a data set other than that of the config.
    """
    found = context.identities
    for split, data in found.items():
        log.info("%s, %s: %s.", context.config.data.name, split, identity.describe(data))
    if trained_on and identity.differences(trained_on, found["train"]):
        log.warning(
            "The model was trained on %s. The training images of the config differ from these.",
            identity.describe(trained_on),
        )


def settings_by_suite(context: Context, names: dict[str, bool]) -> dict[str, dict[str, Any]]:
    """Returns suite -> the settings that determine its results, for the suites that apply.

    Args:
      context: model and data.
      names: suites, see `asked_for`. A suite that is only part of a group may not apply.

    Raises:
      ConfigError: if a suite that the config names itself does not apply.
      DBAEError: if something that a suite needs is missing.
    """
    plan = {}
    for name, named in names.items():
        reason = SUITES[name].obstacle(context)
        if reason and named:
            raise ConfigError(f"config.eval.suite names {name!r}, which does not apply: {reason}.")
        if reason:
            log.info("The suite %s does not apply: %s.", name, reason)
            continue
        plan[name] = context.settings() | SUITES[name].settings(context)
    return plan


def _about(directory: pathlib.Path, model: DBAE) -> dict[str, Any]:
    """Returns the block "model" of results.json."""
    return {
        "step": model.step,
        "weights": "ema",
        "fingerprint": model.fingerprint,
        "latent_dim": model.config.model.latent_dim,
        "image_size": model.config.data.image_size,
        "stochastic": model.config.model.stochastic,
        "endpoint": model.config.bridge.endpoint,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"])),
        **summary.training_record(directory),
    }


def _key(context: Context, suite: str) -> str:
    return results.name_of(suite, context.config.data.name, context.config.eval.label)


def _entries(book: Book, context: Context, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    keys = {name: _key(context, name) for name in names}
    return {name: book.entries[key] for name, key in keys.items() if key in book.entries}


def _pending(book: Book, context: Context, plan: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the suites without a valid entry; the same suites on every process of a run."""
    done = [name for name in plan if book.has(_key(context, name), plan[name])]
    if not processes.agree(zlib.crc32(",".join(done).encode()) & 0x7FFFFFFF):
        done = []  # the processes see different files
    for name in done:
        log.info(
            "%s has been measured with the same settings already; its results are kept.",
            _key(context, name),
        )
    return [name for name in plan if name not in done]


def _measure(context: Context, book: Book, name: str, settings: dict[str, Any]) -> None:
    suffix = f", label {context.config.eval.label}" if context.config.eval.label else ""
    log.info(
        "Measuring the suite %s on %s (%d test images)%s.",
        *(name, context.config.data.name, context.limit("test"), suffix),
    )
    begun = time.monotonic()
    measured = SUITES[name].measure(context)
    seconds = time.monotonic() - begun
    book.add(
        name,
        context.config.data.name,
        settings,
        measured,
        seconds=seconds,
        label=context.config.eval.label,
    )


def _paint(context: Context, directory: pathlib.Path, *, measured_now: bool) -> None:
    """Writes the figures if reconstructions were measured now or a figure is missing."""
    paths = [directory / "reconstructions.png"]
    if not is_distilled(context.model.config):  # whose states follow neither the ODE nor the SDE
        paths.append(directory / "trajectory.png")
    # All processes make the figures together, so one process decides for all.
    exist = processes.from_writer(lambda: all(path.exists() for path in paths))
    if exist and not measured_now:
        return
    images = context.images("test", context.config.eval.num_pictures)
    pictures.reconstructions(paths[0], context.model, images, context.config.sample)
    for path in paths[1:]:
        pictures.trajectories(path, context.model, images[:TRAJECTORIES])
