"""Conversion of images between uint8 [0, 255] and float32 [-1, 1], and PNG files of grids."""

import io
import pathlib
from collections.abc import Sequence
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dbae_jax.errors import DataError
from dbae_jax.runtime import files

Array = TypeVar("Array", jax.Array, np.ndarray)


def to_float(images: Array) -> Array:
    """Converts uint8 images [...] in [0, 255] to float32 in [-1, 1]; casts floats to float32."""
    if images.dtype == jnp.uint8:
        return cast(Array, images.astype(jnp.float32) / 127.5 - 1)
    return cast(Array, images.astype(jnp.float32))


def to_uint8(images: np.ndarray | jax.Array) -> np.ndarray:
    """Converts images [...] in [-1, 1] to uint8 in [0, 255], clipped and rounded to nearest.

    Images that are uint8 already are returned as they are.

    Raises:
      DataError: if values are NaN, or neither float nor uint8.
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" and array.dtype != jnp.bfloat16:
        raise DataError(f"images must be float in [-1, 1] or uint8, got {array.dtype}.")
    scaled = (array.astype(np.float32) + 1) * 127.5
    if np.isnan(scaled).any():
        raise DataError(
            "images hold NaN, so they cannot be written: the weights of the model that made "
            "them, or its input, hold NaN or infinity."
        )
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def grid(rows: Sequence[np.ndarray], *, scale: int = 1, gap: int = 2) -> np.ndarray:
    """Arranges images in a grid.

    Args:
      rows: one array [columns, H, W, C] in [-1, 1] per row, all of the same shape. Unless C is 3,
        the first channel is shown in gray.
      scale: number of times that each pixel is repeated in both directions.
      gap: width of the white lines between images, in pixels.

    Returns:
      uint8 [height, width, 3].
    """
    rows = [to_uint8(row).repeat(scale, axis=1).repeat(scale, axis=2) for row in rows]
    rows = [row if row.shape[-1] == 3 else row[..., :1].repeat(3, axis=-1) for row in rows]
    columns, height, width, _ = rows[0].shape
    canvas = np.full(
        (len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = gap + i * (height + gap), gap + j * (width + gap)
            canvas[y : y + height, x : x + width] = image
    return canvas


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes a uint8 image [H, W, C] as a PNG; unless C is 3, the first channel in gray."""
    _save_png(path, image if image.shape[-1] == 3 else image[..., 0])


def save_grid(path: pathlib.Path, rows: Sequence[np.ndarray]) -> None:
    """Writes the `grid` of images as a PNG; small images are enlarged to about 64 pixels.

    Args:
      path: path of the PNG.
      rows: one array [columns, H, W, C] in [-1, 1] per row, all of the same shape.
    """
    scale = max(1, 64 // rows[0].shape[1])
    _save_png(path, grid(rows, scale=scale))


def _save_png(path: pathlib.Path, pixels: np.ndarray) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    files.write_bytes(path, content.getvalue())
