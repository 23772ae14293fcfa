"""The page itself: what it shows, put into its template with all that it needs inside."""

import dataclasses
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from dbae_jax.report.curves import Drawn
from dbae_jax.report.pictures import LARGE, SMALL, Reconstructions, Strip, is_lossless, shown_size
from dbae_jax.report.sliders import Film
from dbae_jax.report.tables import Missing, Pairs, Table
from dbae_jax.report.wording import Words

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("dbae_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Figure(NamedTuple):
    """A number at the top of the page: what it is, and what to hold it against."""

    name: str
    value: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Page:
    """All that the page says; a `Missing` stands where something could not be shown.

    commands: mode -> the command that makes more of what a section shows.
    """

    title: str
    words: Words
    lead: str
    image_size: int
    sampler: str
    figures: list[Figure]
    reconstructions: Reconstructions
    interpolation: Film | Missing
    edits: list[Film] | Missing
    edits_note: str
    commands: dict[str, str]
    trajectory: Film
    samples: list[Strip] | Missing
    samples_note: str
    charts: list[Drawn]
    uncharted: list[Missing]
    tables: list[Table]
    unmeasured: list[Missing]
    provenance: Pairs
    settings: Pairs


def render(page: Page) -> str:
    """Returns the page as HTML that loads nothing from anywhere."""
    source = {name: _source(f"page.{name}") for name in ("css", "js")}
    return _TEMPLATES.get_template("page.html").render(
        page=page,
        css=source["css"],
        js=source["js"],
        small=shown_size(page.image_size, SMALL),
        large=shown_size(page.image_size, LARGE),
        lossless=is_lossless(page.image_size),
        is_missing=lambda part: isinstance(part, Missing),
    )


def _source(name: str) -> Markup:
    """Returns a file of ours as it is, to stand within <style> or <script>."""
    return Markup(_TEMPLATES.loader.get_source(_TEMPLATES, name)[0])
