"""The layers of the classifier, a small convolutional network that is trained on labels.

Its last hidden layer gives features for data sets that the published networks were not trained on.
`dbae_jax.evaluation.classifier.fit` trains the network.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.layers import Params

WIDTH = 64  # number of features
CHANNELS, MOST_CHANNELS = 16, 128  # the first convolution's channels, and the most after doubling
SMALLEST = 4  # convolutions halve the image until its sides have at most 4 pixels


def shapes(size: int, channels: int, labels: int) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the parameters for images [size, size, channels].

    Each convolution has stride 2. There are as many as needed to reach 4 pixels per side or less,
    and at least one.
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
    """Draws initial parameters of the given shapes.

    Weights are normal with variance 2 / inputs (He), in the last layer 1 / inputs. Biases are 0.
    """
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
    """Returns features [B, 64] and logits [B, labels] of uint8 images [B, H, W, C]."""
    x = images.astype(jnp.float32) / 127.5 - 1
    for level in range(sum(name.startswith("conv") for name in params) // 2):
        x = jax.nn.relu(layers.convolve(params, f"conv{level}", x, 2))
    features = jax.nn.relu(_dense(params, "hidden", x.reshape(len(x), -1)))
    return Outputs(features, _dense(params, "labels", features))


def _dense(params: Params, name: str, x: jax.Array) -> jax.Array:
    exact = jax.lax.Precision.HIGHEST
    y = jnp.matmul(x, jnp.asarray(params[f"{name}.weight"]), precision=exact)
    return y + params[f"{name}.bias"][None]
