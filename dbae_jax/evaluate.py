"""Evaluates a trained model: suites of measurements to results.json, a digest, pictures.

A suite that is measured already, with the settings of now, is not measured again; results.json is
written after each. The model may be measured on other data than it was trained on, if only the
images have its size and channels.
"""

import dataclasses
import functools
import logging
import pathlib
import time
import zlib
from typing import Any

import jax

from dbae_jax import digest, files, prior, processes, results, sharding, summaries, workdir
from dbae_jax.api import DBAE
from dbae_jax.config import Config, to_dict
from dbae_jax.data import registry
from dbae_jax.errors import ConfigError, TooFewError
from dbae_jax.evaluators import (
    disentanglement_suite,
    editing,
    generation_suite,
    information,
    pictures,
    probe,
    reconstruction,
)
from dbae_jax.evaluators.context import Context, Suite
from dbae_jax.results import Book
from dbae_jax.workdir import Loaded

# What --config.eval.suite may name, in the order in which they are measured.
SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "information": information.SUITE,
    "probe": probe.SUITE,
    "disentanglement": disentanglement_suite.SUITE,
    "generation": generation_suite.SUITE,
    "editing": editing.SUITE,
}
# Groups of them, of which those are measured that apply.
GROUPS = {"default": ("reconstruction", "information", "probe"), "all": tuple(SUITES)}

CACHE = "evaluation"  # folder of the workdir for codes
OF_MODEL = ("model.", "bridge.", "data.image_size", "data.channels")  # keys that must agree
# Keys that tell the data of the run from others.
OF_DATA = ("data.name", "data.crop", "data.train_split", "data.test_split")

log = logging.getLogger(__name__)


def evaluate(config: Config, directory: pathlib.Path) -> dict[str, Any]:
    """Measures and shows the model of a workdir, with its averaged weights.

    Writes results.json into the workdir; and, if the data are those the run was trained on and
    the results have no label, summary.json, loss_curve.png, and the pictures of the suites that
    `config.eval.suite` names: reconstructions.png, interpolation.png, trajectory.png;
    loss_by_time.png.

    Args:
      config: must fit the run's model; `data`, `sample` and `eval` are followed.
      directory: the workdir.

    Returns:
      The digest, see `digest.summary`.

    Raises:
      CheckpointError, ConfigError, DataError: if the workdir holds no model, or another one, or
        what is asked for cannot be measured, or kept; before anything is.
      TooFewError: if a suite that was named by itself is of more images than there are.
    """
    names = asked_for(config.eval.suite)
    files.check_folder(directory, "--workdir")
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    workdir.check_same_model(directory, to_dict(loaded.config), config, OF_MODEL)
    context = make_context(config, directory, loaded, mesh)
    plan = make_plan(context, names)
    book = Book(directory, _about(directory, loaded, context.model))
    pending = _pending(book, context, plan)
    for name in list(pending):
        try:
            _measure(context, book, name, plan[name])
        except TooFewError as error:
            if names[name]:
                raise
            log.warning("The suite %s does not apply: %s", name, error)
            pending.remove(name)

    entries = _entries(book, context, SUITES)
    summary = digest.summary(book.model, entries)
    labelled = bool(config.eval.label)  # beside the results that the digest is of
    if not labelled and not workdir.differing(to_dict(loaded.config), config, OF_DATA):
        digest.write(directory, summary)
        _paint(context, directory, entries, pending)
    digest.report(_entries(book, context, plan))
    log.info("%s is in %s.", results.FILE, directory)
    return summary


def asked_for(suites: str) -> dict[str, bool]:
    """Returns the names of suites in the order of `SUITES`: whether each was named by itself.

    Args:
      suites: names of suites or of groups of them, with commas between.

    Raises:
      ConfigError: for an unknown name, or none.
    """
    words = [word.strip() for word in suites.split(",") if word.strip()]
    for word in words or [suites]:
        if word not in SUITES and word not in GROUPS:
            raise ConfigError(
                f"config.eval.suite={suites!r} is not allowed: {word!r} is no suite; there are "
                f"{', '.join(SUITES)}, and the groups {' and '.join(GROUPS)}."
            )
    grouped = {name for word in words for name in GROUPS.get(word, ())}
    return {name: name in words for name in SUITES if name in words or name in grouped}


def make_context(
    config: Config, directory: pathlib.Path, loaded: Loaded, mesh: jax.sharding.Mesh
) -> Context:
    """Returns the model on all devices, with the splits of the config's data."""
    weights = {"step": loaded.step, "weights": "ema"}
    model = DBAE(
        config,
        loaded.variables,
        mesh=mesh,
        step=loaded.step,
        load_prior=functools.partial(prior.load, directory, weights, mesh=mesh),
    )
    splits = {split: registry.make_source(config.data, split) for split in ("train", "test")}
    if config.eval.validation_split:
        named = dataclasses.replace(config.data, test_split=config.eval.validation_split)
        splits["validation"] = registry.make_source(named, "test")
    return Context(model, config, splits, cache=directory / CACHE)


def make_plan(context: Context, names: dict[str, bool]) -> dict[str, dict[str, Any]]:
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


def _about(directory: pathlib.Path, loaded: Loaded, model: DBAE) -> dict[str, Any]:
    """Returns the block "model" of results.json."""
    return {
        "step": loaded.step,
        "weights": "ema",
        "fingerprint": model.fingerprint,
        "latent_dim": loaded.config.model.latent_dim,
        "image_size": loaded.config.data.image_size,
        "stochastic": loaded.config.model.stochastic,
        "endpoint": loaded.config.bridge.endpoint,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(loaded.variables["params"])),
        **digest.training_record(directory),
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


def _paint(
    context: Context,
    directory: pathlib.Path,
    entries: dict[str, dict[str, Any]],
    pending: list[str],
) -> None:
    """Shows what was measured now, and what was before if its pictures are not there."""

    def shown(suite: str, *names: str) -> list[pathlib.Path] | None:
        paths = [directory / f"{name}.png" for name in names]
        # Painting is work of all processes: what one of them sees holds for all.
        there = processes.from_writer(lambda: all(path.exists() for path in paths))
        return paths if suite in pending or (suite in entries and not there) else None

    config, model = context.config, context.model
    pictures.loss_curve(directory / "loss_curve.png", summaries.read(directory))
    if paths := shown("information", "loss_by_time"):
        details = entries["information"]["scores"]["unexplained_bits_per_dim"]["details"]
        pictures.loss_by_time(*paths, details["curves"])
    if paths := shown("reconstruction", "reconstructions", "trajectory", "interpolation"):
        number = config.eval.num_pictures
        images, labels = context.some("test", 4 * number)
        pictures.reconstructions(paths[0], model, images[:number], config.sample)
        pictures.trajectories(paths[1], model, images[:number])
        pictures.interpolation(paths[2], model, images, labels, config.sample)
