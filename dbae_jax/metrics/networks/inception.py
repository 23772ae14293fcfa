"""The Inception network of FID: InceptionV3 as in TensorFlow's graph of 2015-12-05.

The network differs from the InceptionV3 of current libraries. Its average poolings leave out the
padding, its last block has a max pooling instead of an average pooling, and it has 1008 classes.
The batch normalisation after each convolution has fixed statistics and is folded into it.

Source: Szegedy et al. (2015), arXiv:1512.00567; parameter names as in pytorch-fid.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.layers import Params

SIZE = 299
WIDTH, CLASSES = 2048, 1008
BATCH_NORM_EPS = 1e-3
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


class Outputs(NamedTuple):
    """Features and logits of a network.

    Attributes:
      pool: features [B, D]; for Inception those of FID, D = 2048.
      logits: class logits [B, K] or None; for Inception those of the Inception Score, K = 1008,
        without bias.
    """

    pool: jax.Array
    logits: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with ReLU: its name, output channels, kernel (height, width) and stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


# A layer is a convolution, the name of a pooling, or convolutions of the same input whose outputs
# are concatenated.
Layer = Conv | str | tuple[Conv, ...]
Branch = tuple[Layer, ...]


def _down(name: str, channels: int) -> Conv:
    """Returns a convolution that halves height and width."""
    return Conv(name, channels, (3, 3), stride=2, padding="VALID")


STEM: Branch = (
    _down("Conv2d_1a_3x3", 32),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    "max",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID"),
    "max",
)


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3)),
        ),
        ("average", Conv("branch_pool", pooled)),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", inner),
            Conv("branch7x7_2", inner, (1, 7)),
            Conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, (7, 1)),
            Conv("branch7x7dbl_3", inner, (1, 7)),
            Conv("branch7x7dbl_4", inner, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        ("average", Conv("branch_pool", 192)),
    )


def _block_e(pool: str) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 320),),
        (
            Conv("branch3x3_1", 384),
            (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, (3, 3)),
            (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Conv("branch_pool", 192)),
    )


BLOCK_B: tuple[Branch, ...] = (
    (_down("branch3x3", 384),),
    (
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, (3, 3)),
        _down("branch3x3dbl_3", 96),
    ),
    ("max",),
)
BLOCK_D: tuple[Branch, ...] = (
    (Conv("branch3x3_1", 192), _down("branch3x3_2", 320)),
    (
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        _down("branch7x7x3_4", 192),
    ),
    ("max",),
)

# The branches of a block have the same input, and their outputs are concatenated in this order.
BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": BLOCK_B,
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": BLOCK_D,
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("max_same"),
}

POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": lambda x: layers.max_pool(x, stride=2, padding="VALID"),
    "max_same": lambda x: layers.max_pool(x, stride=1, padding="SAME"),
    "average": layers.average_pool,
}


def apply(params: Params, x: jax.Array) -> Outputs:
    """Returns the features and logits of images.

    Args:
      params: parameters returned by `fold`.
      x: images [B, 299, 299, 3] in about [-1, 1], as `resize.prepare` returns them.
    """
    x = _branch(params, "", STEM, x)
    for name, branches in BLOCKS.items():
        parts = [_branch(params, f"{name}.", branch, x) for branch in branches]
        x = jnp.concatenate(parts, axis=-1)
    pool = x.mean(axis=(1, 2))
    logits = jnp.matmul(pool, params["fc.weight"].T, precision=jax.lax.Precision.HIGHEST)
    return Outputs(pool, logits)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the published parameters, in PyTorch's layout.

    The batch counters `*.num_batches_tracked` of some files are not included.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def add(prefix: str, branch: Branch, width: int) -> int:
        for layer in branch:
            if isinstance(layer, Conv):
                name = f"{prefix}{layer.name}"
                shapes[f"{name}.conv.weight"] = (layer.channels, width, *layer.kernel)
                for part in NORM_PARTS:
                    shapes[f"{name}.bn.{part}"] = (layer.channels,)
                width = layer.channels
            elif isinstance(layer, tuple):
                width = sum(add(prefix, (one,), width) for one in layer)
        return width

    width = add("", STEM, 3)
    for name, branches in BLOCKS.items():
        width = sum(add(f"{name}.", branch, width) for branch in branches)
    return shapes | {"fc.weight": (CLASSES, WIDTH), "fc.bias": (CLASSES,)}


def fold(state: Mapping[str, np.ndarray]) -> Params:
    """Folds the batch normalisations of published parameters into the convolutions.

    Args:
      state: published parameters with the shapes of `state_shapes`.

    Returns:
      Parameters for `apply`.
    """
    params = {"fc.weight": np.asarray(state["fc.weight"])}
    for key in state_shapes():
        if not key.endswith(".conv.weight"):
            continue
        name = key.removesuffix(".conv.weight")
        weight, bias, mean, variance = (
            state[f"{name}.bn.{part}"].astype(np.float64) for part in NORM_PARTS
        )
        scale = weight / np.sqrt(variance + BATCH_NORM_EPS)
        kernel = state[key].astype(np.float64) * scale[:, None, None, None]
        params[f"{name}.weight"] = kernel.astype(np.float32)
        params[f"{name}.bias"] = (bias - mean * scale).astype(np.float32)
    return params


def _branch(params: Params, prefix: str, branch: Branch, x: jax.Array) -> jax.Array:
    """Returns the output of a branch whose parameter names begin with `prefix`."""
    for layer in branch:
        if isinstance(layer, Conv):
            name = f"{prefix}{layer.name}"
            x = jax.nn.relu(layers.convolve(params, name, x, layer.stride, layer.padding))
        elif isinstance(layer, tuple):
            x = jnp.concatenate([_branch(params, prefix, (one,), x) for one in layer], axis=-1)
        else:
            x = POOLS[layer](x)
    return x
