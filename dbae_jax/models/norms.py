"""Group norm of feature maps, and the statistics that it and batch norm take."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dbae_jax.models.concatenated import Parts


def channel_moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance over `axes` of x: [B, H, W, C], in float32.

    float32 takes two passes. Narrower formats take one, as E[x^2] - E[x]^2 of float32 sums: a
    convolution before it then sums on its way out, and x is not read again. What cancels there
    is less than what the format's rounding of x has cost already (tests/test_norms.py).
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean(axes)
    if x.dtype == jnp.float32:
        return mean, jnp.square(wide - jnp.expand_dims(mean, axes)).mean(axes)
    return mean, jnp.maximum(jnp.square(wide).mean(axes) - jnp.square(mean), 0)


class Affine(NamedTuple):
    """One scale and one shift for each image and channel: [B, C] each, float32."""

    scale: jax.Array
    shift: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """Returns x: [B, H, W, C] scaled and shifted, computed in float32, in the dtype of x."""
        y = x.astype(jnp.float32) * self.scale[:, None, None] + self.shift[:, None, None]
        return y.astype(x.dtype)


class GroupNorm(nn.Module):
    """Normalises over positions and the channels of a group, then scales and shifts.

    Returned as what it does to each image and channel, in float32, for the caller to apply:
    compilers then fuse it into the convolutions at both sides, and no normalised map is written.
    """

    num_groups: int = 32
    epsilon: float = 1e-5
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, parts: Parts, modulation: tuple[jax.Array, jax.Array] | None = None
    ) -> Affine:
        """Returns the norm of feature maps that count as one, concatenated.

        Args:
          parts: [B, H, W, C_i] each; their C_i sum to C.
          modulation: a further scale and shift, [B, C] each, applied after the norm's own.
        """
        channels = sum(part.shape[-1] for part in parts)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), self.param_dtype)
        shift = self.param("bias", nn.initializers.zeros_init(), (channels,), self.param_dtype)
        if modulation is not None:
            by, to = (m.astype(jnp.float32) for m in modulation)
            scale, shift = scale * by, shift * by + to
        moments = [channel_moments(part, (1, 2)) for part in parts]
        mean, var = (jnp.concatenate(of_parts, axis=-1) for of_parts in zip(*moments, strict=True))
        group_mean = self._over_group(mean)
        # A group's variance: the mean of its channels' own, and the variance between channels.
        group_var = self._over_group(var + jnp.square(mean - group_mean))
        scale = scale * lax.rsqrt(group_var + self.epsilon)
        return Affine(scale, shift - group_mean * scale)

    @nn.nowrap
    def _over_group(self, of_channels: jax.Array) -> jax.Array:
        """Gives every channel its group's mean: [B, C] -> [B, C]."""
        b, channels = of_channels.shape
        means = of_channels.reshape(b, self.num_groups, -1).mean(-1)
        return jnp.repeat(means, channels // self.num_groups, axis=1)
