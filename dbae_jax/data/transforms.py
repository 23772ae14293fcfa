"""Decoding, cropping and resizing: from the bytes of an image file to the pixels of an example.

Examples are resized with PIL's BILINEAR, which antialiases. Stored copies are resized with LANCZOS.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from dbae_jax.errors import ConfigError, DataError

ALIGNED_CELEBA = (178, 218)  # width and height that the crop "d2c" expects
D2C_BOX = (25, 57, 153, 185)  # left, top, right, bottom: 128x128 around (89, 121)
ZOOM = 1.1  # ratio of the resized short side and the crop "zoom"

_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GRAY_MODES = ("1", "L", "LA", "La")


def decode(data: bytes) -> Image.Image:
    """Decodes an image file of any type that PIL reads, and keeps the mode of the file.

    Photographs are rotated upright according to their EXIF orientation.

    Args:
      data: bytes of the file.

    Raises:
      DataError: if the bytes are not an image, are cut off, or hold more than 8 bits per channel.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the image cannot be decoded: {reason.rstrip('.')}.") from error
    check_mode(image)
    return image


def check_mode(image: Image.Image) -> None:
    """Checks that an image has 8 bits per channel, and raises DataError otherwise."""
    if image.mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"the image has mode {image.mode}; it must have 8 bits per channel; convert the file."
        )


def channels_of(image: Image.Image) -> int:
    """Returns the number of channels: 1 for a gray image, 3 for a colour image."""
    return 1 if image.mode in _GRAY_MODES else 3


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Returns the image as RGB (3 channels) or gray (1 channel), with transparent parts on white.

    Editors leave arbitrary colours under transparent pixels, which nobody is meant to see.

    Args:
      image: decoded image.
      channels: 3 or 1.

    Raises:
      ConfigError: if `channels` is neither 1 nor 3.
    """
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise ConfigError(
            f"config.data.channels={channels} is not allowed: for image files it must be 1 or 3."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(modes[channels])


def load(data: bytes, *, crop: str, size: int, channels: int) -> np.ndarray:
    """Returns the pixels of an image file, cropped by a rule of `CROPS` and resized.

    Args:
      data: bytes of the file.
      crop: crop rule. "center": the central square. "d2c": rows 57 to 184 and columns 25 to 152
        of CelebA's aligned images. "short": the short side is resized to `size`, and the central
        square is cropped. "zoom": as "short", but the short side is resized to int(1.1 size).
      size: side of the result in pixels.
      channels: 3 (RGB) or 1 (gray).

    Returns:
      uint8 [size, size, channels].

    Raises:
      DataError: if the bytes cannot be decoded or the crop does not fit the image.
      ConfigError: if the crop or the number of channels is unknown.

    Source: "d2c" DiffAE, dataset.py; "zoom" DiTi, LFW probe; "short" InfoDiffusion, CelebA.
    """
    return fit(decode(data), crop=crop, size=size, channels=channels)


def fit(image: Image.Image, *, crop: str, size: int, channels: int) -> np.ndarray:
    """Returns the pixels of a decoded image, uint8 [size, size, channels]; see `load`."""
    if crop not in CROPS:
        raise ConfigError(
            f"config.data.crop={crop!r} is not allowed: it must be one of {', '.join(CROPS)}."
        )
    image = CROPS[crop](convert(image, channels), size)
    pixels = np.asarray(image)
    return pixels.reshape(size, size, channels)


def shrink(image: Image.Image, size: int, encoding: str) -> bytes | None:
    """Returns an image file of the central square, with its side reduced to `size` (LANCZOS).

    Args:
      image: decoded image.
      size: side of the square result in pixels; smaller images are cropped and not enlarged.
      encoding: "png" (lossless) or "webp" (quality 90).

    Returns:
      Bytes of the file; None for a square image that is no larger than `size`, because its
      published file can be stored.

    Source: DiffAE, data_resize_*.py (which writes JPEG of quality 100 for faces, WebP 90 for LSUN).
    """
    if image.width == image.height <= size:
        return None
    image = convert(image, channels_of(image))
    if min(image.size) > size:
        image = _resize_short(image, size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    options = {"png": {}, "webp": {"quality": 90}}[encoding]
    _crop_center(image, min(image.size)).save(buffer, format=encoding, **options)
    return buffer.getvalue()


def _center(image: Image.Image, size: int) -> Image.Image:
    return _resize(_crop_center(image, min(image.size)), size)


def _d2c(image: Image.Image, size: int) -> Image.Image:
    if image.size != ALIGNED_CELEBA:
        raise DataError(
            f'the crop "d2c" is for aligned CelebA images of 178x218, this image has '
            f'{image.width}x{image.height}; set config.data.crop="center".'
        )
    return _resize(image.crop(D2C_BOX), size)


def _zoom(image: Image.Image, size: int) -> Image.Image:
    return _crop_center(_resize_short(image, int(ZOOM * size), Image.Resampling.BILINEAR), size)


def _short(image: Image.Image, size: int) -> Image.Image:
    return _crop_center(_resize_short(image, size, Image.Resampling.BILINEAR), size)


def _resize(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _resize_short(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)  # down, as torchvision
    return image.resize((width, height), resampling)


def _crop_center(image: Image.Image, size: int) -> Image.Image:
    # Halves round to even, as in torchvision's center_crop.
    left, top = (round((side - size) / 2) for side in image.size)
    return image.crop((left, top, left + size, top + size))


CROPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "center": _center,
    "d2c": _d2c,
    "zoom": _zoom,
    "short": _short,
}
