"""Feature maps that count as one, concatenated, such as [h, skip] on a U-Net's way up."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Parts = tuple[jax.Array, ...]  # [B, H, W, C_i] each


def split_as(parts: Parts, x: jax.Array, axis: int = -1) -> list[jax.Array]:
    """Cuts `axis` of x into pieces as long as the channels of `parts`."""
    ends = list(itertools.accumulate(part.shape[-1] for part in parts))
    return jnp.split(x, ends[:-1], axis=axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def of_parts(function: Callable, parts: Parts, by_channel: Any, kernel: jax.Array) -> jax.Array:
    """Returns function(x, by_channel, kernel) for x the concatenation of parts.

    The gradients of the parts are made part by part: made in one, they would be written whole,
    and read whole by all that comes before each part. The concatenation itself costs nothing:
    compilers read the parts straight into a convolution.

    Args:
      function: linear in `kernel`, and a sum over the input channels of terms in which each
        channel of x meets its own `by_channel` alone: a convolution of channels acted on.
      parts: the feature maps.
      by_channel: a tree of [..., C] of all channels.
      kernel: [h, w, C, channels].
    """
    return function(jnp.concatenate(parts, axis=-1), by_channel, kernel)


def _forward(function, parts, by_channel, kernel):
    return of_parts(function, parts, by_channel, kernel), (parts, by_channel, kernel)


def _backward(function, kept, grad):
    parts, by_channel, kernel = kept

    def by_parts(parts, by_channel):
        leaves, tree = jax.tree.flatten(by_channel)
        cut = [split_as(parts, leaf) for leaf in leaves]
        kernels = split_as(parts, kernel, axis=2)
        return sum(
            function(part, jax.tree.unflatten(tree, [pieces[i] for pieces in cut]), kernels[i])
            for i, part in enumerate(parts)
        )

    def by_kernel(kernel):
        return function(jnp.concatenate(parts, axis=-1), by_channel, kernel)

    _, pull_back = jax.vjp(by_parts, parts, by_channel)
    _, pull_back_kernel = jax.vjp(by_kernel, kernel)
    return (*pull_back(grad), *pull_back_kernel(grad))


of_parts.defvjp(_forward, _backward)
