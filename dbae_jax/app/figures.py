"""HTML that the app shows: rows of pictures, each of which can be saved, and sentences.

Pictures and files are data URLs, so that results leave no files on the server.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dbae_jax.app import pictures

MOST_ENLARGED = 128  # pixels; smaller pictures show their pixels as squares


class Figure(NamedTuple):
    """A picture with its caption."""

    file: str  # name of the file that a click saves, without .png
    caption: str  # HTML
    pixels: np.ndarray  # uint8 [H, W, C]
    note: str = ""  # HTML below the caption


def row(figures: Sequence[Figure], kind: str) -> str:
    """Returns figures beside each other; they wrap on a narrow page.

    Args:
      figures: pictures with captions.
      kind: class of the row for the style sheet: "wide", "strip" or "tiles".
    """
    return f'<div class="figures {kind}">{"".join(map(_figure, figures))}</div>'


def _figure(figure: Figure) -> str:
    url = _url("image/png", pictures.png(figure.pixels))
    file = html.escape(figure.file)
    squares = ' class="squares"' if figure.pixels.shape[0] <= MOST_ENLARGED else ""
    note = f"<small>{figure.note}</small>" if figure.note else ""
    return (
        f'<figure><a href="{url}" download="{file}.png" title="Save {file}.png">'
        f'<img{squares} src="{url}" alt="{file.replace("_", " ")}"></a>'
        f"<figcaption>{figure.caption}{note}</figcaption></figure>"
    )


def sentence(text: str) -> str:
    """Returns a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def problem(text: str) -> str:
    """Returns a paragraph that says what is wrong; screen readers read it at once."""
    return f'<p class="problem" role="alert">{html.escape(text)}</p>'


def archive(file: str, label: str, arrays: dict[str, np.ndarray]) -> str:
    """Returns a link that saves arrays as an .npz file.

    Args:
      file: name of the file, without .npz.
      label: words of the link.
      arrays: name -> array.
    """
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    url = _url("application/octet-stream", content.getvalue())
    return f'<a class="save" href="{url}" download="{file}.npz">{label}</a>'


def picture(file: str, label: str, pixels: np.ndarray) -> str:
    """Returns a link that saves pixels, uint8 [H, W, C], as a PNG file; see `archive`."""
    url = _url("image/png", pictures.png(pixels))
    return f'<a class="save" href="{url}" download="{file}.png">{label}</a>'


def below(words: str, *links: str) -> str:
    """Returns the line below a row of pictures: words, and links that save files."""
    return f'<p class="below"><span>{words}</span>{"".join(links)}</p>'


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
