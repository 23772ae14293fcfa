"""Computes the content of the page: images, charts and tables."""

import dataclasses
import pathlib
from typing import Any, Self

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation import attribute_directions, results
from dbae_jax.evaluation.context import Context
from dbae_jax.prior import prior
from dbae_jax.report import about, curves, edited_attributes, pictures, sliders, tables, wording
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.page import Page
from dbae_jax.report.pictures import Strip
from dbae_jax.report.sliders import Slider
from dbae_jax.report.tables import Missing
from dbae_jax.workdirs import records, workdir

TRAJECTORY_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How many images the page shows.

    Attributes:
      among: test images that are reconstructed; the page shows the worst of them.
      worst: worst reconstructions.
      pairs: pairs of images that are interpolated.
      points: positions of an interpolation.
      edited: images that a slider edits.
      scales: positions of an edit, an odd number; the middle one has scale 0.
      directions: attributes or classes with a slider.
      trajectories: images with trajectories.
      every: steps between two positions of a trajectory; a divisor of TRAJECTORY_STEPS.
      samples: sampled images.
    """

    among: int = 128
    worst: int = 4
    pairs: int = 6
    points: int = 17
    edited: int = 5
    scales: int = 11
    directions: int = 12
    trajectories: int = 3
    every: int = 2
    samples: int = 60

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Returns amounts for an image size: fewer large images, for a page below 15 MB."""
        if size < 128:
            return cls()
        if size < 256:
            return cls(among=32, pairs=4, points=11, edited=3, scales=9, every=5, samples=36)
        return cls(16, 2, 2, 9, 2, 7, directions=6, trajectories=2, every=10, samples=16)


def make_page(
    context: Context,
    directory: pathlib.Path,
    measured: dict[str, Any] | None,
    command: about.Command,
    amounts: Amounts,
) -> Page:
    """Computes all images, charts and tables of the page.

    Args:
      context: model and its training data.
      directory: the workdir.
      measured: results.json, or None.
      command: writes commands of the workdir.
      amounts: numbers of images.
    """
    config, model = context.config, context.model
    rows, entries = records.read(directory), about.current(measured, model)
    charts, missing_charts = _charts(config, directory, rows, entries, command)
    seen, words = context.overlap("train", "test"), wording.words(model)
    edits, edits_note = _edits(context, amounts)
    samples, samples_note = _samples(config, model, amounts, command)
    return Page(
        title=f"{words.model} trained on {config.data.name}",
        words=words,
        lead=about.lead(context, seen=seen),
        image_size=config.data.image_size,
        sampler=about.sampler(config, model),
        cards=about.cards(config, model, entries, rows, seen=seen),
        reconstructions=_reconstructions(context, amounts),
        interpolation=_interpolation(context, amounts),
        edits=edits,
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
        missing_charts=missing_charts,
        tables=about.measurements(context, measured),
        missing_scores=about.missing_scores(context, measured, command),
        provenance=about.provenance(config, directory, model, command),
        settings=tables.settings(to_dict(config)),
    )


def _reconstructions(context: Context, amounts: Amounts) -> pictures.Reconstructions:
    images, config = context.images("test", amounts.among), context.config
    return pictures.reconstructions(
        context.model, images, config.sample, first=config.eval.num_pictures, worst=amounts.worst
    )


def _interpolation(context: Context, amounts: Amounts) -> Slider | Missing:
    images, labels = context.some("test", amounts.among)
    pairs = sliders.different(labels, len(images), amounts.pairs)
    if not pairs:
        return Missing("There are no two test images of different classes to interpolate between.")
    sample = context.config.sample
    return sliders.interpolation(context.model, images, pairs, sample, points=amounts.points)


def _edits(context: Context, amounts: Amounts) -> tuple[list[Slider] | Missing, str]:
    reason = attribute_directions.obstacle(context)
    if reason:
        return Missing(f"There is nothing to edit: {reason}."), ""
    chosen = edited_attributes.choose(context, amounts.directions)
    if chosen is None:
        return Missing("There is nothing to edit: no attribute varies in the training images."), ""
    images, model = context.images("test", amounts.edited), context.model
    count, known = len(chosen.directions.names), chosen.known
    scales, sample = chosen.scales(amounts.scales), context.config.sample
    which = "all of them"
    if count < known:
        which = f"the {count} of {known} with the best separated codes"
    return sliders.edits(model, images, chosen.directions, scales.tolist(), sample), (
        "Each slider edits the latent codes of test images along one attribute or class "
        f"({which}). At scale s, a code moves by s \N{SQUARE ROOT}D times the unit normal of a "
        f"logistic probe, as in the paper; D = {model.latent_dim} is the latent dimension. The "
        f"probe was trained on {context.limit('train'):,} images. The mean codes with and without "
        f"an attribute are {chosen.apart:.2g} apart on this scale (median over attributes). "
        f"{wording.words(model).moving}"
    )


def _trajectories(context: Context, amounts: Amounts) -> Slider:
    images = context.images("test", amounts.trajectories)
    return sliders.trajectories(context.model, images, steps=TRAJECTORY_STEPS, every=amounts.every)


def _samples(
    config: Config, model: DBAE, amounts: Amounts, command: about.Command
) -> tuple[list[Strip] | Missing, str]:
    how = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    try:
        images = pictures.samples(model, amounts.samples, **how, plan=config.sample)
    except CheckpointError as error:
        return Missing(str(error), command("train_prior")), ""
    return images, (
        f"All images from 0 to {len(images) - 1} of seed {pictures.SEED}, without selection. Each "
        f"code z is sampled from the latent prior of step {model.prior.step:,} "
        f"({config.prior.sampler}, {config.prior.sample_steps} network evaluations per code). "
        f"{wording.words(model).sampling}"
    )


def _charts(
    config: Config,
    directory: pathlib.Path,
    rows: list[dict[str, Any]],
    entries: about.Entries,
    command: about.Command,
) -> tuple[list[CaptionedChart], list[Missing]]:
    charts, missing = curves.training(rows), []
    if not charts:
        missing.append(Missing(f"This workdir has no record of training ({workdir.METRICS})."))
    by_time = _loss_by_time(entries.get(results.name_of("information", config.data.name)), command)
    if isinstance(by_time, Missing):
        missing.append(by_time)
    else:
        charts.append(by_time)
    return charts + curves.prior(records.read(directory / prior.FOLDER)), missing


def _loss_by_time(entry: dict[str, Any] | None, command: about.Command) -> CaptionedChart | Missing:
    suite = "--config.eval.suite=information"
    if entry is None:
        why = "The loss of test images by diffusion time has not been measured yet."
        return Missing(why, command("evaluate", suite))
    found = entry["scores"]["unexplained_bits_per_dim"]["details"]["curves"]
    more = command("evaluate", suite, "--config.eval.information_points=32")
    return curves.loss_by_time(found, entry["counts"]["test"]) or Missing(
        "The loss of test images was measured at one time per image: a curve needs more times.",
        more,
    )
