"""Building blocks of encoder and U-Net. Images and feature maps are [B, H, W, C].

Every module has `dtype`, the number format of its computation, and `param_dtype`, the number format
of its stored weights. Norms and softmax compute in float32 for any dtype. Weights and biases have
the initial distributions of PyTorch's layers (weights uniform with variance 1 / (3 fan_in)), as in
the authors' code.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models.activations import Affine, silu
from dbae_jax.models.attention import attend
from dbae_jax.models.concatenated import Parts, of_parts
from dbae_jax.models.convolutions import (
    convolve_activated,
    convolve_plain,
    convolve_upsampled,
    downsample,
    upsample,
)
from dbae_jax.models.norms import GroupNorm
from dbae_jax.runtime.platforms import cast_kernel

kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
zeros = nn.initializers.zeros_init()

Block = TypeVar("Block", bound=nn.Module)


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's initializer of biases: uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(
    x: jax.Array, channels: int, *, size: int = 3, zero: bool = False, **kwargs: Any
) -> jax.Array:
    """Returns a padded convolution of x: [B, H, W, C] -> [B, H, W, channels].

    The function creates the weights, so it must be called inside a compact method.

    Args:
      x: feature map [B, H, W, C].
      channels: output channels.
      size: height and width of the kernel.
      zero: whether the weights are initialised with 0.
      **kwargs: name, dtype and param_dtype of the flax module.
    """
    h, bias = ConvOfParts(channels, size, zero=zero, **kwargs)((x,))
    return h + bias.astype(h.dtype)


def linear(x: jax.Array, features: int, **kwargs: Any) -> jax.Array:
    """Returns a linear map of the last axis of x: [..., C] -> [..., features].

    The function creates the weights, so it must be called inside a compact method. `kwargs` are
    those of `conv`.
    """
    (result,) = linear_maps(x, [Linear(x.shape[-1], features, **kwargs)])
    return result


class Linear(nn.Module):
    """The weights of a linear map, drawn like PyTorch's; `linear_maps` computes with them."""

    width: int
    features: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the kernel [width, features] and the bias [features]."""
        shape, draw = (self.width, self.features), bias_init(self.width)
        self.kernel = self.param("kernel", kernel_init, shape, self.param_dtype)
        self.bias = self.param("bias", draw, shape[-1:], self.param_dtype)


def linear_maps(x: jax.Array, maps: Sequence[Linear]) -> list[jax.Array]:
    """Returns several linear maps of x: [..., width] as one matrix product, [..., features] each.

    On a GPU, small products take longer to start than to run.
    """
    dtype, ends = maps[0].dtype, list(itertools.accumulate(m.features for m in maps))
    kernel = cast_kernel(jnp.concatenate([m.kernel for m in maps], axis=-1), dtype)
    bias = jnp.concatenate([m.bias for m in maps]).astype(dtype)
    return jnp.split(x.astype(dtype) @ kernel + bias, ends[:-1], axis=-1)


class ConvOfParts(nn.Module):
    """A padded convolution of the concatenation of feature maps.

    With `upsampled`, the feature maps are first upsampled by a factor of 2 (not together with an
    affine map). With `zero`, the weights are initialised with 0.
    """

    channels: int
    size: int = 3
    upsampled: bool = False
    zero: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, parts: Parts, affine: Affine | None = None) -> tuple[jax.Array, jax.Array]:
        """Returns the convolution without its bias, and the bias, which the caller adds.

        Args:
          parts: feature maps [B, H, W, C_i].
          affine: scale and shift, [B, C] each for all channels; the result is then the convolution
            of SiLU(affine(parts)).

        Returns:
          [B, H, W, channels] in `dtype` and [channels] in `param_dtype`.
        """
        width = sum(part.shape[-1] for part in parts)
        shape = (self.size, self.size, width, self.channels)
        drawn = (zeros, zeros) if self.zero else (kernel_init, bias_init(width * self.size**2))
        kernel = cast_kernel(self.param("kernel", drawn[0], shape, self.param_dtype), self.dtype)
        bias = self.param("bias", drawn[1], (self.channels,), self.param_dtype)
        parts = tuple(part.astype(self.dtype) for part in parts)
        plain = convolve_upsampled if self.upsampled else convolve_plain
        function = plain if affine is None else convolve_activated
        return of_parts(function, parts, affine, kernel), bias


RESAMPLE = {"keep": lambda x: x, "down": downsample, "up": upsample}


class ResBlock(nn.Module):
    """A residual block: of the ADM U-Net if it has an embedding, else of the encoder.

    Without an embedding: x -> skip(x) + conv(resample(SiLU(norm(x)))). With an embedding, a second
    half follows the convolution: norm, scale and shift by a linear map of the embedding, SiLU,
    dropout, zero-initialised convolution. The caller computes the linear map, whose weights are
    `embedding`, for all blocks at once. `resample` ("keep", "down" or "up") is applied to both
    branches. `skip` is a 1x1 convolution if the number of channels changes, else the identity.
    `dropout` is the dropout rate, for calls with a key. `embedding_width` is the width of the
    embedding, or 0.
    """

    channels: int
    resample: str = "keep"
    dropout: float = 0.0
    embedding_width: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the weights of the linear map of the embedding."""
        if self.embedding_width:
            dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            self.embedding = Linear(self.embedding_width, 2 * self.channels, **dtypes)

    @nn.compact
    def __call__(
        self,
        parts: Parts,
        modulation: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns [B, H', W', channels].

        Args:
          parts: feature maps [B, H, W, C_i] of x.
          modulation: [B, 2 channels], the linear map of the embedding of time and latent code.
          dropout_key: key of the dropout mask; None for no dropout.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        resample = RESAMPLE[self.resample]
        affine = GroupNorm(name="norm_in", param_dtype=self.param_dtype)(parts)
        up = self.resample == "up"
        conv_in = ConvOfParts(self.channels, upsampled=up, name="conv_in", **dtypes)
        if self.resample == "keep":
            h, bias = conv_in(parts, affine)
        else:
            (x,) = parts
            h = silu(x, affine)
            h, bias = conv_in((h if up else downsample(h),))
        if modulation is None:
            h = h + bias.astype(h.dtype)
        else:
            h = self._modulated(h, bias, modulation, dropout_key)
        skip = tuple(resample(part) for part in parts)
        if sum(part.shape[-1] for part in parts) == self.channels:
            return skip[0] + h
        x, bias = ConvOfParts(self.channels, size=1, name="skip", **dtypes)(skip)
        return x + bias.astype(x.dtype) + h

    def _modulated(
        self, h: jax.Array, bias: jax.Array, modulation: jax.Array, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Returns the second half of a residual block of the U-Net, applied to h + bias."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        scale, shift = jnp.split(modulation, 2, axis=-1)
        norm = GroupNorm(name="norm_out", param_dtype=self.param_dtype)
        affine, kept = norm((h,), (1 + scale, shift), bias), None
        if dropout_key is not None:
            kept = jax.random.bernoulli(dropout_key, 1 - self.dropout, h.shape)
        h = silu(h, affine, kept, self.dropout)
        return conv(h, self.channels, zero=True, name="conv_out", **dtypes)


class AttentionBlock(nn.Module):
    """Self-attention over positions, added to its input, with the softmax in float32.

    The channels of the projection are ordered [head][q, k, v][channels of a head].
    `implementation`: see `attention.attend`.
    """

    num_heads: int = 1
    implementation: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H, W, C] for x: [B, H, W, C]."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, height, width, channels = x.shape
        h = GroupNorm(name="norm", param_dtype=self.param_dtype)((x,)).apply(x)
        h = h.reshape(b, height * width, channels)
        q, k, v = ToHeads(self.num_heads, name="qkv", **dtypes)(h)
        h = attend(q, k, v, self.implementation)
        return x + FromHeads(name="out", **dtypes)(h).reshape(x.shape)


class ToHeads(nn.Module):
    """A 1x1 convolution to the queries, keys and values of all heads.

    With more positions than channels, queries, keys and values are three separate matrix products.
    Slicing one result of shape [B, N, heads, 3, d] would cost two copies of all three on a TPU.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Returns q, k, v: [B, heads, N, d] each for x: [B, N, C]."""
        channels = x.shape[-1]
        shape, heads = (1, 1, channels, 3 * channels), (self.num_heads, 3, -1)
        kernel = cast_kernel(self.param("kernel", kernel_init, shape, self.param_dtype), self.dtype)
        bias = self.param("bias", bias_init(channels), shape[-1:], self.param_dtype)
        if x.shape[1] <= channels:  # small feature maps: one product, whose result is sliced
            qkv = (x @ kernel[0, 0] + bias.astype(self.dtype)).reshape(*x.shape[:2], *heads)
            return tuple(qkv[:, :, :, i].swapaxes(1, 2) for i in range(3))
        kernel, bias = kernel.reshape(channels, *heads), bias.astype(self.dtype).reshape(heads)
        results = [
            x @ kernel[:, :, i].reshape(channels, channels) + bias[:, i].ravel() for i in range(3)
        ]
        by_head = [a.reshape(*x.shape[:2], self.num_heads, -1) for a in results]
        return tuple(a.swapaxes(1, 2) for a in by_head)


class FromHeads(nn.Module):
    """A zero-initialised 1x1 convolution of the concatenated outputs of all heads."""

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, N, C] for x: [B, heads, N, d]."""
        heads, width = x.shape[1], x.shape[3]
        channels = heads * width
        kernel = self.param("kernel", zeros, (1, 1, channels, channels), self.param_dtype)
        bias = self.param("bias", zeros, (channels,), self.param_dtype).astype(self.dtype)
        kernel = cast_kernel(kernel, self.dtype)
        if x.shape[2] <= channels:
            x = x.swapaxes(1, 2)
            return x.reshape(*x.shape[:2], channels) @ kernel[0, 0] + bias
        kernel = kernel.reshape(heads, width, channels)
        return jnp.einsum("bhnd,hdc->bnc", x, kernel) + bias


def rematerialised(remat: str, *blocks: type[Block]) -> tuple[type[Block], ...]:
    """Returns the classes of blocks with or without rematerialisation.

    Args:
      remat: "none" returns the classes unchanged. "blocks" stores only the input of each block for
        the backward pass, which repeats the forward pass of the block: less memory, a third more
        arithmetic, the same results.
      *blocks: classes of flax modules.
    """
    return {"none": blocks, "blocks": tuple(map(nn.remat, blocks))}[remat]


def sinusoid(position: jax.Array, width: int) -> jax.Array:
    """Returns the embedding of positions: [B] -> [B, width], cosines first, then sines.

    Frequencies exp(-ln(10000) i / half), i < half = width // 2, in float32.
    """
    half = width // 2
    frequencies = jnp.exp(-math.log(10000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = position.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
