"""Endpoint decoder z -> x_T: the generator of FastGAN, every convolution spectrally normalised.

Running state lives in the flax collection "stats": mean and var of the batch norms, and the
singular vectors u and v of the spectral norms.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jax.typing import DTypeLike

from dbae_jax.models.layers import convolve_upsampled, kernel_init
from dbae_jax.models.norms import channel_moments

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9
FIRST_GATED_SIZE = 64
FIRST_POWER_STEPS = 15
GATE_REDUCTION = 16  # a gate at r looks at the features at r / 16


def width_at(base_channels: int, size: int) -> int:
    """Returns the channels of the features at size x size: `base_channels` is the width at 128.

    16 base at 4, 8 at 8, 4 at 16, 2 at 32 and at 64, 1 at 128, 1/2 at 256, and so on.
    """
    return base_channels * 64 // size if size <= 32 else base_channels * 128 // size


def as_matrix(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [h, w, in, out] as a float32 matrix with one row an output channel."""
    return kernel.reshape(-1, kernel.shape[-1]).T.astype(jnp.float32)


def power_iteration(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of the power method: v = normalize(W'u), u = normalize(W v), as constants."""
    matrix = lax.stop_gradient(as_matrix(kernel))
    v = _normalize(matrix.T @ u)
    return _normalize(matrix @ v), v


def refresh_spectral_vectors(params: dict, stats: dict) -> dict:
    """Returns `stats` with u and v moved one power step towards the kernels in `params`.

    Averaged weights need singular vectors of their own: an average of the raw weights' vectors
    belongs to no kernel.
    """
    kernels, flat = traverse_util.flatten_dict(params), dict(traverse_util.flatten_dict(stats))
    for path in [path for path in flat if path[-1] == "u"]:
        u, v = power_iteration(kernels[(*path[:-1], "kernel")], flat[path])
        flat[path], flat[(*path[:-1], "v")] = u, v
    return traverse_util.unflatten_dict(flat)


def _normalize(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _first_vectors(key: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns u and v after some steps from a random u: a fresh model can be evaluated at once."""
    u = _normalize(jax.random.normal(key, kernel.shape[-1:]))
    u = lax.fori_loop(0, FIRST_POWER_STEPS, lambda _, u: power_iteration(kernel, u)[0], u)
    return power_iteration(kernel, u)


class SpectralConv(nn.Module):
    """A bias-free convolution whose kernel is divided by its largest singular value.

    Training takes one step of the power method first; evaluation uses the stored vectors. Both
    divide by u'W v, in which only W carries a gradient. `upsampled`: x is upsampled twofold first.

    Source: Miyato et al. (2018).
    """

    channels: int
    size: int
    padding: str = "SAME"
    upsampled: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        kernel = self.normalized_kernel(x.shape[-1], train=train).astype(self.dtype)
        x = x.astype(self.dtype)
        return convolve_upsampled(x, None, kernel) if self.upsampled else self._convolve(x, kernel)

    @nn.nowrap
    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(1, 1),
            padding=self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    @nn.nowrap
    def normalized_kernel(self, in_channels: int, *, train: bool) -> jax.Array:
        """Returns kernel / sigma, [size, size, in, out] in float32; moves u and v when training."""
        shape = (self.size, self.size, in_channels, self.channels)
        kernel = self.param("kernel", kernel_init, shape, self.param_dtype)
        start = (self.make_rng("params"), kernel) if self.is_initializing() else None
        u = self.variable("stats", "u", lambda: _first_vectors(*start)[0])
        v = self.variable("stats", "v", lambda: _first_vectors(*start)[1])
        if train and not self.is_initializing():
            u.value, v.value = power_iteration(kernel, u.value)
        sigma = u.value @ as_matrix(kernel) @ v.value
        return kernel.astype(jnp.float32) / sigma


class SpectralConvTransposeFromPoint(SpectralConv):
    """A transposed convolution on a 1x1 input: z [B, D] -> [B, size, size, channels]."""

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        kernel = self.normalized_kernel(z.shape[-1], train=train).astype(self.dtype)
        return jnp.einsum("bd,hwdc->bhwc", z.astype(self.dtype), kernel)


class BatchNorm(nn.Module):
    """Batch norm over the global batch, in float32.

    Running statistics move by a tenth a pass; the variance kept is the unbiased one, the variance
    divided by in training the biased one (as PyTorch).
    """

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = x.shape[-1:]
        mean = self.variable("stats", "mean", jnp.zeros, shape)
        var = self.variable("stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones_init(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, self.param_dtype)
        use_mean, use_var = mean.value, var.value
        if train:
            use_mean, use_var = channel_moments(x, tuple(range(x.ndim - 1)))
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                keep = BATCH_NORM_MOMENTUM
                mean.value = keep * mean.value + (1 - keep) * use_mean
                var.value = keep * var.value + (1 - keep) * use_var * count / (count - 1)
        scale = scale * lax.rsqrt(use_var + BATCH_NORM_EPS)
        x = x.astype(jnp.float32) * scale + (bias - use_mean * scale)
        return x.astype(self.dtype)


class UpBlock(nn.Module):
    """Nearest upsampling, convolution to twice the channels, batch norm, gated linear unit.

    From z (no `size` before) the upsampling and the convolution are one transposed convolution.
    """

    channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if x.ndim == 2:
            conv = SpectralConvTransposeFromPoint(2 * self.channels, 4, name="conv", **dtypes)
            x = conv(x, train=train)
        else:
            conv = SpectralConv(2 * self.channels, 3, upsampled=True, name="conv", **dtypes)
            x = conv(x, train=train)
        return nn.glu(BatchNorm(name="norm", **dtypes)(x, train=train))


class Gate(nn.Module):
    """Squeeze-excitation: coarse features -> [B, 1, 1, channels] in (0, 1)."""

    channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, coarse: jax.Array, *, train: bool) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, h, w, c = coarse.shape
        pooled = coarse.reshape(b, 4, h // 4, 4, w // 4, c).mean(axis=(2, 4))
        x = SpectralConv(self.channels, 4, padding="VALID", name="conv_0", **dtypes)(
            pooled, train=train
        )
        x = SpectralConv(self.channels, 1, name="conv_1", **dtypes)(nn.silu(x), train=train)
        return nn.sigmoid(x)


class Decoder(nn.Module):
    """From 4x4 up to the image size; features from 64 up are gated by those 16 times coarser.

    Source: FastGAN (Liu et al., 2021), generator; DBAE, appendix.
    """

    image_size: int
    channels: int
    base_channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Returns x_T [B, H, W, C], float32, unbounded, for z [B, D].

        Training uses the batch's statistics and moves the running ones.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        h, size, features = z, 4, {}
        while size <= self.image_size:
            width = width_at(self.base_channels, size)
            h = UpBlock(width, name=f"up_{size}", **dtypes)(h, train=train)
            if size >= FIRST_GATED_SIZE:
                gate = Gate(width, name=f"gate_{size}", **dtypes)
                h = h * gate(features[size // GATE_REDUCTION], train=train)
            features[size] = h
            size *= 2
        x_T = SpectralConv(self.channels, 1, name="conv_out", **dtypes)(h, train=train)
        return x_T.astype(jnp.float32)
