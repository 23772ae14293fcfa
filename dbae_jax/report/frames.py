"""Pictures for the page: arrays in, `data:` URIs out."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from dbae_jax.data.images import to_uint8

# From this size on pictures are JPEG, which keeps a page of 128-pixel images in a few megabytes.
JPEG_FROM, JPEG_QUALITY = 64, 92
SMALL, LARGE = 72, 96  # pixels of the screen that a picture should about have


class Strip(NamedTuple):
    """Pictures of one size side by side in one file: a slider shows one at a time.

    uri: the file. count: of pictures. size: of each, in its own pixels.
    """

    uri: str
    count: int
    size: int


def strip(images: np.ndarray) -> Strip:
    """Returns images [N, S, S, C] in [-1, 1], clipped to it, as a strip.

    Of channel counts other than 1 and 3, the first channel is shown.
    """
    pixels = to_uint8(images)
    count, size = pixels.shape[:2]
    beside = np.concatenate(list(pixels), axis=1)
    picture = Image.fromarray(beside if beside.shape[-1] == 3 else beside[..., 0])
    content = io.BytesIO()
    if is_lossless(size):
        picture.save(content, "png", optimize=True)
    else:  # chroma at full size: frames of a strip must not bleed into each other
        picture.save(content, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    kind = "png" if is_lossless(size) else "jpeg"
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Strip(f"data:image/{kind};base64,{encoded}", count, size)


def strips(images: np.ndarray) -> list[Strip]:
    """Returns a strip for each image [N, S, S, C], of that image alone."""
    return [strip(image[None]) for image in images]


def is_lossless(size: int) -> bool:
    """Whether pictures of this size keep every pixel's value."""
    return size < JPEG_FROM


def shown_size(size: int, target: int) -> int:
    """Returns how wide an image is shown: a whole multiple of its size, about `target`."""
    return size * max(1, round(target / size))
