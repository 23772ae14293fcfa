"""The Inception network of FID: InceptionV3 as in TensorFlow's graph of 2015-12-05.

It differs from the InceptionV3 of today's libraries: averages leave the padding out, the last block
takes maxima where the paper has averages, and there are 1008 classes. Each convolution has no bias
and is followed by a normalisation with fixed statistics, which is folded into it here.

Source: Szegedy et al. (2015), arXiv:1512.00567; names of arrays as in pytorch-fid.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.metrics.networks import layers
from dbae_jax.metrics.networks.layers import Params

SIZE = 299
WIDTH, CLASSES = 2048, 1008
BATCH_NORM_EPS = 1e-3


class Outputs(NamedTuple):
    """pool: [B, 2048], features of FID. logits: [B, 1008], without bias, as the IS wants them.

    Of other networks: features [B, D], and logits [B, K] or None.
    """

    pool: jax.Array
    logits: jax.Array | None


class Conv(NamedTuple):
    """A convolution with ReLU: its name, channels, kernel (height, width) and stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


Branch = tuple[Conv, ...]
DOWN = {"stride": 2, "padding": "VALID"}

STEM = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), **DOWN),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    "max",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID"),
    "max",
)


def _block_a(pooled: int) -> tuple:
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


def _block_c(inner: int) -> tuple:
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


def _block_e(pool: str) -> tuple:
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


BLOCK_B = (
    (Conv("branch3x3", 384, (3, 3), **DOWN),),
    (
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, (3, 3)),
        Conv("branch3x3dbl_3", 96, (3, 3), **DOWN),
    ),
    ("max",),
)
BLOCK_D = (
    (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), **DOWN)),
    (
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        Conv("branch7x7x3_4", 192, (3, 3), **DOWN),
    ),
    ("max",),
)

# A block's branches stand side by side, and their channels are joined in this order.
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
    """Returns the features of images.

    Args:
      params: of `fold`.
      x: [B, 299, 299, 3], in about [-1, 1], as `resize.prepare` makes them.
    """
    x = _branch(params, "", STEM, x)
    for name, branches in BLOCKS.items():
        parts = [_branch(params, f"{name}.", branch, x) for branch in branches]
        x = jnp.concatenate(parts, axis=-1)
    pool = x.mean(axis=(1, 2))
    logits = jnp.matmul(pool, params["fc.weight"].T, precision=jax.lax.Precision.HIGHEST)
    return Outputs(pool, logits)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the published arrays, in PyTorch's layout.

    Counters of batches, `*.num_batches_tracked`, which some files hold, are not among them.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def add(prefix: str, branch: Branch, width: int) -> int:
        for layer in branch:
            if isinstance(layer, Conv):
                name = f"{prefix}{layer.name}"
                shapes[f"{name}.conv.weight"] = (layer.channels, width, *layer.kernel)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{name}.bn.{part}"] = (layer.channels,)
                width = layer.channels
            elif isinstance(layer, tuple):
                width = sum(add(prefix, (one,), width) for one in layer)
        return width

    width = add("", STEM, 3)
    for name, branches in BLOCKS.items():
        width = sum(add(f"{name}.", branch, width) for branch in branches)
    return shapes | {"fc.weight": (CLASSES, WIDTH), "fc.bias": (CLASSES,)}


def fold(state: dict[str, np.ndarray]) -> Params:
    """Returns parameters of `apply` from the arrays of `state_shapes`: normalisations folded in."""
    params = {"fc.weight": np.asarray(state["fc.weight"])}
    for key in state_shapes():
        if not key.endswith(".conv.weight"):
            continue
        name = key.removesuffix(".conv.weight")
        part = {k: np.float64(state[f"{name}.bn.{k}"]) for k in ("weight", "bias")}
        mean, variance = (np.float64(state[f"{name}.bn.running_{k}"]) for k in ("mean", "var"))
        scale = part["weight"] / np.sqrt(variance + BATCH_NORM_EPS)
        kernel = np.float64(state[key]) * scale[:, None, None, None]
        params[f"{name}.weight"] = kernel.astype(np.float32)
        params[f"{name}.bias"] = (part["bias"] - mean * scale).astype(np.float32)
    return params


def _branch(params: Params, prefix: str, branch: Branch, x: jax.Array) -> jax.Array:
    for layer in branch:
        if isinstance(layer, Conv):
            name, rest = f"{prefix}{layer.name}", (layer.stride, layer.padding)
            x = jax.nn.relu(layers.convolve(params, name, x, *rest))
        elif isinstance(layer, tuple):
            x = jnp.concatenate([_branch(params, prefix, (one,), x) for one in layer], axis=-1)
        else:
            x = POOLS[layer](x)
    return x
