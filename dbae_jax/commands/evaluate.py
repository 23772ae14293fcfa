"""--mode=evaluate: runs suites of measurements on a trained model, into results.json.

A suite that is measured already, with the settings of now, is not measured again; results.json is
written after each. The model may be measured on other data than it was trained on, if only the
images have its size and channels.
"""

import logging
import pathlib
import time
import zlib
from typing import Any

import jax

from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.errors import ConfigError, TooFewError
from dbae_jax.evaluation import pictures, results, summary
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.registry import SUITES, asked_for
from dbae_jax.evaluation.results import Book
from dbae_jax.runtime import files, processes
from dbae_jax.workdirs import workdir

# Keys that tell the data of the run from others.
OF_DATA = ("data.name", "data.crop", "data.train_split", "data.test_split")

log = logging.getLogger(__name__)


def evaluate(config: Config, directory: pathlib.Path) -> dict[str, Any]:
    """Measures and shows the model of a workdir, with its averaged weights.

    Writes results.json into the workdir. If the suite "reconstruction" was asked for, on the data
    that the run was trained on and without a label, it also writes reconstructions.png and
    trajectory.png.

    Args:
      config: must fit the run's model; `data`, `sample` and `eval` are followed.
      directory: the workdir.

    Returns:
      Suite -> its entry in results.json, of the suites that were asked for.

    Raises:
      CheckpointError, ConfigError, DataError: if the workdir holds no model, or another one, or
        what is asked for cannot be measured, or kept; before anything is.
      TooFewError: if a suite that was named by itself is of more images than there are.
    """
    names = asked_for(config.eval.suite)
    files.check_folder(directory, "--workdir")
    model, trained = trained_model.open_model(config, directory, OF_MODEL)
    context = trained_model.make_context(model, directory)
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

    same_data = not workdir.differing(to_dict(trained), config, OF_DATA)
    if "reconstruction" in plan and same_data and not config.eval.label:
        _paint(context, directory, measured_now="reconstruction" in pending)
    entries = _entries(book, context, plan)
    summary.report(entries)
    log.info("%s is in %s.", results.FILE, directory)
    return entries


def settings_by_suite(context: Context, names: dict[str, bool]) -> dict[str, dict[str, Any]]:
    """Returns suite -> what determines its numbers, of those that can be measured.

    Args:
      context: model and data.
      names: as `asked_for` gives them; those not named by themselves are passed over if they
        do not apply.

    Raises:
      ConfigError: if a suite that was named by itself does not apply.
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


def _entries(book: Book, context: Context, names: Any) -> dict[str, dict[str, Any]]:
    keys = {name: _key(context, name) for name in names}
    return {name: book.entries[key] for name, key in keys.items() if key in book.entries}


def _pending(book: Book, context: Context, plan: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the suites without a valid entry; the same ones on every process of a run."""
    done = [name for name in plan if book.has(_key(context, name), plan[name])]
    if not processes.agree(zlib.crc32(",".join(done).encode()) & 0x7FFFFFFF):
        done = []  # they see different files
    for name in done:
        log.info("%s is measured already.", _key(context, name))
    return [name for name in plan if name not in done]


def _measure(context: Context, book: Book, name: str, settings: dict[str, Any]) -> None:
    log.info("Measuring %s.", _key(context, name))
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
    """Draws the images of reconstructions that were measured now, and those that are missing."""
    paths = [directory / name for name in ("reconstructions.png", "trajectory.png")]
    # Drawing is work of all processes: what one of them sees holds for all.
    there = processes.from_writer(lambda: all(path.exists() for path in paths))
    if there and not measured_now:
        return
    images = context.images("test", context.config.eval.num_pictures)
    pictures.reconstructions(paths[0], context.model, images, context.config.sample)
    pictures.trajectories(paths[1], context.model, images)
