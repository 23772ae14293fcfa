"""Activations of scaled and shifted feature maps, whose backward pass computes them again.

A norm is a scale and a shift per channel (`Affine`). The activation that follows reads the feature
map as the convolution wrote it. Nothing but that feature map is stored for the backward pass.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dbae_jax.runtime.platforms import by_gpu

# From this height and width on, GPUs sum over a feature map in two steps, see `_in_two_steps`.
STAGED_SIZE = 8


class Affine(NamedTuple):
    """A scale and a shift per image and channel, float32: [B, C] each, or [1, C] for all images."""

    scale: jax.Array
    shift: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """Returns x: [B, H, W, C] scaled and shifted, computed in float32, in the dtype of x."""
        return self.in_float32(x).astype(x.dtype)

    def in_float32(self, x: jax.Array) -> jax.Array:
        """Returns x: [B, H, W, C] scaled and shifted, in float32."""
        return x.astype(jnp.float32) * self.scale[:, None, None] + self.shift[:, None, None]


def silu(
    x: jax.Array, affine: Affine, kept: jax.Array | None = None, rate: float = 0.0
) -> jax.Array:
    """Returns SiLU(affine(x)) with dropout: [B, H, W, C], in the dtype of x.

    Args:
      x: [B, H, W, C].
      affine: scale and shift.
      kept: the entries that dropout keeps, bool [B, H, W, C]; None for no dropout.
      rate: dropout rate.
    """
    return _activated(_silu, rate, x, affine, kept)


def glu(x: jax.Array, affine: Affine) -> jax.Array:
    """Returns a * sigmoid(b), where affine(x): [B, H, W, 2C] is [a, b]: [B, H, W, C]."""
    return _activated(_glu, 0.0, x, affine, None)


def _silu(rate, y, kept):
    return nn.silu(y) if kept is None else jnp.where(kept, nn.silu(y) / (1 - rate), 0)


def _glu(rate, y, kept):
    del rate, kept
    return nn.glu(y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _activated(
    function: Callable, rate: float, x: jax.Array, affine: Affine, kept: jax.Array | None
) -> jax.Array:
    return function(rate, affine.in_float32(x), kept).astype(x.dtype)


def _forward(function, rate, x, affine, kept):
    return _activated(function, rate, x, affine, kept), (x, affine, kept)


def _backward(function, rate, residuals, grad):
    def by_affine(x, affine, kept, grad):
        """Returns the gradient of affine(x), in float32."""
        _, vjp = jax.vjp(lambda y: function(rate, y, kept), affine.in_float32(x))
        return vjp(grad.astype(jnp.float32))[0]

    staged = residuals[0].shape[1] >= STAGED_SIZE
    on_gpu = _in_two_steps if staged else _in_one_step
    grads = by_gpu(
        functools.partial(on_gpu, by_affine),
        functools.partial(_in_one_step, by_affine),
        *residuals,
        grad,
    )
    return *grads, None


_activated.defvjp(_forward, _backward)


def _in_one_step(by_affine, x, affine, kept, grad):
    """Returns the gradients of x and affine."""
    y = by_affine(x, affine, kept, grad)
    by_x = (y * affine.scale[:, None, None]).astype(x.dtype)
    by_scale = _like(affine, (y * x.astype(jnp.float32)).sum((1, 2)))
    return by_x, Affine(by_scale, _like(affine, y.sum((1, 2))))


def _in_two_steps(by_affine, x, affine, kept, grad):
    """Returns the gradients of x and affine, in the form that XLA fuses best on a GPU.

    XLA would write the gradient of affine(x) in float32 for a sum over both axes at once. For sums
    over one axis after the other it computes that gradient as it reads its inputs. The barrier on x
    makes it compute the gradient again for the gradient of x.
    """
    y = by_affine(x, affine, kept, grad)
    zero = jnp.zeros((), jnp.float32)
    over_width = lax.reduce(
        (y * x.astype(jnp.float32), y),
        (zero, zero),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        dimensions=(2,),
    )
    sums = [_like(affine, s.sum(1)) for s in lax.optimization_barrier(over_width)]
    y = by_affine(lax.optimization_barrier(x), affine, kept, grad)
    return (y * affine.scale[:, None, None]).astype(x.dtype), Affine(*sums)


def _like(affine: Affine, sums: jax.Array) -> jax.Array:
    """Returns sums [B, C], summed over images if one scale and shift is used for all of them."""
    return sums if len(affine.scale) == len(sums) else sums.sum(0, keepdims=True)
