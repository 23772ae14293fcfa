"""Pictures that a visitor of the app gives, and arrays as pictures that a browser shows."""

import io
import pathlib

import numpy as np
from PIL import Image

from dbae_jax.api.images import fitted
from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data import transforms
from dbae_jax.errors import DataError

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000


def read(path: str | pathlib.Path, data: DataConfig) -> np.ndarray:
    """Returns an image file as the model takes it: uint8 [S, S, C].

    The image is converted to gray or RGB, and cropped and resized like the data set's images. An
    image that has the size of the model's images already is not cropped again.

    Args:
      path: an image file of any type that PIL reads.
      data: section of the model's config, with the size, channels and crop of its images.

    Raises:
      DataError: if the file is too large, has too many pixels, or is not an image.
    """
    content = _content(pathlib.Path(path))
    _check_pixels(content)
    image = transforms.decode(content)
    if image.size == (data.image_size, data.image_size):
        pixels = np.asarray(transforms.convert(image, data.channels, data.background))
        return pixels.reshape(data.image_size, data.image_size, data.channels)
    return fitted(image, data)


def _content(file: pathlib.Path) -> bytes:
    """Returns the bytes of a file, or raises DataError if there are too many."""
    try:
        size = file.stat().st_size
        if size <= MOST_BYTES:
            return file.read_bytes()
    except OSError as error:
        raise DataError(
            f"The picture cannot be read ({error.strerror}); upload it again."
        ) from error
    raise DataError(
        f"The file has {size / 2**20:.1f} MB, and the app takes at most {MOST_BYTES // 2**20} MB; "
        "save the picture smaller."
    )


def _check_pixels(content: bytes) -> None:
    """Raises DataError for too many pixels, which the beginning of a file states."""
    try:
        width, height = Image.open(io.BytesIO(content), formats=transforms.formats()).size
    except Image.DecompressionBombError as error:
        raise DataError(_TOO_MANY.format("too many")) from error
    except Exception as error:  # PIL's readers raise errors of any type for damaged files
        raise DataError(
            "The file is not an image that can be read; save the picture as PNG or JPEG."
        ) from error
    if width * height > MOST_PIXELS:
        raise DataError(_TOO_MANY.format(f"{width} x {height}"))


_TOO_MANY = (
    f"The picture has {{}} pixels, and the app takes at most {MOST_PIXELS // 10**6} million; "
    "make the picture smaller."
)


def stretched(x: np.ndarray) -> np.ndarray:
    """Returns an array of any range as pixels: its minimum is 0 and its maximum 255.

    Args:
      x: [H, W, C].

    Returns:
      uint8 [H, W, C].
    """
    low, high = float(x.min()), float(x.max())
    scaled = (np.asarray(x, np.float64) - low) / max(high - low, 1e-12)
    return np.round(255 * scaled).astype(np.uint8)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Returns uint8 pixels [H, W, C] as an image; unless C is 3, the first channel in gray."""
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


def png(pixels: np.ndarray) -> bytes:
    """Returns uint8 pixels [H, W, C] as the bytes of a PNG file of the same size."""
    content = io.BytesIO()
    as_image(pixels).save(content, "png")
    return content.getvalue()
