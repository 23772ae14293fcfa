"""Computes the page that compares two runs: images, scores, training curves and settings."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.data import identity
from dbae_jax.evaluation.context import Context
from dbae_jax.report import about, curves, page, tables
from dbae_jax.report.comparison import scores
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.pictures import Strip, scale_of, strips
from dbae_jax.report.sections.reconstructions import Decoded, decode
from dbae_jax.report.tables import NONE, Missing, Row, Table
from dbae_jax.runtime.progress import duration

MOST_IMAGES = 64  # that both runs reconstruct
SHOWN = 8


class Run(NamedTuple):
    """A run.

    Attributes:
      name: name of the run on the page.
      config: its config.
      model: its model.
      rows: rows of its metrics.jsonl.
      measured: its results.json, or None.
      data: identity of its training images (see `data.identity`), or None if it is not known.
    """

    name: str
    config: Config
    model: DBAE
    rows: list[dict[str, Any]]
    measured: dict[str, Any] | None
    data: dict[str, Any] | None


class Reconstructed(NamedTuple):
    """Reconstructions by one run: its name, x_T, images, and MSE times 1,000 as text."""

    name: str
    endpoints: list[Strip]
    decoded: list[Strip]
    errors: list[str]


@dataclasses.dataclass(frozen=True)
class Images:
    """The same test images, reconstructed by both runs.

    Attributes:
      real: the test images.
      runs: the reconstructions of each run.
      note: sentences on the errors of both and on the scales of x_T.
    """

    real: list[Strip]
    runs: list[Reconstructed]
    note: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The content of the page.

    Attributes:
      names: names of the runs.
      image_size: height and width of the images, in pixels.
      images: images, or why there are none.
      facts: facts of both runs.
      warning: a sentence if the runs were trained on different data, or "".
      tables: scores of both runs.
      missing: sentences on scores that a run lacks.
      charts: training curves of both runs.
      settings: keys of the configs that differ.
    """

    names: tuple[str, str]
    image_size: int
    images: Images | Missing
    facts: list[Row]
    warning: str
    tables: list[Table]
    missing: list[str]
    charts: list[CaptionedChart]
    settings: list[Row]


def render(comparison: Comparison) -> str:
    """Returns the page as HTML that loads nothing else."""
    return page.render_template("comparison.html", comparison.image_size, page=comparison)


def compare(first: Run, second: Run, context: Context) -> Comparison:
    """Compares two runs.

    Args:
      first: a run.
      second: another run, with a different name.
      context: model and data of the first run; both runs reconstruct its test images.
    """
    names = (first.name, second.name)
    entries = (
        about.current(first.measured, first.model),
        about.current(second.measured, second.model),
    )
    missing = scores.only_one(entries[0], entries[1], names)
    missing += [
        f"{run.name} has no scores of its current weights: evaluate it first."
        for run, found in zip((first, second), entries, strict=True)
        if not found
    ]
    return Comparison(
        names,
        first.config.data.image_size,
        _images(first, second, context),
        _facts(first, second),
        _warning(first, second),
        scores.tables(entries[0], entries[1], names),
        missing,
        curves.compared({run.name: run.rows for run in (first, second)}),
        differing(first.config, second.config),
    )


def differing(first: Config, second: Config) -> list[Row]:
    """Returns the keys in which two configs differ, with both values."""
    flat = [
        {row.name: row.cells[0] for row in tables.settings(to_dict(config))}
        for config in (first, second)
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key, NONE) for one in flat] for key in keys}
    return [Row(key, cells) for key, cells in values.items() if cells[0] != cells[1]]


def _images(first: Run, second: Run, context: Context) -> Images | Missing:
    shapes = [(run.config.data.image_size, run.config.data.channels) for run in (first, second)]
    if shapes[0] != shapes[1]:
        return Missing(
            f"The runs cannot reconstruct the same images: {first.name} has images of "
            f"{_shape(shapes[0])}, and {second.name} of {_shape(shapes[1])}."
        )
    images = context.images("test", min(MOST_IMAGES, context.limit("test")))
    found = [decode(run.model, images, run.config.sample) for run in (first, second)]
    real = found[0].real[:SHOWN]
    made = [_reconstructed(run.name, one) for run, one in zip((first, second), found, strict=True)]
    return Images(strips(real), made, note((first.name, second.name), found))


def _reconstructed(name: str, found: Decoded) -> Reconstructed:
    return Reconstructed(
        name,
        strips(found.x_T[:SHOWN] / scale_of(found.x_T)),
        strips(found.x_0[:SHOWN]),
        [f"{1000 * error:.3g}" for error in found.errors[:SHOWN]],
    )


def note(names: tuple[str, str], found: list[Decoded]) -> str:
    """Returns sentences on the errors of two runs on the same images, image by image."""
    errors = [1000 * one.errors for one in found]
    difference = errors[1] - errors[0]
    count, mean = len(difference), float(difference.mean())
    said = ", ".join(
        f"{name} has an MSE \N{MULTIPLICATION SIGN} 1,000 of {e.mean():.3g}"
        for name, e in zip(names, errors, strict=True)
    )
    text = f"On the first {count} test images, {said}."
    if count > 1:
        error = float(difference.std(ddof=1) / np.sqrt(count))
        beyond = "exceeds" if abs(mean) > scores.FACTOR * error else "does not exceed"
        text += (
            f" Image by image, that of {names[1]} is {abs(mean):.3g} \N{PLUS-MINUS SIGN} "
            f"{error:.2g} {'higher' if mean > 0 else 'lower'} (mean and its standard error): the "
            f"difference {beyond} {scores.FACTOR:g} standard errors."
        )
    ends = " and ".join(
        f"\N{PLUS-MINUS SIGN}{scale_of(one.x_T):.2g} ({name})"
        for name, one in zip(names, found, strict=True)
    )
    return f"{text} x_T has a scale of its own for each run: black and white are {ends}."


def _facts(first: Run, second: Run) -> list[Row]:
    runs = (first, second)
    return [
        Row("weights", [f"EMA weights of step {run.model.step:,}" for run in runs]),
        Row("fingerprint", [run.model.fingerprint for run in runs]),
        Row("training data", [_data(run) for run in runs]),
        Row("sampler", [about.sampler(run.config, run.model) for run in runs]),
        Row("time of training", [_time(run.rows) for run in runs]),
    ]


def _data(run: Run) -> str:
    return NONE if run.data is None else identity.describe(run.data)


def _warning(first: Run, second: Run) -> str:
    """Returns a sentence if the runs are known to have been trained on different data."""
    if first.data is None or second.data is None:
        return ""
    both = first.data.keys() & second.data.keys()
    differing = sorted(key for key in both if first.data[key] != second.data[key])
    if not differing:
        return ""
    return (
        f"The runs were trained on different data: {first.name} on {_data(first)}, and "
        f"{second.name} on {_data(second)}. They differ in {', '.join(differing)}. The comparison "
        "therefore shows more than the differences of their settings."
    )


def _time(rows: list[dict[str, Any]]) -> str:
    seconds = [row["train_seconds"] for row in rows if "train_seconds" in row]
    return duration(seconds[-1]) if seconds else NONE


def _shape(shape: tuple[int, int]) -> str:
    size, channels = shape
    return f"{size} {about.TIMES} {size} {about.TIMES} {channels}"
