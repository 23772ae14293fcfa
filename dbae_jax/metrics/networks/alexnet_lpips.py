"""The network of LPIPS (alex): AlexNet's convolutions, with a weight for each of their channels.

Source: Zhang et al. (2018), version 0.1; parameter names as in torchvision and `lpips`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.layers import Params

# Means and standard deviations of ImageNet's pixels, for images in [-1, 1].
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
NORM_EPS = 1e-10
SMALLEST = 31  # pixels per side; a smaller image has no pixel left after the poolings

# Name, input channels, output channels, kernel, stride, padding, and whether max pooling precedes.
CONVS = (
    ("features.0", 3, 64, 11, 4, 2, False),
    ("features.3", 64, 192, 5, 1, 2, True),
    ("features.6", 192, 384, 3, 1, 1, True),
    ("features.8", 384, 256, 3, 1, 1, False),
    ("features.10", 256, 256, 3, 1, 1, False),
)


def apply(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the distance of each pair of images: [B].

    Args:
      params: parameters with the shapes of `trunk_shapes` and `linear_shapes`.
      x: images [B, H, W, 3] in [-1, 1], not resized.
      y: images of the same shape.
    """
    distance = jnp.zeros(len(x), jnp.float32)
    levels = zip(_activations(params, x), _activations(params, y), strict=True)
    for i, (a, b) in enumerate(levels):
        weights = jnp.asarray(params[f"lin{i}.model.1.weight"]).reshape(1, 1, 1, -1)
        difference = jnp.sum((_direction(a) - _direction(b)) ** 2 * weights, axis=-1)
        distance = distance + difference.mean(axis=(1, 2))
    return distance


def trunk_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the parameter names and shapes of AlexNet's convolutions, in PyTorch's layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, width, channels, kernel, *_ in CONVS:
        shapes[f"{name}.weight"] = (channels, width, kernel, kernel)
        shapes[f"{name}.bias"] = (channels,)
    return shapes


def linear_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the channel weights."""
    return {f"lin{i}.model.1.weight": (1, conv[2], 1, 1) for i, conv in enumerate(CONVS)}


def _activations(params: Params, x: jax.Array) -> list[jax.Array]:
    x, seen = (x - SHIFT[None, None, None]) / SCALE[None, None, None], []
    for name, _, _, _, stride, padding, pooled in CONVS:
        if pooled:
            x = layers.max_pool(x, stride=2, padding="VALID")
        x = jax.nn.relu(layers.convolve(params, name, x, stride, [(padding, padding)] * 2))
        seen.append(x)
    return seen


def _direction(x: jax.Array) -> jax.Array:
    return x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)) + NORM_EPS)
