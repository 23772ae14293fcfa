"""The content of the page, and its template."""

import dataclasses
import re

import jinja2
from markupsafe import Markup, escape

from dbae_jax.report.cards import Card
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.image_grids import ImageGrid
from dbae_jax.report.pictures import LARGE, SMALL, is_lossless, shown_size
from dbae_jax.report.sections.confusion import Confusion
from dbae_jax.report.sections.latent_space import LatentSpace
from dbae_jax.report.sections.reconstructions import Reconstructions
from dbae_jax.report.sections.samples import Samples
from dbae_jax.report.sections.sharpness import Sharpness
from dbae_jax.report.tables import Missing, Row, Table
from dbae_jax.report.wording import Words

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("dbae_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

WIDTH = 880  # of the first images, pixels


def _subscripts(text: str) -> Markup:
    """Returns text as HTML in which the T of x_T (and of x_t, x_0) is a subscript."""
    return Markup(re.sub(r"\bx_([0tT])\b", r"x<sub>\1</sub>", str(escape(text))))


_TEMPLATES.filters["subscripts"] = _subscripts


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of the page; a `Missing` replaces a part that cannot be shown.

    Attributes:
      title: heading of the page.
      words: sentences for the model's kind of x_T.
      lead: paragraph below the first images.
      image_size: height and width of images, in pixels.
      sampler: description of the sampler.
      cards: numbers at the top.
      reconstructions: test images and their reconstructions.
      data_note: sentence on the images of the data set, or "".
      interpolation: images between pairs of test images.
      edits: a grid per attribute or class.
      edits_note: paragraph on the edits.
      commands: mode -> the command that makes more images of a section.
      latent_space: projections and traversals.
      confusion: confusion matrix of a probe.
      trajectory: states at the times of the sampler.
      samples: sampled images.
      samples_note: paragraph on the samples.
      charts: charts of training and of the loss.
      missing_charts: charts that the workdir has no data for.
      cost: error against network evaluations.
      sharpness: power spectra, and a distilled model beside its teacher.
      tables: tables of scores.
      missing_scores: suites without results.
      provenance: origin of the page.
      settings: the config of the run.
    """

    title: str
    words: Words
    lead: str
    image_size: int
    sampler: str
    cards: list[Card]
    reconstructions: Reconstructions
    data_note: str
    interpolation: ImageGrid | Missing
    edits: list[ImageGrid] | Missing
    edits_note: str
    commands: dict[str, str]
    latent_space: LatentSpace
    confusion: Confusion | Missing
    trajectory: ImageGrid | Missing
    samples: Samples | Missing
    samples_note: str
    charts: list[CaptionedChart]
    missing_charts: list[Missing]
    cost: CaptionedChart | None
    sharpness: Sharpness
    tables: list[Table]
    missing_scores: list[Missing]
    provenance: list[Row]
    settings: list[Row]


def render(page: Page) -> str:
    """Returns the page as HTML that loads nothing else."""
    return render_template("page.html", page.image_size, page=page)


def render_template(name: str, image_size: int, **content: object) -> str:
    """Returns a template as HTML, with the style and the script of all pages.

    Args:
      name: file name of the template.
      image_size: height and width of the images, in pixels.
      **content: variables of the template.
    """
    return _TEMPLATES.get_template(name).render(
        css=_source("page.css") + _source("tables.css"),
        js=_source("page.js"),
        small=shown_size(image_size, SMALL),
        large=shown_size(image_size, LARGE),
        lossless=is_lossless(image_size),
        fits=max(3, WIDTH // (shown_size(image_size, LARGE) + 4)),
        is_missing=lambda part: isinstance(part, Missing),
        **content,
    )


def _source(name: str) -> Markup:
    """Returns a template file unescaped, for <style> or <script>."""
    assert _TEMPLATES.loader is not None
    return Markup(_TEMPLATES.loader.get_source(_TEMPLATES, name)[0])
