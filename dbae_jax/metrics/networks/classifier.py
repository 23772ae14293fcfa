"""A small convolutional network from images to labels, whose last hidden layer are its features.

For data of which the published networks know nothing. `evaluation.classifier.fit` trains it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.layers import Params

WIDTH = 64  # of the features
CHANNELS, MOST_CHANNELS = 16, 128  # after the first convolution, and the bound of their doubling
SMALLEST = 4  # pixels a side at which the features are read


def shapes(size: int, channels: int, labels: int) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the arrays for images [size, size, channels].

    One convolution of stride 2 halves the image until 4 pixels a side (or less) are left.
    """
    found: dict[str, tuple[int, ...]] = {}
    width, level = channels, 0
    while size > SMALLEST or not level:
        out = min(CHANNELS * 2**level, MOST_CHANNELS)
        found |= {f"conv{level}.weight": (out, width, 3, 3), f"conv{level}.bias": (out,)}
        width, size, level = out, -(-size // 2), level + 1
    found |= {"hidden.weight": (size * size * width, WIDTH), "hidden.bias": (WIDTH,)}
    return found | {"labels.weight": (WIDTH, labels), "labels.bias": (labels,)}


def draw(key: jax.Array, wanted: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """Draws arrays of `shapes`: weights that keep the scale through ReLU, biases 0."""
    drawn = {}
    for i, (name, shape) in enumerate(wanted.items()):
        if name.endswith("bias"):
            drawn[name] = jnp.zeros(shape)
            continue
        inputs = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        gain = 1.0 if name.startswith("labels") else 2.0
        normal = jax.random.normal(jax.random.fold_in(key, i), shape)
        drawn[name] = normal * np.float32(np.sqrt(gain / inputs))
    return drawn


def apply(params: Params, images: jax.Array) -> Outputs:
    """Returns features [B, 64] and logits [B, labels] of images: uint8 [B, H, W, C]."""
    x = images.astype(jnp.float32) / 127.5 - 1
    for level in range(sum(name.startswith("conv") for name in params) // 2):
        x = jax.nn.relu(layers.convolve(params, f"conv{level}", x, 2))
    features = jax.nn.relu(_dense(params, "hidden", x.reshape(len(x), -1)))
    return Outputs(features, _dense(params, "labels", features))


def _dense(params: Params, name: str, x: jax.Array) -> jax.Array:
    exact = jax.lax.Precision.HIGHEST
    y = jnp.matmul(x, jnp.asarray(params[f"{name}.weight"]), precision=exact)
    return y + params[f"{name}.bias"][None]
