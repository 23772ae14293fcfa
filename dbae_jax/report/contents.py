"""Computes the content of the page: images, charts and tables."""

import dataclasses
import pathlib
from typing import Any, Self

from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation import attribute_directions, results
from dbae_jax.evaluation.context import Context
from dbae_jax.prior import prior
from dbae_jax.report import (
    about,
    cards,
    curves,
    edited_attributes,
    image_grids,
    tables,
    wording,
)
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.edited_attributes import FARTHEST
from dbae_jax.report.image_grids import ImageGrid
from dbae_jax.report.page import Page
from dbae_jax.report.sections import cost, latent_space, origin, samples
from dbae_jax.report.sections.confusion import confusion
from dbae_jax.report.sections.latent_space import LatentSpace
from dbae_jax.report.sections.reconstructions import Reconstructions, reconstructions
from dbae_jax.report.sections.samples import Samples
from dbae_jax.report.sections.sharpness import Sharpness, sharpness
from dbae_jax.report.tables import Missing
from dbae_jax.sampling.plan import CONSISTENCY
from dbae_jax.workdirs import records, workdir

TRAJECTORY_STEPS = 50
JUMPS = (1, 2, 3, 4)  # numbers of steps of the sampler of distilled models


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How many images the page shows.

    Attributes:
      among: test images that are reconstructed; the page shows the worst of them.
      worst: worst reconstructions.
      pairs: pairs of images that are interpolated.
      points: positions of an interpolation.
      edited: images that are edited.
      scales: positions of an edit, an odd number; the middle one has scale 0.
      directions: attributes or classes that are edited.
      trajectories: images with trajectories.
      every: steps between two positions of a trajectory; a divisor of TRAJECTORY_STEPS.
      samples: sampled images.
      dimensions: dimensions of z that are traversed.
      values: values of each of these dimensions, an odd number.
      coded: test images whose codes are drawn.
      swept: test images whose error is measured against the network evaluations, and whose power
        spectra are shown.
      steps: numbers of steps of the sampler for this measurement.
    """

    among: int = 128
    worst: int = 4
    pairs: int = 5
    points: int = 9
    edited: int = 5
    scales: int = 9
    directions: int = 12
    trajectories: int = 3
    every: int = 5
    samples: int = 60
    dimensions: int = 6
    values: int = 9
    coded: int = 1000
    swept: int = 64
    steps: tuple[int, ...] = (2, 5, 10, 20)

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Returns amounts for an image size: fewer large images, for a page below 15 MB."""
        if size < 128:
            return cls()
        if size < 256:
            few: dict[str, Any] = {"dimensions": 4, "values": 7, "coded": 256, "swept": 16}
            return cls(among=32, pairs=4, edited=3, scales=7, samples=24, **few)
        few = {"dimensions": 3, "values": 5, "coded": 64, "swept": 8}
        return cls(16, 2, 2, 7, 2, 7, 6, trajectories=2, every=10, samples=8, **few)


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
    sampled, samples_note = _samples(context, amounts, command)
    reconstructed = _reconstructions(context, amounts)
    return Page(
        title=f"{words.model} trained on {config.data.name}",
        words=words,
        lead=about.lead(context, seen=seen),
        image_size=config.data.image_size,
        sampler=about.sampler(config, model),
        cards=cards.cards(config, model, entries, rows, seen=seen),
        reconstructions=reconstructed,
        data_note=about.data_note(config),
        interpolation=_interpolation(context, amounts),
        edits=edits,
        edits_note=edits_note,
        commands=_commands(command),
        latent_space=_latent_space(context, amounts),
        confusion=confusion(context),
        trajectory=_trajectories(context, amounts),
        samples=sampled,
        samples_note=samples_note,
        charts=charts,
        missing_charts=missing_charts,
        cost=_cost(context, amounts),
        sharpness=_sharpness(context, amounts, entries),
        tables=about.measurements(context, measured),
        missing_scores=about.missing_scores(context, measured, command),
        provenance=origin.provenance(config, directory, model, command, rows),
        settings=tables.settings(to_dict(config)),
    )


def _commands(command: about.Command) -> dict[str, str]:
    return {
        "interpolate": command("interpolate", "--first=test:0", "--second=test:1"),
        "edit": command("edit", "--attribute=NAME", "--image=test:0"),
        "sample": command("sample", "--num=64"),
        "train_prior": command("train_prior"),
        "compare": command("report", "--compare=OTHER_WORKDIR"),
    }


def _reconstructions(context: Context, amounts: Amounts) -> Reconstructions:
    images, config = context.images("test", amounts.among), context.config
    return reconstructions(
        context.model, images, config.sample, first=config.eval.num_pictures, worst=amounts.worst
    )


def _interpolation(context: Context, amounts: Amounts) -> ImageGrid | Missing:
    images, labels = context.some("test", amounts.among)
    pairs = image_grids.different(labels, len(images), amounts.pairs)
    if not pairs:
        return Missing("There are no two test images of different classes to interpolate between.")
    sample = context.config.sample
    return image_grids.interpolation(context.model, images, pairs, sample, points=amounts.points)


def _edits(context: Context, amounts: Amounts) -> tuple[list[ImageGrid] | Missing, str]:
    reason = attribute_directions.obstacle(context)
    if reason:
        return Missing(f"There is nothing to edit: {reason}."), ""
    chosen = edited_attributes.choose(context, amounts.directions)
    if chosen is None:
        return Missing("There is nothing to edit: no attribute varies in the training images."), ""
    images, model = context.images("test", amounts.edited), context.model
    count, known = len(chosen.directions.names), chosen.known
    scales, sample = chosen.scales(amounts.scales), context.config.sample
    which = "all attributes or classes are here"
    if count < known:
        which = f"the {count} of {known} attributes or classes with the best separated codes"
    return image_grids.edits(model, images, chosen.directions, scales.tolist(), sample), (
        "Each row is a test image whose latent code moves against (left) and towards (right) an "
        f"attribute or class; {which}. At scale s, a code moves by s \N{SQUARE ROOT}D times the "
        "unit normal of a logistic probe, as in the paper; "
        f"D = {model.latent_dim} is the latent dimension. "
        f"The probe was trained on {context.limit('train'):,} images. The largest scale is "
        f"{FARTHEST:g} times the typical distance of mean codes with and without an attribute. "
        f"{wording.words(model).moving}"
    )


def _latent_space(context: Context, amounts: Amounts) -> LatentSpace:
    return latent_space.latent_space(
        context,
        coded=amounts.coded,
        dimensions=amounts.dimensions,
        points=amounts.values,
        how={"sampler": context.config.prior.sampler, "steps": context.config.prior.sample_steps},
    )


def _cost(context: Context, amounts: Amounts) -> CaptionedChart | None:
    steps = JUMPS if context.config.sample.sampler == CONSISTENCY else amounts.steps
    return cost.curve(context, amounts.swept, steps)


def _sharpness(context: Context, amounts: Amounts, entries: about.Entries) -> Sharpness:
    shown, name = context.config.eval.num_pictures, context.config.data.name
    return sharpness(context, amounts.swept, shown, about.samples_log_ratio(entries, name))


def _trajectories(context: Context, amounts: Amounts) -> ImageGrid | Missing:
    if is_distilled(context.model.config):
        return Missing(
            "This model is distilled: it jumps from a state to the image, so its states do not "
            "follow the ODE or the SDE. The report of its teacher shows them."
        )
    images = context.images("test", amounts.trajectories)
    return image_grids.trajectories(
        context.model, images, steps=TRAJECTORY_STEPS, every=amounts.every
    )


def _samples(
    context: Context, amounts: Amounts, command: about.Command
) -> tuple[Samples | Missing, str]:
    config, model = context.config, context.model
    how = {"prior_sampler": config.prior.sampler, "prior_steps": config.prior.sample_steps}
    try:
        sampled = samples.samples(context, amounts.samples, **how, plan=config.sample)
    except CheckpointError as error:
        return Missing(str(error), command("train_prior")), ""
    return sampled, (
        f"All images from 0 to {amounts.samples - 1} of seed {samples.SEED}, without selection. "
        f"Each code z is sampled from the latent prior of step {model.prior.step:,} "
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
