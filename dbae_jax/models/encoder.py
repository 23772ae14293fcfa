"""Encoder x_0 -> z: the down path of a U-Net, then pooling over positions."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models import stages
from dbae_jax.models.activations import silu
from dbae_jax.models.layers import AttentionBlock, ResBlock, conv, linear, rematerialised
from dbae_jax.models.norms import GroupNorm

CODE_BOUND = 5.0  # bound of mean and log_sigma of stochastic codes
MIN_SIGMA = 0.01


class Code(NamedTuple):
    """The posterior q(z | x_0) of a batch of latent codes.

    Attributes:
      mean: [B, D].
      log_sigma: [B, D]; None for a deterministic encoder.
    """

    mean: jax.Array
    log_sigma: jax.Array | None

    @property
    def sigma(self) -> jax.Array | None:
        """Standard deviations: [B, D], exp(log_sigma) + 0.01; None for a deterministic encoder."""
        return None if self.log_sigma is None else jnp.exp(self.log_sigma) + MIN_SIGMA

    def sample(self, eps: jax.Array) -> jax.Array:
        """Returns z = mean + (exp(log_sigma) + 0.01) eps for standard normal eps: [B, D].

        A deterministic code is its mean.
        """
        sigma = self.sigma
        return self.mean if sigma is None else self.mean + sigma * eps


class Encoder(nn.Module):
    """Encoder: down path, middle, norm, SiLU, pooling, projection to z; one attention head.

    `pool="mean"` averages over positions, as in the paper; `pool="flatten"` projects all positions.
    Mean and log_sigma of stochastic codes are bounded: both are 5 tanh(v / 5) of the projection v.
    `attention`: see `attention.attend`. `remat`: see `layers.rematerialised`.

    Source: DBAE, appendix (the encoder of DiffAE with one convolution per block).
    """

    latent_dim: int
    stochastic: bool
    image_size: int
    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    pool: str = "mean"
    attention: str = "auto"
    remat: str = "none"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) in float32 for x_0: [B, H, W, C], pixels in [-1, 1]."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        res_block, attention_block = rematerialised(self.remat, ResBlock, AttentionBlock)
        attention = {"implementation": self.attention, **dtypes}
        h = conv(x_0.astype(self.dtype), self.base_channels, name="conv_in", **dtypes)
        for stage in stages.down_path(self):
            name = f"down_{stage.index}"
            h = res_block(stage.channels, resample=stage.resample, name=name, **dtypes)((h,))
            if stage.attention:
                h = attention_block(name=f"{name}_attention", **attention)(h)
        h = res_block(h.shape[-1], name="middle_0", **dtypes)((h,))
        h = attention_block(name="middle_attention", **attention)(h)
        h = res_block(h.shape[-1], name="middle_1", **dtypes)((h,))
        h = silu(h, GroupNorm(name="norm_out", param_dtype=self.param_dtype)((h,)))
        return self._project(h)

    def _project(self, h: jax.Array) -> Code:
        h = h.astype(jnp.float32)
        h = h.mean(axis=(1, 2)) if self.pool == "mean" else h.reshape(h.shape[0], -1)
        width = 2 * self.latent_dim if self.stochastic else self.latent_dim
        v = linear(h, width, name="project", param_dtype=self.param_dtype)
        if not self.stochastic:
            return Code(v, None)
        mean, log_sigma = jnp.split(CODE_BOUND * jnp.tanh(v / CODE_BOUND), 2, axis=-1)
        return Code(mean, log_sigma)
