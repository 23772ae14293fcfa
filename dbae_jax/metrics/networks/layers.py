"""Layers for parameters with PyTorch's names and kernel layout [out, in, height, width]."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Params = Mapping[str, np.ndarray | jax.Array]
Padding = str | Sequence[tuple[int, int]]


def convolve(
    params: Params, name: str, x: jax.Array, stride: int = 1, padding: Padding = "SAME"
) -> jax.Array:
    """Returns `name`.weight convolved with x [B, H, W, C], plus `name`.bias."""
    y = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(params[f"{name}.weight"]),
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        # Published scores use float32; by default, accelerators round the factors to fewer bits.
        precision=jax.lax.Precision.HIGHEST,
    )
    return y + params[f"{name}.bias"][None, None, None]


def max_pool(x: jax.Array, *, stride: int, padding: str) -> jax.Array:
    """Returns maxima over 3 x 3 pixels; the padding is minus infinity."""
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def average_pool(x: jax.Array) -> jax.Array:
    """Returns means over 3 x 3 pixels at stride 1, only of pixels inside the image."""

    def total(values: jax.Array) -> jax.Array:
        ones = (1, 1, 1, 1)
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, 3, 3, 1), ones, "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
