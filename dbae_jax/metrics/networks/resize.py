"""From 8-bit images to the input of Inception: three ways that published numbers differ by.

Each way is linear and acts on rows and columns alike, so each is a matrix.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A resize, matrix(size, new_size) -> [new_size, size], and the levels that become 0 and 1."""

    matrix: Callable[[int, int], np.ndarray]
    zero: float
    scale: float


def tensorflow_1(size: int, new_size: int) -> np.ndarray:
    """Bilinear with the first pixels' corners aligned: pixel i stands for the place i size / new.

    What FID began with: `ResizeBilinear` in the graph of 2015. Large images are not smoothed.
    """
    return _bilinear(np.arange(new_size) * (size / new_size), size)


def pytorch(size: int, new_size: int) -> np.ndarray:
    """Bilinear with pixels' centres aligned; large images are not smoothed."""
    return _bilinear((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, size)


def pillow_bicubic(size: int, new_size: int) -> np.ndarray:
    """Cubic (a = -1/2) with pixels' centres aligned; large images are smoothed."""
    widen = max(1.0, size / new_size)
    places = (np.arange(new_size) + 0.5) * (size / new_size)
    distance = np.abs(np.arange(size)[None, :] + 0.5 - places[:, None]) / widen
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
    """Returns 8-bit images as the input of a network.

    Args:
      images: uint8 [B, H, W, C].
      how: a key of PREPARATIONS.
      new_size: height and width of the result.

    Returns:
      float32 [B, new_size, new_size, C].
    """
    way = PREPARATIONS[how]
    rows, columns = (jnp.asarray(way.matrix(n, new_size), jnp.float32) for n in images.shape[1:3])
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("vw,bhwc->bhvc", columns, images.astype(jnp.float32), precision=exact)
    x = jnp.einsum("uh,bhvc->buvc", rows, x, precision=exact)
    return (x - way.zero) / way.scale


def _bilinear(places: np.ndarray, size: int) -> np.ndarray:
    places = places.clip(0, size - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((len(places), size))
    rows = np.arange(len(places))
    np.add.at(matrix, (rows, low), 1 - (places - low))
    np.add.at(matrix, (rows, high), places - low)
    return matrix
