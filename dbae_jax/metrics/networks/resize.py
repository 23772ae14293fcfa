"""Preparation of 8-bit images for the Inception network, by the three published methods.

Each method resizes rows and columns by the same linear map, so a matrix describes the method.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A resize followed by a linear map of the levels.

    Attributes:
      matrix: function (size, new_size) -> resize matrix [new_size, size].
      zero: level that becomes 0.
      scale: number of levels per unit.
    """

    matrix: Callable[[int, int], np.ndarray]
    zero: float
    scale: float


def tensorflow_1(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix of bilinear resizing that samples pixel i at i size / new_size.

    The original FID uses this resize, `ResizeBilinear` in the graph of 2015. Large images are not
    smoothed.
    """
    return _bilinear(np.arange(new_size) * (size / new_size), size)


def pytorch(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix of bilinear resizing with aligned pixel centres.

    Large images are not smoothed.
    """
    return _bilinear((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, size)


def pillow_bicubic(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix of cubic resizing (a = -1/2) with aligned pixel centres.

    Large images are smoothed.
    """
    widen = max(1.0, size / new_size)
    centres = (np.arange(new_size) + 0.5) * (size / new_size)
    distance = np.abs(np.arange(size)[None, :] + 0.5 - centres[:, None]) / widen
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


PREPARATIONS = {
    "tensorflow_1": Preparation(tensorflow_1, 128.0, 128.0),
    "pytorch": Preparation(pytorch, 127.5, 127.5),
    "pillow_bicubic": Preparation(pillow_bicubic, 128.0, 128.0),
}


def prepare(images: jax.Array, how: str, new_size: int) -> jax.Array:
    """Returns 8-bit images resized and scaled for a network.

    Args:
      images: uint8 [B, H, W, C].
      how: a key of PREPARATIONS.
      new_size: height and width of the result.

    Returns:
      Network input, float32 [B, new_size, new_size, C].
    """
    method = PREPARATIONS[how]
    sides = images.shape[1:3]
    rows, columns = (jnp.asarray(method.matrix(n, new_size), jnp.float32) for n in sides)
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("vw,bhwc->bhvc", columns, images.astype(jnp.float32), precision=exact)
    x = jnp.einsum("uh,bhvc->buvc", rows, x, precision=exact)
    return (x - method.zero) / method.scale


def _bilinear(positions: np.ndarray, size: int) -> np.ndarray:
    """Returns the matrix that interpolates linearly at the given positions, in pixels."""
    distance = np.abs(positions.clip(0, size - 1)[:, None] - np.arange(size))
    return np.maximum(1 - distance, 0)
