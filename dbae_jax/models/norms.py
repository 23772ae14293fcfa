"""Group norm, and the means and variances that group norm and batch norm use."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

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
        y = x.astype(jnp.float32) * self.scale[:, None, None] + self.shift[:, None, None]
        return y.astype(x.dtype)


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
        self, parts: Parts, modulation: tuple[jax.Array, jax.Array] | None = None
    ) -> Affine:
        """Returns the group norm of the concatenation of feature maps.

        Args:
          parts: feature maps [B, H, W, C_i], with C = sum of C_i.
          modulation: another scale and shift, [B, C] each, applied after the scale and shift of
            the norm.
        """
        channels = sum(part.shape[-1] for part in parts)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), self.param_dtype)
        shift = self.param("bias", nn.initializers.zeros_init(), (channels,), self.param_dtype)
        if modulation is not None:
            extra_scale, extra_shift = (m.astype(jnp.float32) for m in modulation)
            scale, shift = scale * extra_scale, shift * extra_scale + extra_shift
        moments = [channel_moments(part, (1, 2)) for part in parts]
        mean, var = (jnp.concatenate(of_parts, axis=-1) for of_parts in zip(*moments, strict=True))
        group_mean = self._group_mean(mean)
        # The variance of a group is the mean variance of its channels plus the variance of their
        # means.
        group_var = self._group_mean(var + jnp.square(mean - group_mean))
        scale = scale * lax.rsqrt(group_var + self.epsilon)
        return Affine(scale, shift - group_mean * scale)

    @nn.nowrap
    def _group_mean(self, per_channel: jax.Array) -> jax.Array:
        """Returns, for every channel, the mean over its group: [B, C] -> [B, C]."""
        b, channels = per_channel.shape
        means = per_channel.reshape(b, self.num_groups, -1).mean(-1)
        return jnp.repeat(means, channels // self.num_groups, axis=1)
