"""Writes the report of a workdir's model: one HTML file that opens from disk."""

import dataclasses
import logging
import pathlib

import numpy as np

from dbae_jax import build, files, prior, results, sharding, summaries, workdir
from dbae_jax.api import DBAE
from dbae_jax.config import Config, to_dict
from dbae_jax.data.sources import gather, read
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluators import pictures
from dbae_jax.report import about, curves, directions, films, page, stills, tables
from dbae_jax.report.curves import Drawn
from dbae_jax.report.films import Film
from dbae_jax.report.frames import Strip
from dbae_jax.report.page import Page
from dbae_jax.report.tables import Missing

FILE = "report.html"
WALK_STEPS = 50
FARTHEST = 1.5  # of an edit, in distances between the means of two groups
MAX_TRAIN_IMAGES = 5_000  # that edits are learned from

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much is shown: less of large images, so that the page stays below 15 MB."""

    among: int = 128  # images of which the worst reconstructions are shown
    worst: int = 4
    pairs: int = 6
    points: int = 17  # frames of an interpolation
    edited: int = 6  # images that a slider edits
    scales: int = 11  # frames of an edit
    directions: int = 12
    walks: int = 3
    every: int = 2  # steps a frame of a walk; a divisor of WALK_STEPS
    samples: int = 60


LARGE_FROM = 128  # pixels
LARGE = Amounts(among=32, pairs=4, points=11, edited=3, scales=9, every=5, samples=36)


def report(
    config: Config,
    directory: pathlib.Path,
    *,
    config_path: str = "CONFIG",
    amounts: Amounts | None = None,
) -> pathlib.Path:
    """Shows the model of a workdir, with its averaged weights, on one page.

    Args:
      config: must fit the run's; `data`, `sample`, `prior` and `eval` are followed.
      directory: the workdir.
      config_path: name of the config's file, for the commands that the page names.
      amounts: of what is shown; default by the size of images.

    Returns:
      The file.

    Raises:
      CheckpointError, ConfigError: if the workdir holds no model, or another one.
      DataError: if the data are not there, or results.json is not one of ours.
    """
    mesh = sharding.make_mesh()
    model = DBAE.load(directory, batch_size=config.eval.batch_size, mesh=mesh)
    workdir.check_same_model(directory, to_dict(model.config), config)
    measured = results.read(directory)
    command = about.Command(config_path, directory)
    path = directory / FILE
    if amounts is None:
        amounts = LARGE if config.data.image_size >= LARGE_FROM else Amounts()
    content = page.render(make_page(config, directory, model, measured, command, amounts))
    files.write_text(path, content)
    log.info("The report, %.1f MB, is %s.", len(content) / 1e6, path)
    return path


def make_page(
    config: Config,
    directory: pathlib.Path,
    model: DBAE,
    measured: dict | None,
    command: about.Command,
    amounts: Amounts,
) -> Page:
    """Makes all pictures, charts and tables; `measured`: results.json, or None."""
    held_out = build.make_source(config.data, "test")
    images, labels = gather(held_out, max(amounts.among, 4 * config.eval.num_pictures))
    rows, entries = summaries.read(directory), about.current(measured, model.step)
    charts, uncharted = _charts(config, directory, rows, entries, command)
    edits, edits_note = _edits(config, model, images, amounts)
    samples, samples_note = _samples(config, model, amounts, command)
    return Page(
        title=f"A diffusion bridge autoencoder of {config.data.name}",
        lead=about.lead(config, model, held_out=len(held_out)),
        image_size=config.data.image_size,
        sampler=about.sampler(config, model),
        figures=about.figures(config, model, entries, rows),
        reconstructions=_reconstructions(config, model, images, amounts),
        interpolation=_interpolation(config, model, images, labels, amounts),
        edits=edits,
        edits_note=edits_note,
        trajectory=_trajectories(model, images, amounts),
        samples=samples,
        samples_note=samples_note,
        charts=charts,
        uncharted=uncharted,
        tables=tables.scores(entries),
        unmeasured=about.unmeasured(measured, model.step, command),
        provenance=about.provenance(config, directory, model, command),
        settings=tables.settings(to_dict(config)),
    )


def _reconstructions(
    config: Config, model: DBAE, images: np.ndarray, amounts: Amounts
) -> stills.Reconstructions:
    images = images[: amounts.among]
    log.info("Reconstructing %d held-out images.", len(images))
    return stills.reconstructions(
        model, images, config.sample, first=config.eval.num_pictures, worst=amounts.worst
    )


def _interpolation(
    config: Config, model: DBAE, images: np.ndarray, labels: np.ndarray | None, amounts: Amounts
) -> Film | Missing:
    pairs = pictures.different(labels, len(images), amounts.pairs)
    if not pairs:
        return Missing("There are no two held-out images of different classes to walk between.")
    log.info("Walking between the codes of %d pairs of images.", len(pairs))
    return films.interpolation(model, images, pairs, config.sample, points=amounts.points)


def _edits(
    config: Config, model: DBAE, images: np.ndarray, amounts: Amounts
) -> tuple[list[Film] | Missing, str]:
    source = build.make_source(config.data, "train")
    count = min(config.eval.num_train_images or len(source), len(source), MAX_TRAIN_IMAGES)
    known = read(source, np.arange(count))
    if "attributes" in known:
        names = getattr(source, "attribute_names", ())
        found = directions.of_attributes(model.encode(known["image"]), known["attributes"], names)
    elif "label" in known:
        found = directions.of_labels(model.encode(known["image"]), known["label"])
    else:
        found = []
    chosen = directions.sharpest(found, amounts.directions)
    if not chosen:
        return Missing("The training images have neither labels nor attributes to edit."), ""
    log.info("Editing %d images along %d directions.", amounts.edited, len(chosen))
    scales = np.linspace(-FARTHEST, FARTHEST, amounts.scales)
    vectors = {direction.name: direction.vector for direction in chosen}
    made = films.edits(model, images[: amounts.edited], vectors, scales, config.sample)
    return made, (
        "Each slider adds a multiple of one direction to the codes of held-out images. A direction "
        f"leads from the mean code of the training images without an attribute to that of those "
        f"with it ({count:,} images); 1 is that distance. x_T follows z. "
        f"Shown are {len(chosen)} of {len(found)} directions"
        + (", those that tell the two groups best apart." if len(chosen) < len(found) else ".")
    )


def _trajectories(model: DBAE, images: np.ndarray, amounts: Amounts) -> Film:
    log.info("Walking the bridge.")
    return films.trajectories(model, images[: amounts.walks], steps=WALK_STEPS, every=amounts.every)


def _samples(
    config: Config, model: DBAE, amounts: Amounts, command: about.Command
) -> tuple[list[Strip] | Missing, str]:
    how = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    try:
        log.info("Sampling %d images.", amounts.samples)
        drawn = stills.samples(model, amounts.samples, **how, **vars(config.sample))
    except CheckpointError as error:
        return Missing(str(error), command("train_prior")), ""
    return drawn, (
        f"Images 0 to {len(drawn) - 1} of seed {stills.SEED}, none left out: z is drawn from the "
        f"prior (step {model.prior.step:,}, {config.prior.sampler}, {config.prior.sample_steps} "
        "evaluations), then x_T made of it, then the bridge walked."
    )


def _charts(
    config: Config,
    directory: pathlib.Path,
    rows: list[dict],
    entries: about.Entries,
    command: about.Command,
) -> tuple[list[Drawn], list[Missing]]:
    drawn, missing = curves.training(rows), []
    if not drawn:
        missing.append(Missing(f"This workdir holds no record of training ({workdir.METRICS})."))
    entry = entries.get(results.name_of("information", config.data.name))
    if entry is None:
        missing.append(
            Missing(
                "The held-out loss over time is not measured yet.",
                command("evaluate", "--config.eval.suite=information"),
            )
        )
    else:
        found = entry["scores"]["unexplained_bits_per_dim"]["details"]["curves"]
        drawn.append(curves.loss_by_time(found, entry["counts"]["test"]))
    return drawn + curves.prior(summaries.read(directory / prior.FOLDER)), missing
