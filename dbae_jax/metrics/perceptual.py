"""LPIPS: distances of images in the activations of a network."""

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
      net: the network.
      x: [N, H, W, 3] in [-1, 1], at their own size: the distance depends on it.
      y: the same shape.
      batch_size: pairs at a time.

    Raises:
      DataError: for other shapes, images below 31 pixels, or values that are not finite.
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
        parts = [np.float32(a[start : start + batch_size]) for a in (x, y)]
        count = len(parts[0])
        # The last batch is filled up: one compiled program serves all.
        fill = [(0, min(batch_size, len(x)) - count), (0, 0), (0, 0), (0, 0)]
        distances = _apply(net.params, *(np.pad(part, fill) for part in parts))
        found.append(np.asarray(distances)[:count])
    return np.concatenate(found)


def lpips(net: PerceptualNet, x: np.ndarray, y: np.ndarray, *, batch_size: int = 64) -> Score:
    """Returns the mean of `perceptual_distances`.

    It is called "lpips" for the published weights (alex, version 0.1) alone, and
    "perceptual_<network>" for others.
    """
    distances = perceptual_distances(net, x, y, batch_size=batch_size)
    mean = float(distances.mean(dtype=np.float64))
    size = list(x.shape[1:3])
    return named(mean, "lpips", "perceptual", net.origin, images=len(distances), size=size)


@jax.jit
def _apply(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return alexnet_lpips.apply(params, x, y)
