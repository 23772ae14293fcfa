"""LPIPS: distances between images in the activations of a network."""

import jax
import numpy as np

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks
from dbae_jax.metrics.networks import alexnet_lpips
from dbae_jax.metrics.networks.layers import Params
from dbae_jax.metrics.networks.published import PerceptualNet
from dbae_jax.metrics.scores import Score, named


def perceptual_distances(
    net: PerceptualNet, x: np.ndarray, y: np.ndarray, *, batch_size: int = 64
) -> np.ndarray:
    """Returns the distance of each pair of images: [N], float32, at least 0.

    Args:
      net: network of LPIPS.
      x: images [N, H, W, 3] in [-1, 1], not resized; the distance depends on their size.
      y: images of the same shape.
      batch_size: pairs per batch.

    Raises:
      DataError: if the shapes are different, if a side is below 31 pixels, or if a value is not
        finite.
    """
    x, y = checks.image_pair(x, y)
    smallest = alexnet_lpips.SMALLEST
    if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < smallest:
        raise DataError(
            f"the network compares images [N, >= {smallest}, >= {smallest}, 3], "
            f"got {list(x.shape)}."
        )
    found = []
    for start in range(0, len(x), batch_size):
        parts = [a[start : start + batch_size].astype(np.float32) for a in (x, y)]
        count = len(parts[0])
        # The last batch is padded, so that one compiled program runs every batch.
        fill = [(0, min(batch_size, len(x)) - count), (0, 0), (0, 0), (0, 0)]
        distances = _apply(net.params, *(np.pad(part, fill) for part in parts))
        found.append(np.asarray(distances)[:count])
    return np.concatenate(found)


def lpips(net: PerceptualNet, x: np.ndarray, y: np.ndarray, *, batch_size: int = 64) -> Score:
    """Returns the mean of `perceptual_distances`.

    The score is called "lpips" only for the published weights (alex, version 0.1), and
    "perceptual_<network>" for other weights.
    """
    distances = perceptual_distances(net, x, y, batch_size=batch_size)
    mean = float(distances.mean(dtype=np.float64))
    size = list(x.shape[1:3])
    return named(mean, "lpips", "perceptual", net.origin, images=len(distances), size=size)


@jax.jit
def _apply(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return alexnet_lpips.apply(params, x, y)
