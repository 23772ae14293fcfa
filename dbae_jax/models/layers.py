"""Building blocks that encoder and U-Net share. Images are [B, H, W, C].

Every module takes `dtype`, what it computes in, and `param_dtype`, what its weights are kept in.
Norms and softmax compute in float32 whatever the dtype. Weights start as PyTorch's layers do
(uniform, variance 1 / (3 fan_in)), biases likewise, so that training starts where the authors' does.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
zeros = nn.initializers.zeros_init()
GroupNorm = functools.partial(nn.GroupNorm, num_groups=32, epsilon=1e-5, use_fast_variance=False)


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's initializer of a bias: uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """A square convolution, padded to keep the size; `zero` starts it at nothing."""

    channels: int
    size: int = 3
    zero: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in = x.shape[-1] * self.size**2
        return nn.Conv(
            self.channels,
            (self.size, self.size),
            kernel_init=zeros if self.zero else kernel_init,
            bias_init=zeros if self.zero else bias_init(fan_in),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(x)


class Linear(nn.Module):
    """A linear map of the last axis."""

    features: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(
            self.features,
            kernel_init=kernel_init,
            bias_init=bias_init(x.shape[-1]),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="linear",
        )(x)


def downsample(x: jax.Array) -> jax.Array:
    """Returns the 2x2 means of x: [B, H, W, C] -> [B, H/2, W/2, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def upsample(x: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 (nearest): [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


RESAMPLE = {"keep": lambda x: x, "down": downsample, "up": upsample}


class ResBlock(nn.Module):
    """A residual block, of the ADM U-Net with an embedding, of the encoder without.

    Without: x -> skip(x) + conv(resample(SiLU(norm(x)))). With an embedding a second half follows
    the convolution: norm, scale and shift by a linear map of SiLU(embedding), SiLU, dropout,
    zero-initialised convolution. `resample` acts on both branches, `skip` is a 1x1 convolution
    where channels change.
    """

    channels: int
    resample: str = "keep"
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, embedding: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        resample = RESAMPLE[self.resample]
        h = nn.silu(GroupNorm(name="norm_in", **dtypes)(x))
        h = Conv(self.channels, name="conv_in", **dtypes)(resample(h))
        if embedding is not None:
            h = self._modulated(h, embedding, train=train)
        skip = resample(x)
        if x.shape[-1] != self.channels:
            skip = Conv(self.channels, size=1, name="skip", **dtypes)(skip)
        return skip + h

    def _modulated(self, h: jax.Array, embedding: jax.Array, *, train: bool) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        modulation = Linear(2 * self.channels, name="embedding", **dtypes)(nn.silu(embedding))
        scale, shift = jnp.split(modulation[:, None, None, :], 2, axis=-1)
        h = GroupNorm(name="norm_out", **dtypes)(h) * (1 + scale) + shift
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        return Conv(self.channels, zero=True, name="conv_out", **dtypes)(h)


class AttentionBlock(nn.Module):
    """Self-attention over positions, added to its input; softmax in float32.

    The projection's channels are ordered [head][q, k, v][channels of a head].
    """

    num_heads: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, height, width, channels = x.shape
        h = GroupNorm(name="norm", **dtypes)(x)
        qkv = Conv(3 * channels, size=1, name="qkv", **dtypes)(h)
        qkv = qkv.reshape(b, height * width, self.num_heads, 3, channels // self.num_heads)
        q, k, v = (qkv[:, :, :, i] for i in range(3))
        h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return x + Conv(channels, size=1, zero=True, name="out", **dtypes)(h)


def sinusoid(position: jax.Array, width: int) -> jax.Array:
    """Embeds positions: [B] -> [B, width], cosines of falling frequencies, then sines.

    Frequencies exp(-ln(10000) i / half), i < half = width // 2, in float32.
    """
    half = width // 2
    frequencies = jnp.exp(-math.log(10000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = position.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
