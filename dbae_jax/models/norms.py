"""Group norm, and the means and variances that group norm and batch norm use."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dbae_jax.models.activations import Affine
from dbae_jax.models.concatenated import Parts
from dbae_jax.runtime.platforms import by_gpu


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
        moments = [channel_moments(part, (1, 2)) for part in parts]
        mean, var = (jnp.concatenate(of_parts, axis=-1) for of_parts in zip(*moments, strict=True))
        by, to = (1.0, 0.0) if modulation is None else modulation
        by, to = (jnp.broadcast_to(m, mean.shape).astype(jnp.float32) for m in (by, to))
        bias = jnp.zeros(channels) if bias is None else bias
        learned = Learned(scale, shift, bias.astype(jnp.float32))
        # CPUs compute in float32, and JAX's own backward pass is faster there.
        function = group_affine if parts[0].dtype == jnp.float32 else fused_group_affine
        return function(self.num_groups, self.epsilon, mean, var, learned, (by, to))


class Learned(NamedTuple):
    """Parameters of a group norm, [C] each, and the bias of the feature map before it."""

    scale: jax.Array
    shift: jax.Array
    bias: jax.Array


def group_affine(
    num_groups: int,
    epsilon: float,
    mean: jax.Array,
    var: jax.Array,
    learned: Learned,
    modulation: tuple[jax.Array, jax.Array],
) -> Affine:
    """Returns a group norm as a scale and a shift.

    Args:
      num_groups: number of groups.
      epsilon: number added to the variances.
      mean: means of the channels [B, C], without the bias.
      var: variances of the channels [B, C].
      learned: parameters.
      modulation: scale and shift after the norm, [B, C] each.
    """
    by, to = modulation
    size = mean.shape[1] // num_groups

    def over_group(per_channel):
        groups = per_channel.reshape(per_channel.shape[0], num_groups, size)
        return jnp.repeat(groups.mean(-1), size, axis=1)

    mean = mean + learned.bias
    group_mean = over_group(mean)
    # The variance of a group is the mean variance of its channels plus the variance of their means.
    group_var = over_group(var + jnp.square(mean - group_mean))
    scale = learned.scale * by * lax.rsqrt(group_var + epsilon)
    return Affine(scale, learned.shift * by + to - (group_mean - learned.bias) * scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fused_group_affine(
    num_groups: int,
    epsilon: float,
    mean: jax.Array,
    var: jax.Array,
    learned: Learned,
    modulation: tuple[jax.Array, jax.Array],
) -> Affine:
    """Returns `group_affine` of the same arguments, in few kernels, with a hand-written gradient.

    On a GPU, the automatic gradient is a chain of kernels that take longer to start than to run.
    """
    return _affine_forward(num_groups, epsilon, mean, var, learned, modulation)[0]


def _affine_forward(num_groups, epsilon, mean, var, learned, modulation):
    by, to = modulation
    mean = mean + learned.bias
    # The variance of the means is computed from differences to the mean of the group's first
    # channel, so that both group means are taken at once.
    first = _spread(mean, num_groups, lambda groups: groups[:, :, 0])
    offset = mean - first
    offset_mean = _group_mean(offset, num_groups)
    group_mean = first + offset_mean
    group_var = _group_mean(var + jnp.square(offset), num_groups) - jnp.square(offset_mean)
    inverse = lax.rsqrt(group_var + epsilon)
    scale = learned.scale * by * inverse
    shift = learned.shift * by + to - (group_mean - learned.bias) * scale
    # Written once on a GPU: whatever reads a feature map would otherwise compute them again.
    results = scale, shift, mean - group_mean, group_mean, inverse
    written = by_gpu(lambda *arrays: lax.optimization_barrier(arrays), lambda *same: same, *results)
    scale, shift, *residuals = written
    return Affine(scale, shift), (*residuals, learned, by)


def _affine_backward(num_groups, epsilon, residuals, grads):
    del epsilon
    centred, group_mean, inverse, learned, by = residuals
    by_scale, by_shift = grads
    scale = learned.scale * by * inverse
    by_scale = (by_scale - (group_mean - learned.bias) * by_shift) * inverse
    by_var = _group_mean(-0.5 * inverse * scale * by_scale, num_groups)
    by_mean = 2 * centred * by_var - _group_mean(scale * by_shift, num_groups)
    # One sum for all three.
    sums = jnp.stack([by_scale * by, by_shift * by, by_mean + scale * by_shift]).sum(1)
    by_modulation = by_scale * learned.scale + by_shift * learned.shift, by_shift
    return by_mean, by_var, Learned(*sums), by_modulation


fused_group_affine.defvjp(_affine_forward, _affine_backward)


def _group_mean(per_channel: jax.Array, num_groups: int) -> jax.Array:
    """Returns, for every channel, the mean over its group: [B, C] -> [B, C].

    The mean is written as a sum of slices: GPUs compute it together with its neighbours, where a
    reduction is a kernel of its own.
    """
    size = per_channel.shape[1] // num_groups

    def mean(groups):
        return functools.reduce(jnp.add, [groups[:, :, i] for i in range(size)]) / size

    return _spread(per_channel, num_groups, mean)


def _spread(per_channel: jax.Array, num_groups: int, function: Callable) -> jax.Array:
    """Returns function(groups), [B, G] for groups [B, G, C / G], for every channel: [B, C]."""
    groups = per_channel.reshape(per_channel.shape[0], num_groups, -1)
    return jnp.broadcast_to(function(groups)[:, :, None], groups.shape).reshape(per_channel.shape)
