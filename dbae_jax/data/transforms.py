"""From the bytes of an image file to the pixels of an example: decode, crop, resize.

Every resize is PIL's BILINEAR, which antialiases; LANCZOS is for copies that are stored smaller.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from dbae_jax.errors import ConfigError, DataError

ALIGNED_CELEBA = (178, 218)  # width, height of the images that "d2c" is made for
D2C_BOX = (25, 57, 153, 185)  # left, top, right, bottom: 128x128 around (89, 121)
ZOOM = 1.1

_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GRAY_MODES = ("1", "L", "LA", "La")


def decode(data: bytes) -> Image.Image:
    """Decodes an image file of any type that PIL reads, in the mode that the file has.

    Photographs are turned upright as their EXIF orientation says.

    Raises:
      DataError: if the bytes are no image, are cut off, or hold more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the image cannot be decoded: {reason.rstrip('.')}.") from error
    if image.mode not in _EIGHT_BIT_MODES:
        raise DataError(f"the image has mode {image.mode}; it must have 8 bits a channel.")
    return image


def channels_of(image: Image.Image) -> int:
    """Returns 1 for an image without colour, else 3."""
    return 1 if image.mode in _GRAY_MODES else 3


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Returns the image as RGB for 3 channels and as L for 1; transparency is dropped.

    Raises:
      ConfigError: for another number of channels.
    """
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise ConfigError(
            f"config.data.channels={channels} is not allowed: image files have 1 or 3."
        )
    return image.convert(modes[channels])


def load(data: bytes, *, crop: str, size: int, channels: int) -> np.ndarray:
    """Returns the pixels of an image file, cropped by a rule of `CROPS` and resized.

    Args:
      data: bytes of the file.
      crop: "center": the central square; "d2c": rows 57 to 184 and columns 25 to 152 of CelebA's
        aligned images; "short": the short side resized to `size`, then the centre; "zoom": the
        short side resized to int(1.1 size), then the centre.
      size: of the result, in pixels.
      channels: 3 for RGB, 1 for gray.

    Returns:
      uint8 [size, size, channels].

    Raises:
      DataError: if the bytes cannot be decoded or the crop does not fit the image.
      ConfigError: for an unknown crop or number of channels.

    Source: "d2c" DiffAE, dataset.py; "zoom" DiTi, LFW probe; "short" InfoDiffusion, CelebA.
    """
    if crop not in CROPS:
        raise ConfigError(f"config.data.crop={crop!r} is not allowed: it must be {_list(CROPS)}.")
    image = CROPS[crop](convert(decode(data), channels), size)
    pixels = np.asarray(image)
    return pixels.reshape(size, size, channels)


def shrink(image: Image.Image, size: int, encoding: str) -> bytes | None:
    """Returns an image file with short side `size` (LANCZOS) and its central square.

    Args:
      image: decoded.
      size: of the result, in pixels; nothing is enlarged.
      encoding: "png", lossless, or "webp", quality 90.

    Returns:
      The file's bytes; None if the image is a square that is no larger: its own file will do.

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
            f'the crop "d2c" is for aligned CelebA images of 178x218, this one has '
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
    width, height = (int(size * side / short) for side in image.size)  # cut, as torchvision does
    return image.resize((width, height), resampling)


def _crop_center(image: Image.Image, size: int) -> Image.Image:
    # Halves round to even, as in torchvision's center_crop.
    left, top = (round((side - size) / 2) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def _list(names: dict) -> str:
    return "one of " + ", ".join(names)


CROPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "center": _center,
    "d2c": _d2c,
    "zoom": _zoom,
    "short": _short,
}
