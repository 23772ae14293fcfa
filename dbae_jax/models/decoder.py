"""Endpoint decoder z -> x_T: the generator of FastGAN, with spectral norm in every convolution.

Running statistics are stored in the flax collection "stats": mean and var of the batch norms, and
the singular vectors u and v of the spectral norms.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jax.typing import DTypeLike

from dbae_jax.models.activations import Affine, glu
from dbae_jax.models.convolutions import convolve_upsampled
from dbae_jax.models.layers import kernel_init
from dbae_jax.models.norms import channel_moments
from dbae_jax.runtime.platforms import cast_kernel

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9
FIRST_GATED_SIZE = 64  # smallest size of features that are gated
INITIAL_POWER_STEPS = 15  # steps of the power method at initialisation
GATE_REDUCTION = 16  # features at size r are gated by the features at size r / 16


def width_at(base_channels: int, size: int) -> int:
    """Returns the number of channels of the features at size x size.

    As multiples of `base_channels`: 16 at size 4, 8 at 8, 4 at 16, 2 at 32 and at 64, 1 at 128,
    1/2 at 256, and so on.
    """
    return base_channels * 64 // size if size <= 32 else base_channels * 128 // size


def as_matrix(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [h, w, in, out] as a float32 matrix W': [h w in, out]."""
    return kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)


def power_iteration(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (u, v) after one step of the power method: v = normalize(W'u), u = normalize(W v).

    W is the matrix of the kernel [h, w, in, out]. u: [out]; v: [h w in]. Both are constants for
    the gradient.
    """
    transposed = lax.stop_gradient(as_matrix(kernel))
    v = _normalize(transposed @ u)
    return _normalize(v @ transposed), v


def refresh_spectral_vectors(params: dict, stats: dict) -> dict:
    """Returns `stats` with u and v after one step of the power method on the kernels in `params`.

    EMA weights need singular vectors of their own: an average of the singular vectors of the raw
    weights is not a singular vector of any kernel.
    """
    kernels, flat = traverse_util.flatten_dict(params), dict(traverse_util.flatten_dict(stats))
    for path in [path for path in flat if path[-1] == "u"]:
        u, v = power_iteration(kernels[(*path[:-1], "kernel")], flat[path])
        flat[path], flat[(*path[:-1], "v")] = u, v
    return traverse_util.unflatten_dict(flat)


def _normalize(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _initial_vectors(key: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns u and v after several steps of the power method from a random u.

    These steps make an untrained model usable in evaluation mode.
    """
    u = _normalize(jax.random.normal(key, kernel.shape[-1:]))
    u = lax.fori_loop(0, INITIAL_POWER_STEPS, lambda _, u: power_iteration(kernel, u)[0], u)
    return power_iteration(kernel, u)


class SpectralConv(nn.Module):
    """A convolution without bias whose kernel is divided by its largest singular value.

    In training mode, u and v first take one step of the power method; in evaluation mode the stored
    u and v are used. Both modes divide by u'W v, where only W has a gradient. `upsampled`: x is
    first upsampled by a factor of 2.

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
        """Returns the convolution of x: [B, H, W, C] -> [B, H', W', channels]."""
        kernel = cast_kernel(self.normalized_kernel(x.shape[-1], train=train), self.dtype)
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
        """Returns kernel / sigma: [size, size, in, out], float32. `train` also updates u and v."""
        shape = (self.size, self.size, in_channels, self.channels)
        kernel = self.param("kernel", kernel_init, shape, self.param_dtype)
        seeded: Any = (self.make_rng("params"), kernel) if self.is_initializing() else None
        u = self.variable("stats", "u", lambda: _initial_vectors(*seeded)[0])
        v = self.variable("stats", "v", lambda: _initial_vectors(*seeded)[1])
        if train and not self.is_initializing():
            u.value, v.value = power_iteration(kernel, u.value)
        # In this order, the product of v and the matrix is that of the power method.
        sigma = (v.value @ as_matrix(kernel)) @ u.value
        return kernel.astype(jnp.float32) / sigma


class SpectralConvTransposeFromPoint(SpectralConv):
    """A transposed convolution on a 1x1 input: z [B, D] -> [B, size, size, channels]."""

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Returns [B, size, size, channels] for z: [B, D]."""
        kernel = self.normalized_kernel(z.shape[-1], train=train).astype(self.dtype)
        return jnp.einsum("bd,hwdc->bhwc", z.astype(self.dtype), kernel)


class BatchNorm(nn.Module):
    """Batch norm over the global batch, in float32, returned as a scale and shift per channel.

    In training mode, each pass updates running statistics to 0.9 running + 0.1 batch. As in
    PyTorch, the running variance uses the unbiased variance of the batch, and the normalisation
    uses the biased one.
    """

    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Affine:
        """Returns the norm of x: [B, H, W, C], with batch statistics if `train`."""
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
        return Affine(scale[None], (bias - use_mean * scale)[None])


class UpBlock(nn.Module):
    """Nearest upsampling, convolution to twice the channels, batch norm, gated linear unit.

    On a latent code z, which has no positions, one transposed convolution replaces upsampling and
    convolution.
    """

    channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns [B, 2H, 2W, channels] for x: [B, H, W, C], [B, 4, 4, channels] for z: [B, D]."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if x.ndim == 2:
            from_point = SpectralConvTransposeFromPoint(2 * self.channels, 4, name="conv", **dtypes)
            x = from_point(x, train=train)
        else:
            conv = SpectralConv(2 * self.channels, 3, upsampled=True, name="conv", **dtypes)
            x = conv(x, train=train)
        norm = BatchNorm(name="norm", param_dtype=self.param_dtype)
        return glu(x, norm(x, train=train))


class Gate(nn.Module):
    """Squeeze-excitation: factors in (0, 1) for fine features, computed from coarse features."""

    channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, coarse: jax.Array, *, train: bool) -> jax.Array:
        """Returns factors [B, 1, 1, channels] for coarse features [B, h, w, c], h and w >= 4."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, h, w, c = coarse.shape
        pooled = coarse.reshape(b, 4, h // 4, 4, w // 4, c).mean(axis=(2, 4))
        x = SpectralConv(self.channels, 4, padding="VALID", name="conv_0", **dtypes)(
            pooled, train=train
        )
        x = SpectralConv(self.channels, 1, name="conv_1", **dtypes)(nn.silu(x), train=train)
        return nn.sigmoid(x)


class Decoder(nn.Module):
    """Endpoint decoder: upsamples z from 4x4 to the image size.

    From size 64 on, features of size r are gated by the features of size r / 16.

    Source: FastGAN (Liu et al., 2021), generator; DBAE, appendix.
    """

    image_size: int
    channels: int
    base_channels: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Returns x_T: [B, H, W, C], float32, unbounded, for z: [B, D].

        `train` normalises with batch statistics and updates running statistics.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        h, size = z, 4
        features: dict[int, jax.Array] = {}
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
