"""Activations of scaled and shifted feature maps, with a backward pass of their own on GPUs.

A norm is a scale and a shift per channel (`Affine`). The activation that follows reads the feature
map as the convolution wrote it. On a GPU and in formats narrower than float32, nothing but that
feature map is stored for the backward pass, which computes the activation again. Elsewhere JAX's
own backward pass is faster.
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
    return _apply(SILU, rate, x, affine, kept)


def glu(x: jax.Array, affine: Affine) -> jax.Array:
    """Returns a * sigmoid(b), where affine(x): [B, H, W, 2C] is [a, b]: [B, H, W, C]."""
    return _apply(GLU, 0.0, x, affine, None)


class Activation(NamedTuple):
    """An activation of y without dropout, and the gradient of y for a gradient of the result.

    The gradients are hand-written: XLA fuses the automatic ones with fewer of their neighbours.
    """

    forward: Callable[[jax.Array], jax.Array]
    backward: Callable[[jax.Array, jax.Array], jax.Array]


def _silu_backward(y, grad):
    sigmoid = nn.sigmoid(y)
    return grad * (sigmoid * (1 + y * (1 - sigmoid)))


def _glu_backward(y, grad):
    a, b = jnp.split(y, 2, axis=-1)
    sigmoid = nn.sigmoid(b)
    return jnp.concatenate([grad * sigmoid, grad * a * (sigmoid * (1 - sigmoid))], axis=-1)


SILU, GLU = Activation(nn.silu, _silu_backward), Activation(nn.glu, _glu_backward)


def _dropped(y, kept, rate):
    return y if kept is None else jnp.where(kept, y / (1 - rate), 0)


def _apply(
    activation: Activation, rate: float, x: jax.Array, affine: Affine, kept: jax.Array | None
) -> jax.Array:
    function = plain_activation if x.dtype == jnp.float32 else recomputed_activation
    return function(activation, rate, x, affine, kept)


def plain_activation(
    activation: Activation, rate: float, x: jax.Array, affine: Affine, kept: jax.Array | None
) -> jax.Array:
    """Returns an activation of affine(x) with dropout; arguments as in `silu`.

    The activation is computed in the dtype of x.
    """
    return _dropped(activation.forward(affine.apply(x)), kept, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recomputed_activation(
    activation: Activation, rate: float, x: jax.Array, affine: Affine, kept: jax.Array | None
) -> jax.Array:
    """Returns `plain_activation` of the same arguments, and stores them for the backward pass.

    On a GPU it is computed in float32 and rounded once, and its gradient is hand-written. TPUs take
    the automatic one, with which they read and write a tenth less.
    """

    def in_float32(x, affine, kept):
        result = plain_activation(activation, rate, x.astype(jnp.float32), affine, kept)
        return result.astype(x.dtype)

    plain = functools.partial(plain_activation, activation, rate)
    return by_gpu(in_float32, plain, x, affine, kept)


def _forward(activation, rate, x, affine, kept):
    return recomputed_activation(activation, rate, x, affine, kept), (x, affine, kept)


def _backward(activation, rate, residuals, grad):
    def by_affine(x, affine, kept, grad):
        """Returns the gradient of affine(x), in float32."""
        grad = _dropped(grad.astype(jnp.float32), kept, rate)
        return activation.backward(affine.in_float32(x), grad)

    def automatic(x, affine, kept, grad):
        def plain(x, affine):
            return plain_activation(activation, rate, x, affine, kept)

        return jax.vjp(plain, x, affine)[1](grad)

    staged = residuals[0].shape[1] >= STAGED_SIZE
    by_hand = functools.partial(_in_two_steps if staged else _in_one_step, by_affine)
    return *by_gpu(by_hand, automatic, *residuals, grad), None


recomputed_activation.defvjp(_forward, _backward)


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
    over_width = _sums((y * x.astype(jnp.float32), y), 2)
    sums = [_like(affine, s) for s in _sums(lax.optimization_barrier(over_width), 1)]
    y = by_affine(lax.optimization_barrier(x), affine, kept, grad)
    return (y * affine.scale[:, None, None]).astype(x.dtype), Affine(*sums)


def _sums(arrays: tuple[jax.Array, ...], axis: int) -> tuple[jax.Array, ...]:
    """Returns the sums of float32 arrays over an axis, computed in one pass over all of them."""
    zeros = tuple(jnp.zeros((), jnp.float32) for _ in arrays)

    def add(a, b):
        return tuple(x + y for x, y in zip(a, b, strict=True))

    return tuple(lax.reduce(arrays, zeros, add, (axis,)))


def _like(affine: Affine, sums: jax.Array) -> jax.Array:
    """Returns sums [B, C], summed over images if one scale and shift is used for all of them."""
    return sums if len(affine.scale) == len(sums) else sums.sum(0, keepdims=True)
