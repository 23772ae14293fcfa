"""Decoding, cropping and resizing: from the bytes of an image file to the pixels of an example.

Examples are resized with PIL's BILINEAR, which antialiases. Stored copies are resized with LANCZOS.
"""

import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dbae_jax.data.files.file_names import IMAGE_SUFFIXES
from dbae_jax.errors import ConfigError, DataError

ALIGNED_CELEBA = (178, 218)  # width and height that the crop "d2c" expects
D2C_BOX = (25, 57, 153, 185)  # left, top, right, bottom: 128x128 around (89, 121)
MOST_STRETCH = 500  # ratio of the sides above which "short" and "zoom" would fill the memory
ZOOM = 1.1  # ratio of the resized short side and the crop "zoom"

# EXIF orientation -> transposition that turns the image upright, as PIL.ImageOps.exif_transpose.
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_OTHER_MODES = {"I": "16 or 32 bits per pixel", "F": "pixels that are fractions"}
_OTHER_MODES |= {"LAB": "CIELAB colours", "HSV": "colours as hue, saturation and value"}
_GRAY_MODES = ("1", "L", "LA", "La")


class Examined(NamedTuple):
    """A decoded image, and what was found in its file: names of `FINDINGS`."""

    image: Image.Image
    findings: tuple[str, ...]


def decode(data: bytes) -> Image.Image:
    """Decodes an image file of any type that PIL reads, and keeps the mode of the file.

    Of a file with several pictures, the first is read. Photographs are rotated upright according
    to their EXIF orientation; the other EXIF fields are neither read nor kept.

    Args:
      data: bytes of the file.

    Raises:
      DataError: if the bytes are not an image, are cut off, are too large, or hold more than 8 bits
        per channel.
    """
    return _upright(_opened(data))


def loaded(image: Image.Image) -> Image.Image:
    """Returns a PIL image as `decode` returns that of a file: loaded, checked and upright.

    Raises:
      DataError: as `decode`.
    """
    try:
        image.load()
    except Exception as error:  # of a damaged file that PIL has only opened so far
        raise DataError(f"the image cannot be decoded: {_reason(error)}; open another.") from error
    if 0 in image.size:
        raise DataError(f"the image is {image.width}x{image.height} and has no pixels.")
    check_mode(image)
    return _upright(image)


def examine(data: bytes) -> Examined:
    """Decodes an image file as `decode` does, and says what is in it."""
    image = _opened(data)
    upright = _upright(image)
    found = {
        "transparent": is_transparent(image),
        "several": _has_several(data),
        "rotated": upright is not image,
        "gray": image.mode in _GRAY_MODES,
        "palette": image.mode in ("P", "PA"),
        "converted": image.mode in ("CMYK", "YCbCr"),
        "cropped": image.width != image.height,
    }
    return Examined(upright, tuple(name for name, holds in found.items() if holds))


@functools.cache
def formats() -> tuple[str, ...]:
    """Returns PIL's names of the formats that are read, those of `file_names.IMAGE_SUFFIXES`.

    PIL tells formats by their content. Others are not tried: for PostScript it would run another
    program.
    """
    Image.init()
    known = Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in IMAGE_SUFFIXES if suffix in known}))


def _opened(data: bytes) -> Image.Image:
    """Returns the image of a file, not yet rotated."""
    if not data:
        raise DataError("the image cannot be decoded: the file is empty; copy it again.")
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
        image.load()
    except Image.DecompressionBombError as error:
        size = str(error).partition(",")[0].replace("Image size", "its size").lower()
        raise DataError(f"the image is too large to be decoded: {size}; reduce it.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            "the image cannot be decoded: its content is no supported image format, whatever its "
            f"suffix; it begins with {data[:16]!r}; convert it to PNG or JPEG, or remove it."
        ) from error
    except Exception as error:  # PIL's readers raise errors of any type for damaged files
        raise DataError(
            f"the image cannot be decoded: {_reason(error)}; copy the file again, or convert it."
        ) from error
    check_mode(image)
    return image


def _has_several(data: bytes) -> bool:
    """Returns whether a file holds an animation or several pages; previews do not count."""
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            return image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except Exception:  # the first picture has been read; what follows it is damaged
        return True


# What `examine` finds -> a description of such images.
FINDINGS = {
    "transparent": "transparent (shown on config.data.background)",
    "several": "files of several pictures (the first is read)",
    "rotated": "rotated as their EXIF orientation states",
    "gray": "gray",
    "palette": "with a palette of colours (read as colour)",
    "converted": "in CMYK or YCbCr (converted to RGB, without colour profiles)",
    "cropped": "not square (cropped)",
}


def is_transparent(image: Image.Image) -> bool:
    """Returns whether a part of an image is transparent.

    Raises:
      DataError: if the image cannot be converted, because its palette is damaged.
    """
    if not image.has_transparency_data:
        return False
    return bool((np.asarray(_converted(image, "RGBA"))[..., 3] < 255).any())


def _converted(image: Image.Image, mode: str) -> Image.Image:
    try:
        return image.convert(mode)
    except Exception as error:  # PIL raises errors of any type for damaged palettes
        raise DataError(
            f"the colours of the image cannot be read: {_reason(error)}; copy the file again, or "
            "convert it."
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """Returns an image rotated as its EXIF orientation states."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF that cannot be read states no orientation, and the pixels are whole
        orientation = None
    method = _TRANSPOSED.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _reason(error: Exception) -> str:
    """Returns the message of a library's error, or its type, as part of a sentence."""
    text = " ".join(str(error).split())
    known = isinstance(error, OSError | ValueError | SyntaxError) and text
    return (text if known else f"{type(error).__name__} {text}".strip()).rstrip(".")


def check_mode(image: Image.Image) -> None:
    """Checks that an image has 8 bits per channel, and raises DataError otherwise."""
    if image.mode not in _EIGHT_BIT_MODES:
        kind = _OTHER_MODES.get(image.mode.partition(";")[0], "another kind of pixels")
        raise DataError(
            f"the image has mode {image.mode}, {kind}; it must have 8 bits per channel; convert "
            "the file, so that its brightness is scaled as you want it."
        )


def channels_of(image: Image.Image) -> int:
    """Returns the number of channels: 1 for a gray image, 3 for a colour image."""
    return 1 if image.mode in _GRAY_MODES else 3


def convert(image: Image.Image, channels: int, background: str = "white") -> Image.Image:
    """Returns the image as RGB (3 channels) or gray (1 channel), without transparency.

    Editors leave arbitrary colours under transparent pixels, which nobody is meant to see.

    Args:
      image: decoded image.
      channels: 3 or 1.
      background: colour under transparent parts, a name or #RRGGBB.

    Raises:
      ConfigError: if `channels` is neither 1 nor 3.
      DataError: if the image cannot be converted, because its palette is damaged.
    """
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise ConfigError(
            f"config.data.channels={channels} is not allowed: for image files it must be 1 or 3."
        )
    if image.has_transparency_data:
        image = _converted(image, "RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return _converted(image, modes[channels])


def load(
    data: bytes, *, crop: str, size: int, channels: int, background: str = "white"
) -> np.ndarray:
    """Returns the pixels of an image file, cropped by a rule of `CROPS` and resized.

    Args:
      data: bytes of the file.
      crop: crop rule. "center": the central square. "d2c": rows 57 to 184 and columns 25 to 152
        of CelebA's aligned images. "short": the short side is resized to `size`, and the central
        square is cropped. "zoom": as "short", but the short side is resized to int(1.1 size).
      size: side of the result in pixels.
      channels: 3 (RGB) or 1 (gray).
      background: colour under transparent parts, a name or #RRGGBB.

    Returns:
      uint8 [size, size, channels].

    Raises:
      DataError: if the bytes cannot be decoded or the crop does not fit the image.
      ConfigError: if the crop or the number of channels is unknown.

    Source: "d2c" DiffAE, dataset.py; "zoom" DiTi, LFW probe; "short" InfoDiffusion, CelebA.
    """
    return fit(decode(data), crop=crop, size=size, channels=channels, background=background)


def fit(
    image: Image.Image, *, crop: str, size: int, channels: int, background: str = "white"
) -> np.ndarray:
    """Returns the pixels of a decoded image, uint8 [size, size, channels]; see `load`."""
    if crop not in CROPS:
        raise ConfigError(
            f"config.data.crop={crop!r} is not allowed: it must be one of {', '.join(CROPS)}."
        )
    image = CROPS[crop](convert(image, channels, background), size)
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
    image = _stored_mode(image)
    if min(image.size) > size:
        image = _resize_short(image, size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    options = {"png": {}, "webp": {"quality": 90}}[encoding]
    _crop_center(image, min(image.size)).save(buffer, format=encoding, **options)
    return buffer.getvalue()


def _stored_mode(image: Image.Image) -> Image.Image:
    """Returns an image as gray or RGB; transparent parts stay transparent."""
    if not is_transparent(image):
        return convert(image, channels_of(image))
    return _converted(image, "LA" if channels_of(image) == 1 else "RGBA")


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
    if max(width, height) > MOST_STRETCH * size:
        raise DataError(
            f"the image has {image.width}x{image.height} pixels, and its sides differ by more than "
            f"a factor of {MOST_STRETCH}; crop it."
        )
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
