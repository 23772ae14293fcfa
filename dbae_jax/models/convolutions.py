"""Convolutions and resampling of feature maps [B, H, W, C], as functions without weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dbae_jax.models.activations import Affine, silu
from dbae_jax.runtime.platforms import by_cpu, by_gpu


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the padded convolution of x: [B, H, W, C] with a kernel [h, w, C, channels].

    On CPUs, a 1x1 convolution is a matrix product, which is several times as fast there.
    """
    if kernel.shape[:2] == (1, 1):
        return by_cpu(lambda x, kernel: x @ kernel[0, 0], _convolve, x, kernel)
    return _convolve(x, kernel)


def _convolve(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_plain(x: jax.Array, _: None, kernel: jax.Array) -> jax.Array:
    """Returns `convolve(x, kernel)`; the arguments are those of `convolve_activated`."""
    return convolve(x, kernel)


def convolve_upsampled(x: jax.Array, _: None, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of x, upsampled by a factor of 2, with a kernel [3, 3, C, channels].

    Several weights of the kernel multiply the same pixel of x. With their sums, a convolution takes
    4 multiplications per output instead of 9, and writes no upsampled feature map. In float32 on
    CPUs this is a matrix product. In narrower formats, on all platforms, it is the adjoint of a
    convolution with stride 2, for which GPUs and TPUs have fast programs. In float32 on GPUs and
    TPUs, x is upsampled and convolved with the kernel as it is.
    """
    if x.dtype == jnp.float32:
        return by_cpu(product_with_upsampled, lambda x, k: convolve(upsample(x), k), x, kernel)
    return adjoint_of_strided(x, strided_kernel(kernel))


def product_with_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns `convolve(upsample(x), kernel)` as one matrix product.

    Four pixels of the result, in even and odd rows and columns, depend on the same 3x3 pixels of x,
    each of them on 2x2. The product is over all 2x2 pixels of the padded x, for all four.
    """
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = [padded[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)]
    weights = _sums_of_neighbours(kernel).reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 4, 1, 3, 5)
    y = jnp.concatenate(corners, axis=-1).reshape(-1, 4 * c) @ weights.reshape(4 * c, -1)
    y = y.reshape(b, h + 1, w + 1, 2, 2, -1)
    rows = [jnp.stack([y[:, p : p + h, q : q + w, p, q] for q in (0, 1)], 3) for p in (0, 1)]
    return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, -1)


def strided_kernel(kernel: jax.Array) -> jax.Array:
    """Returns the kernel [4, 4, channels, C] for `adjoint_of_strided`, from [3, 3, C, channels].

    `adjoint_of_strided(x, strided_kernel(kernel))` equals `convolve(upsample(x), kernel)`.
    """
    # Reversed before the sums: XLA would cancel a reversal next to the adjoint's own, and then
    # convolve a map with zeros between its pixels, which takes four times the multiplications.
    wide = _sums_of_neighbours(kernel[::-1, ::-1].astype(jnp.float32))
    return wide.astype(kernel.dtype).swapaxes(2, 3)


def _sums_of_neighbours(kernel):
    """Returns [4, 4, ...] for [3, 3, ...]: in each direction k0, k0 + k1, k1 + k2 and k2."""
    for axis in (0, 1):
        before, after = (
            [(0, 0)] * axis + [pad] + [(0, 0)] * (3 - axis) for pad in ((1, 0), (0, 1))
        )
        kernel = jnp.pad(kernel, before) + jnp.pad(kernel, after)
    return kernel


def _strided(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of y with stride 2 and a kernel [4, 4, C', C]: half the size."""
    return lax.conv_general_dilated(
        y,
        kernel,
        window_strides=(2, 2),
        padding=[(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def adjoint_of_strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the adjoint of y -> `_strided(y, kernel)`, applied to x: twice the size.

    Its gradients are written as those of an ordinary convolution with stride 2, for which GPUs have
    fast kernels. The automatic gradient of the kernel would be a convolution whose window is as
    large as the feature map.
    """
    b, h, w, _ = x.shape
    y = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[2]), x.dtype)
    return jax.linear_transpose(lambda y: _strided(y, kernel), y)(x)[0]


def _forward(x, kernel):
    return adjoint_of_strided(x, kernel), (x, kernel)


def _backward(residuals, grad):
    x, kernel = residuals
    _, vjp_of_kernel = jax.vjp(lambda kernel: _strided(grad, kernel), kernel)
    return _strided(grad, kernel), *vjp_of_kernel(x)


adjoint_of_strided.defvjp(_forward, _backward)


def convolve_activated(x: jax.Array, affine: Affine, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of SiLU(affine(x)) with a kernel [h, w, C, channels]."""
    return convolve(silu(x, affine), kernel)


def downsample(x: jax.Array) -> jax.Array:
    """Returns the 2x2 means of x: [B, H, W, C] -> [B, H/2, W/2, C].

    GPUs fuse a mean with its neighbours. On CPUs, pooling is faster.
    """
    b, h, w, c = x.shape

    def mean(x):
        return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))

    def pool(x):
        return nn.avg_pool(x, (2, 2), strides=(2, 2))

    return by_gpu(mean, pool, x)


def upsample(x: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 (nearest): [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)
