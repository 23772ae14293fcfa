"""Convolution of several feature maps as if concatenated, such as [h, skip] in the U-Net."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Feature maps [B, H, W, C_i] that stand for their concatenation over channels, [B, H, W, C].
Parts = tuple[jax.Array, ...]


def split_as(parts: Parts, x: jax.Array, axis: int = -1) -> list[jax.Array]:
    """Splits x along `axis` into pieces whose lengths are the channel counts C_i of `parts`."""
    boundaries = list(itertools.accumulate(part.shape[-1] for part in parts))
    return jnp.split(x, boundaries[:-1], axis=axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def of_parts(function: Callable, parts: Parts, by_channel: Any, kernel: jax.Array) -> jax.Array:
    """Returns function(x, by_channel, kernel), where x is the concatenation of parts.

    The backward pass computes the gradient of each part separately. One gradient of the
    concatenation would be written as a whole, and read as a whole by the backward pass of each
    part. The concatenation in the forward pass costs nothing: compilers read the parts directly
    into the convolution.

    Args:
      function: a convolution of channels to which a channelwise operation was applied. It must be
        linear in `kernel` and a sum over input channels, and each channel of x may only be combined
        with its own entry of `by_channel`.
      parts: feature maps [B, H, W, C_i].
      by_channel: tree of arrays [..., C], parameters of the channelwise operation.
      kernel: [h, w, C, channels].
    """
    return function(jnp.concatenate(parts, axis=-1), by_channel, kernel)


def _forward(function, parts, by_channel, kernel):
    return of_parts(function, parts, by_channel, kernel), (parts, by_channel, kernel)


def _backward(function, residuals, grad):
    parts, by_channel, kernel = residuals

    def sum_over_parts(parts, by_channel):
        leaves, tree = jax.tree.flatten(by_channel)
        split_leaves = [split_as(parts, leaf) for leaf in leaves]
        kernels = split_as(parts, kernel, axis=2)
        return sum(
            function(part, jax.tree.unflatten(tree, [leaf[i] for leaf in split_leaves]), kernels[i])
            for i, part in enumerate(parts)
        )

    def of_kernel(kernel):
        return function(jnp.concatenate(parts, axis=-1), by_channel, kernel)

    _, vjp_of_parts = jax.vjp(sum_over_parts, parts, by_channel)
    _, vjp_of_kernel = jax.vjp(of_kernel, kernel)
    return (*vjp_of_parts(grad), *vjp_of_kernel(grad))


of_parts.defvjp(_forward, _backward)
