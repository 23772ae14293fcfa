"""The content of the page, and its template."""

import dataclasses
import re
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.pictures import LARGE, SMALL, Reconstructions, Strip, is_lossless, shown_size
from dbae_jax.report.sliders import Slider
from dbae_jax.report.tables import Missing, Row, Table
from dbae_jax.report.wording import Words

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("dbae_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _subscripts(text: str) -> Markup:
    """Returns text as HTML in which the T of x_T (and of x_t, x_0) is a subscript."""
    return Markup(re.sub(r"\bx_([0tT])\b", r"x<sub>\1</sub>", str(escape(text))))


_TEMPLATES.filters["subscripts"] = _subscripts


class Card(NamedTuple):
    """A number at the top of the page: name, value, and a sentence that explains it."""

    name: str
    value: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of the page; a `Missing` replaces a part that cannot be shown.

    Attributes:
      title: heading of the page.
      words: sentences for the model's kind of x_T.
      lead: paragraph below the heading.
      image_size: height and width of images, in pixels.
      sampler: description of the sampler.
      cards: numbers at the top.
      reconstructions: test images and their reconstructions.
      interpolation: slider between pairs of test images.
      edits: a slider per attribute or class.
      edits_note: paragraph on the edits.
      commands: mode -> the command that makes more images of a section.
      trajectory: slider over the times of the sampler.
      samples: sampled images.
      samples_note: paragraph on the samples.
      charts: charts of training and of the loss.
      missing_charts: charts that the workdir has no data for.
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
    interpolation: Slider | Missing
    edits: list[Slider] | Missing
    edits_note: str
    commands: dict[str, str]
    trajectory: Slider
    samples: list[Strip] | Missing
    samples_note: str
    charts: list[CaptionedChart]
    missing_charts: list[Missing]
    tables: list[Table]
    missing_scores: list[Missing]
    provenance: list[Row]
    settings: list[Row]


def render(page: Page) -> str:
    """Returns the page as HTML that loads nothing else."""
    return _TEMPLATES.get_template("page.html").render(
        page=page,
        css=_source("page.css"),
        js=_source("page.js"),
        small=shown_size(page.image_size, SMALL),
        large=shown_size(page.image_size, LARGE),
        lossless=is_lossless(page.image_size),
        is_missing=lambda part: isinstance(part, Missing),
    )


def _source(name: str) -> Markup:
    """Returns a template file unescaped, for <style> or <script>."""
    assert _TEMPLATES.loader is not None
    return Markup(_TEMPLATES.loader.get_source(_TEMPLATES, name)[0])
