"""VGG16 as a feature network: its features are the second hidden layer after the ReLU.

Improved precision and recall were introduced with these features. The weights here are those of
torchvision. The published scores use a different conversion of the same weights, so their last
digits may differ.

Source: Simonyan and Zisserman (2015); features as in Kynkaanniemi et al. (2019).
"""

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.layers import Params

SIZE, WIDTH, POOLED = 224, 4096, 7
# Means and standard deviations of ImageNet's pixels in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
# Channels of the convolutions of each block. Max pooling over 2 x 2 pixels ends each block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def apply(params: Params, x: jax.Array) -> Outputs:
    """Returns the features of images, without logits.

    Args:
      params: parameters with the shapes of `state_shapes`.
      x: images [B, 224, 224, 3] in [-1, 1].
    """
    x = ((x + 1) / 2 - MEAN[None, None, None]) / STD[None, None, None]
    for block in _names():
        for name in block:
            x = jax.nn.relu(layers.convolve(params, name, x))
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)  # channels first, as in PyTorch
    for name in ("classifier.0", "classifier.3"):
        weight = jnp.asarray(params[f"{name}.weight"])
        y = jnp.einsum("bi,oi->bo", x, weight, precision=jax.lax.Precision.HIGHEST)
        x = jax.nn.relu(y + params[f"{name}.bias"][None])
    return Outputs(x, None)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the parameter names and shapes in PyTorch's layout, without the last layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = 3
    for names, channels in zip(_names(), BLOCKS, strict=True):
        for name, out in zip(names, channels, strict=True):
            shapes |= {f"{name}.weight": (out, width, 3, 3), f"{name}.bias": (out,)}
            width = out
    for name, inputs in (("classifier.0", width * POOLED**2), ("classifier.3", WIDTH)):
        shapes |= {f"{name}.weight": (WIDTH, inputs), f"{name}.bias": (WIDTH,)}
    return shapes


def _names() -> list[list[str]]:
    """Returns the names of each block's convolutions; ReLUs and poolings have numbers too."""
    names, first = [], 0
    for block in BLOCKS:
        names.append([f"features.{first + 2 * i}" for i in range(len(block))])
        first += 2 * len(block) + 1
    return names
