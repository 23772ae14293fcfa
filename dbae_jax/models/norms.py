"""Group norm of feature maps, and the statistics that it and batch norm take."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


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


class GroupNorm(nn.Module):
    """Normalises over positions and the channels of a group, then scales and shifts.

    Computed in float32 as one scale and one shift for each image and channel, which compilers
    fuse into the convolutions at both sides: no normalised map is written or kept in float32.
    """

    num_groups: int = 32
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, parts: tuple[jax.Array, ...], modulation: tuple[jax.Array, jax.Array] | None = None
    ) -> tuple[jax.Array, ...]:
        """Normalises feature maps that count as one, concatenated, but are never put together.

        Args:
          parts: [B, H, W, C_i] each; their C_i sum to C.
          modulation: a further scale and shift, [B, C] each, applied after the norm's own.

        Returns:
          As `parts`, in `dtype`.
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
        shift = shift - group_mean * scale
        scales, shifts = split_as(parts, scale), split_as(parts, shift)
        return tuple(map(self._affine, parts, scales, shifts))

    @nn.nowrap
    def _over_group(self, of_channels: jax.Array) -> jax.Array:
        """Gives every channel its group's mean: [B, C] -> [B, C]."""
        b, channels = of_channels.shape
        means = of_channels.reshape(b, self.num_groups, -1).mean(-1)
        return jnp.repeat(means, channels // self.num_groups, axis=1)

    @nn.nowrap
    def _affine(self, x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32) * scale[:, None, None] + shift[:, None, None]
        return x.astype(self.dtype)


def split_as(parts: tuple[jax.Array, ...], x: jax.Array, axis: int = -1) -> list[jax.Array]:
    """Cuts `axis` of x into pieces as long as the channels of `parts`."""
    ends = list(itertools.accumulate(part.shape[-1] for part in parts))
    return jnp.split(x, ends[:-1], axis=axis)
