"""What `DBAE` takes as images: arrays, PIL images, paths of files, or lists of these."""

import logging
import pathlib
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dbae_jax.configuration import paths
from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data import transforms
from dbae_jax.data.images import to_float
from dbae_jax.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_LOOKS_HALF = (
    "float images are all in [0, 1], and the model expects [-1, 1]: if they are pixels / 255, pass "
    "2 * images - 1, or uint8."
)

OneImage = np.ndarray | jax.Array | Image.Image | str | pathlib.Path
Images = OneImage | Sequence[OneImage]


def as_batch(images: Images, data: DataConfig) -> np.ndarray:
    """Returns images as one array, uint8 or float32, if they fit the model: [B, H, W, C].

    Args:
      images: an array [B, H, W, C] or [H, W, C], uint8 or float in [-1, 1]; a PIL image or the path
        of an image file, which are cropped and resized like the data set; or a list of these. A
        single image is a batch of one.
      data: section of the model's config, with the size, channels and crop of its images.

    Raises:
      DataError: if the shape, dtype or range is wrong, values are not finite, or a file cannot be
        read.
    """
    if isinstance(images, (str, pathlib.Path, Image.Image)):
        images = [images]
    if not isinstance(images, (list, tuple)):
        array = np.asarray(images)
        if array.ndim == 0:
            raise DataError(
                "images must be an array, a PIL image, the path of an image file, or a list of "
                f"these, got {type(images).__name__}."
            )
        return _check(array[None] if array.ndim == 3 else array, data)
    if not images:
        raise DataError("images must hold at least one image, got an empty list.")
    arrays = [_check(_one(image, data)[None], data) for image in images]
    if len({array.dtype for array in arrays}) > 1:
        arrays = [to_float(array) for array in arrays]
    return np.concatenate(arrays)


def read_file(path: str | pathlib.Path, data: DataConfig) -> np.ndarray:
    """Returns an image file as the model takes it, cropped like the data set: uint8 [S, S, C].

    Args:
      path: an image file of any type that PIL reads.
      data: section of the model's config, with the size, channels and crop of its images.

    Raises:
      DataError: if there is no such file, or it does not hold a suitable image.
    """
    try:
        file = paths.read(path, "the image")
        if file.is_dir():
            raise DataError("it is a folder; name an image file in it.")
        if file.exists() and not file.is_file():
            raise DataError("it is not a regular file; name an image file.")
        image = transforms.decode(file.read_bytes())
        fitted = _fit(image, data)
        _tell(path, image, data)
        return fitted
    except FileNotFoundError as error:
        hint = paths.nearest(file)
        raise DataError(f"There is no image file {path}; {hint}name an image file.") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; check its permissions."
        ) from error
    except ConfigError as error:
        raise DataError(str(error)) from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _tell(path: str | pathlib.Path, image: Image.Image, data: DataConfig) -> None:
    """Logs what is done to an image file that is not as the model takes it."""
    size, done = data.image_size, []
    if transforms.is_transparent(image):
        done.append(f"put on {data.background}")
    if image.width != image.height:
        done.append(f"cropped by the rule {data.crop!r}")
    if min(image.size) != size:
        done.append(f"{'enlarged' if min(image.size) < size else 'reduced'} to {size}x{size}")
    if done:
        log.info("%s (%dx%d) was %s.", path, image.width, image.height, ", ".join(done))


def _one(image: OneImage, data: DataConfig) -> np.ndarray:
    """Returns one image of a list: [H, W, C]."""
    if isinstance(image, (str, pathlib.Path)):
        return read_file(image, data)
    if isinstance(image, Image.Image):
        return _fit(transforms.loaded(image), data)
    array = np.asarray(image)
    if array.ndim != 3:
        raise DataError(f"an image of a list must be [H, W, C], got shape {list(array.shape)}.")
    return array


def _fit(image: Image.Image, data: DataConfig) -> np.ndarray:
    channels = transforms.channels_of(image)
    if channels != data.channels:
        kinds = {1: "gray (1 channel)", 3: "in colour (3 channels)"}
        raise DataError(
            f"the image is {kinds[channels]}, and the model's images have {data.channels}; "
            "convert the file."
        )
    return fitted(image, data)


def fitted(image: Image.Image, data: DataConfig) -> np.ndarray:
    """Returns an image as gray or RGB, cropped and resized like the data set: uint8 [S, S, C].

    Args:
      image: image of any size and mode.
      data: section of the model's config, with the size, channels, crop and background.
    """
    return transforms.fit(
        image,
        crop=data.crop,
        size=data.image_size,
        channels=data.channels,
        background=data.background,
    )


def _check(images: np.ndarray, data: DataConfig) -> np.ndarray:
    """Returns images [B, H, W, C] as uint8 or float32, or raises DataError."""
    size, channels = data.image_size, data.channels
    want = f"[B, {size}, {size}, {channels}]"
    if images.ndim != 4:
        raise DataError(f"images must have 4 axes, {want}, got shape {list(images.shape)}.")
    if images.shape[1:] != (size, size, channels):
        raise DataError(f"images must be {want} for this model, got {list(images.shape)}.")
    if images.shape[0] == 0:
        raise DataError(f"images must hold at least one image, got shape {list(images.shape)}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) and images.dtype != jnp.bfloat16:
        raise DataError(
            f"images must be uint8 or float in [-1, 1], got {images.dtype}; convert values from 0 "
            "to 255 with images.astype('uint8')."
        )
    if not np.isfinite(images).all():
        raise DataError("images hold values that are not finite (NaN or infinity).")
    low, high = float(images.min()), float(images.max())
    if low < -1 - 1e-6 or high > 1 + 1e-6:
        raise DataError(
            f"float images must lie in [-1, 1], got [{low:g}, {high:g}]; "
            "pass uint8, or scale 0..255 by x / 127.5 - 1."
        )
    if low >= 0 and high > 0.5:
        warnings.warn(_LOOKS_HALF, stacklevel=2)  # Python shows equal warnings once
    return images.astype(np.float32)
