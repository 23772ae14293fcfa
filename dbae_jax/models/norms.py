"""Group norm, the statistics of group norm and batch norm, and the activation that follows them."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dbae_jax.models import platforms
from dbae_jax.models.concatenated import Parts


def channel_moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance over `axes` of x: [B, H, W, C], in float32.

    For float32, x is read twice. For narrower formats, x is read once: the variance is
    E[x^2] - E[x]^2 of float32 sums, which a compiler can fuse into the convolution that writes x.
    The error of this subtraction is smaller than the error of rounding x to the narrower format
    (tests/models/test_norms.py).
    """
    in_float32 = x.astype(jnp.float32)
    mean = in_float32.mean(axes)
    if x.dtype == jnp.float32:
        return mean, jnp.square(in_float32 - jnp.expand_dims(mean, axes)).mean(axes)
    return mean, jnp.maximum(jnp.square(in_float32).mean(axes) - jnp.square(mean), 0)


class Affine(NamedTuple):
    """A scale and a shift per image and channel: [B, C] each, float32."""

    scale: jax.Array
    shift: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """Returns x: [B, H, W, C] scaled and shifted, computed in float32, in the dtype of x."""
        return self.in_float32(x).astype(x.dtype)

    def in_float32(self, x: jax.Array) -> jax.Array:
        """Returns x: [B, H, W, C] scaled and shifted, in float32."""
        return x.astype(jnp.float32) * self.scale[:, None, None] + self.shift[:, None, None]


class GroupNorm(nn.Module):
    """Group norm, returned as one scale and shift per image and channel (`Affine`).

    The norm is over the positions and the channels of a group. The caller applies the `Affine`:
    compilers then fuse it with the convolutions before and after it, and no normalised feature map
    is written to memory.
    """

    num_groups: int = 32
    epsilon: float = 1e-5
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        parts: Parts,
        modulation: tuple[jax.Array, jax.Array] | None = None,
        bias: jax.Array | None = None,
    ) -> Affine:
        """Returns the group norm of the concatenation of feature maps.

        Args:
          parts: feature maps [B, H, W, C_i], with C = sum of C_i.
          modulation: another scale and shift, [B, C] each, applied after the scale and shift of
            the norm.
          bias: [C], of the convolution that wrote the feature map. The result is the norm of the
            map plus the bias, as a scale and shift of the map without it: nobody then has to add
            the bias to every position.
        """
        channels = sum(part.shape[-1] for part in parts)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), self.param_dtype)
        shift = self.param("bias", nn.initializers.zeros_init(), (channels,), self.param_dtype)
        if modulation is not None:
            extra_scale, extra_shift = (m.astype(jnp.float32) for m in modulation)
            scale, shift = scale * extra_scale, shift * extra_scale + extra_shift
        moments = [channel_moments(part, (1, 2)) for part in parts]
        mean, var = (jnp.concatenate(of_parts, axis=-1) for of_parts in zip(*moments, strict=True))
        if bias is None:
            return Affine(*_group_affine(self.num_groups, self.epsilon, mean, var, scale, shift))
        bias = bias.astype(jnp.float32)
        affine = _group_affine(self.num_groups, self.epsilon, mean + bias, var, scale, shift)
        return Affine(affine[0], affine[1] + bias * affine[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _group_affine(
    num_groups: int,
    epsilon: float,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns scale and shift of a group norm, [B, C] each, with a hand-written backward pass.

    On a GPU, the automatic one is a chain of some ten kernels that each take longer to start than
    to run.

    Args:
      num_groups: number of groups.
      epsilon: number added to the variances.
      mean: means of the channels [B, C].
      var: variances of the channels [B, C].
      scale: scale after the norm, [C] or [B, C].
      shift: shift after the norm, [C] or [B, C].
    """
    return _affine_forward(num_groups, epsilon, mean, var, scale, shift)[0]


def _affine_forward(num_groups, epsilon, mean, var, scale, shift):
    group_mean = _group_mean(mean, num_groups)
    # The variance of a group is the mean variance of its channels plus the variance of their
    # means.
    group_var = _group_mean(var + jnp.square(mean - group_mean), num_groups)
    inverse = lax.rsqrt(group_var + epsilon)
    total = scale * inverse
    return (total, shift - group_mean * total), (mean - group_mean, group_mean, inverse, scale)


def _affine_backward(num_groups, epsilon, residuals, grads):
    del epsilon
    centred, group_mean, inverse, scale = residuals
    by_total, by_shift = grads
    by_total = by_total - group_mean * by_shift
    by_var = _group_mean(-0.5 * inverse**3 * scale * by_total, num_groups)
    by_mean = 2 * centred * by_var - _group_mean(scale * inverse * by_shift, num_groups)
    by_scale = by_total * inverse
    if scale.ndim == 1:
        by_scale, by_shift = by_scale.sum(0), by_shift.sum(0)
    return by_mean, by_var, by_scale, by_shift


_group_affine.defvjp(_affine_forward, _affine_backward)


def _group_mean(per_channel: jax.Array, num_groups: int) -> jax.Array:
    """Returns, for every channel, the mean over its group: [B, C] -> [B, C].

    The mean is written as a sum of slices: GPUs compute it together with its neighbours, where a
    reduction is a kernel of its own.
    """
    b, channels = per_channel.shape
    size = channels // num_groups
    groups = per_channel.reshape(b, num_groups, size)
    mean = functools.reduce(jnp.add, [groups[:, :, i] for i in range(size)]) / size
    return jnp.broadcast_to(mean[:, :, None], groups.shape).reshape(b, channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def activated(
    x: jax.Array, affine: Affine, kept: jax.Array | None = None, dropout: float = 0.0
) -> jax.Array:
    """Returns SiLU(affine(x)), with dropout: [B, H, W, C], in the dtype of x.

    The backward pass computes the activation again.

    Args:
      x: [B, H, W, C].
      affine: scale and shift, [B, C] each.
      kept: the entries that dropout keeps, bool [B, H, W, C], or None without dropout.
      dropout: dropout rate.
    """
    y = nn.silu(affine.in_float32(x))
    return _dropped(y, kept, dropout).astype(x.dtype)


def _dropped(y: jax.Array, kept: jax.Array | None, dropout: float) -> jax.Array:
    return y if kept is None else jnp.where(kept, y / (1 - dropout), 0)


def _activated_forward(x, affine, kept, dropout):
    return activated(x, affine, kept, dropout), (x, affine, kept)


def _activated_backward(dropout, residuals, grad):
    grads = platforms.by_gpu(
        functools.partial(_staged, dropout), functools.partial(_plain, dropout), *residuals, grad
    )
    return *grads, None


activated.defvjp(_activated_forward, _activated_backward)


def _by_affine(dropout, x, affine, kept, grad):
    """Returns the gradient of affine(x), [B, H, W, C], in float32."""
    y = affine.in_float32(x)
    sigmoid = nn.sigmoid(y)
    slope = sigmoid * (1 + y * (1 - sigmoid))
    return _dropped(grad.astype(jnp.float32), kept, dropout) * slope


def _plain(dropout, x, affine, kept, grad):
    by_affine = _by_affine(dropout, x, affine, kept, grad)
    by_scale = (by_affine * x.astype(jnp.float32)).sum((1, 2))
    by_x = by_affine * affine.scale[:, None, None]
    return by_x.astype(x.dtype), Affine(by_scale, by_affine.sum((1, 2)))


def _staged(dropout, x, affine, kept, grad):
    by_affine = _by_affine(dropout, x, affine, kept, grad)
    zero = jnp.zeros((), jnp.float32)
    sums = lax.reduce(
        (by_affine * x.astype(jnp.float32), by_affine),
        (zero, zero),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        (2,),
    )
    by_scale, by_shift = (s.sum(1) for s in lax.optimization_barrier(tuple(sums)))
    again = lax.optimization_barrier(x)
    by_x = _by_affine(dropout, again, affine, kept, grad) * affine.scale[:, None, None]
    return by_x.astype(x.dtype), Affine(by_scale, by_shift)
