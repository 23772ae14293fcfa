"""Writes the report of a workdir's model: one HTML file that opens from disk."""

import dataclasses
import logging
import pathlib
from typing import Self

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation import attribute_directions, results
from dbae_jax.evaluation.context import Context
from dbae_jax.prior import prior
from dbae_jax.report import about, curves, edited_attributes, pictures, sliders, tables, wording
from dbae_jax.report.curves import Drawn
from dbae_jax.report.page import Page
from dbae_jax.report.pictures import Strip
from dbae_jax.report.sliders import Film
from dbae_jax.report.tables import Missing
from dbae_jax.workdirs import records, workdir

WALK_STEPS = 50

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much is shown."""

    among: int = 128  # images of which the worst reconstructions are shown
    worst: int = 4
    pairs: int = 6
    points: int = 17  # frames of an interpolation
    edited: int = 6  # images that a slider edits
    scales: int = 11  # frames of an edit, an odd number: the one in the middle is no edit
    directions: int = 12
    walks: int = 3
    every: int = 2  # steps a frame of a walk; a divisor of WALK_STEPS
    samples: int = 60

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Returns amounts for images of a size: less of large ones, for a page below 15 MB."""
        if size < 128:
            return cls()
        if size < 256:
            return cls(among=32, pairs=4, points=11, edited=3, scales=9, every=5, samples=36)
        return cls(16, 2, 2, 9, 2, 7, directions=6, walks=2, every=10, samples=16)


def make_page(
    context: Context,
    directory: pathlib.Path,
    measured: dict | None,
    command: about.Command,
    amounts: Amounts,
) -> Page:
    """Makes all pictures, charts and tables.

    Args:
      context: model and data, those that it was trained on.
      directory: the workdir.
      measured: results.json, or None.
      command: of the workdir.
      amounts: of what is shown.
    """
    config, model = context.config, context.model
    rows, entries = records.read(directory), about.current(measured, model)
    charts, uncharted = _charts(config, directory, rows, entries, command)
    seen, words = context.overlap("train", "test"), wording.words(free=model.gaussian_endpoint)
    edited, edits_note = _edits(context, amounts)
    samples, samples_note = _samples(config, model, amounts, command)
    return Page(
        title=f"{words.model} of {config.data.name}",
        words=words,
        lead=about.lead(context, seen=seen),
        image_size=config.data.image_size,
        sampler=about.sampler(config, model),
        figures=about.figures(config, model, entries, rows, seen=seen),
        reconstructions=_reconstructions(context, amounts),
        interpolation=_interpolation(context, amounts),
        edits=edited,
        edits_note=edits_note,
        commands={
            "interpolate": command("interpolate", "--first=test:0", "--second=test:1"),
            "edit": command("edit", "--attribute=NAME", "--image=test:0"),
            "sample": command("sample", "--num=64"),
        },
        trajectory=_trajectories(context, amounts),
        samples=samples,
        samples_note=samples_note,
        charts=charts,
        uncharted=uncharted,
        tables=about.measurements(context, measured),
        unmeasured=about.unmeasured(context, measured, command),
        provenance=about.provenance(config, directory, model, command),
        settings=tables.settings(to_dict(config)),
    )


def _reconstructions(context: Context, amounts: Amounts) -> pictures.Reconstructions:
    images = context.images("test", amounts.among)
    log.info("Reconstructing %d test images.", len(images))
    first, sample = context.config.eval.num_pictures, context.config.sample
    return pictures.reconstructions(context.model, images, sample, first=first, worst=amounts.worst)


def _interpolation(context: Context, amounts: Amounts) -> Film | Missing:
    images, labels = context.some("test", amounts.among)
    pairs = sliders.different(labels, len(images), amounts.pairs)
    if not pairs:
        return Missing("There are no two test images of different classes to walk between.")
    log.info("Walking between the codes of %d pairs of images.", len(pairs))
    sample = context.config.sample
    return sliders.interpolation(context.model, images, pairs, sample, points=amounts.points)


def _edits(context: Context, amounts: Amounts) -> tuple[list[Film] | Missing, str]:
    reason = attribute_directions.obstacle(context)
    if reason:
        return Missing(f"There is nothing to edit: {reason}."), ""
    chosen = edited_attributes.choose(context, amounts.directions)
    if chosen is None:
        return Missing("There is nothing to edit: all training images are alike."), ""
    images, model = context.images("test", amounts.edited), context.model
    names, count = chosen.directions.names, context.limit("train")
    log.info("Editing %d images along %d directions.", len(images), len(names))
    scales, sample = chosen.scales(amounts.scales), context.config.sample
    fewer = len(names) < chosen.known
    which = f"the {len(names)} of {chosen.known} that codes tell best" if fewer else "all there are"
    return sliders.edits(model, images, chosen.directions, scales, sample), (
        f"Each slider moves the codes of test images along one attribute or class ({which}): "
        f"at scale s by s \N{SQUARE ROOT}D times the unit normal of a logistic probe that was "
        f"trained on {count:,} images, as in the paper; D = {model.latent_dim}. Mean codes with "
        f"and without an attribute lie {chosen.apart:.2g} apart on that scale (median). "
        f"{wording.words(free=model.gaussian_endpoint).moving}"
    )


def _trajectories(context: Context, amounts: Amounts) -> Film:
    log.info("Walking from x_T to the image.")
    images = context.images("test", amounts.walks)
    return sliders.trajectories(context.model, images, steps=WALK_STEPS, every=amounts.every)


def _samples(
    config: Config, model: DBAE, amounts: Amounts, command: about.Command
) -> tuple[list[Strip] | Missing, str]:
    how = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    try:
        log.info("Sampling %d images.", amounts.samples)
        drawn = pictures.samples(model, amounts.samples, **how, plan=config.sample)
    except CheckpointError as error:
        return Missing(str(error), command("train_prior")), ""
    return drawn, (
        f"Images 0 to {len(drawn) - 1} of seed {pictures.SEED}, none left out: z is drawn from the "
        f"prior (step {model.prior.step:,}, {config.prior.sampler}, {config.prior.sample_steps} "
        f"evaluations), {wording.words(free=model.gaussian_endpoint).sampled}."
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
    by_time = _loss_by_time(entries.get(results.name_of("information", config.data.name)), command)
    (missing if isinstance(by_time, Missing) else drawn).append(by_time)
    return drawn + curves.prior(records.read(directory / prior.FOLDER)), missing


def _loss_by_time(entry: dict | None, command: about.Command) -> Drawn | Missing:
    suite = "--config.eval.suite=information"
    if entry is None:
        why = "The loss of test images over time is not measured yet."
        return Missing(why, command("evaluate", suite))
    found = entry["scores"]["unexplained_bits_per_dim"]["details"]["curves"]
    more = command("evaluate", suite, "--config.eval.information_points=32")
    return curves.loss_by_time(found, entry["counts"]["test"]) or Missing(
        "The loss of test images was measured at one time an image: a curve needs more.", more
    )
