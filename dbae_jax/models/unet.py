"""U-Net of the denoiser: ADM's, conditioned on time and on z."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models import layout
from dbae_jax.models.layers import (
    AttentionBlock,
    GroupNorm,
    ResBlock,
    conv,
    linear,
    sinusoid,
)


class UNet(nn.Module):
    """F([c_in x_t, x_T], c_noise, z).

    Source: ADM (Dhariwal and Nichol, 2021) with resampling inside residual blocks and scale-shift
    norms; the embedding of time and a linear map of z are added.
    """

    image_size: int
    out_channels: int
    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    dropout: float
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, c_noise: jax.Array, z: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Runs the network.

        Args:
          x: [B, H, W, 2C], scaled x_t and x_T.
          c_noise: [B], 250 ln t.
          z: [B, D].
          train: draws dropout masks from the "dropout" key.

        Returns:
          [B, H, W, C], float32.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        embedding = self._embed(c_noise, z)
        h = conv(x.astype(self.dtype), self.base_channels, name="conv_in", **dtypes)
        skips = [h]
        for stage in self.stages(layout.down_path):
            h = self._stage(f"down_{stage.index}", stage, h, embedding, train=train)
            skips.append(h)
        h = self._block("middle_0", h.shape[-1], h, embedding, train=train)
        h = self._attention("middle_attention", h)
        h = self._block("middle_1", h.shape[-1], h, embedding, train=train)
        for stage in self.stages(layout.up_path):
            h = jnp.concatenate([h, skips.pop()], axis=-1)
            h = self._stage(f"up_{stage.index}", stage, h, embedding, train=train)
        h = nn.silu(GroupNorm(name="norm_out", **dtypes)(h))
        return conv(h, self.out_channels, zero=True, name="conv_out", **dtypes).astype(jnp.float32)

    @nn.nowrap
    def stages(self, path: Callable[..., list[layout.Stage]]) -> list[layout.Stage]:
        """Returns the table of the down path or the up path."""
        return path(
            image_size=self.image_size,
            base_channels=self.base_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_resolutions=self.attention_resolutions,
        )

    def _embed(self, c_noise: jax.Array, z: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = 4 * self.base_channels
        time = linear(sinusoid(c_noise, self.base_channels), width, name="time_0", **dtypes)
        time = linear(nn.silu(time), width, name="time_1", **dtypes)
        return time + linear(z, width, name="code", **dtypes)

    def _stage(self, name, stage, h, embedding, *, train):
        h = self._block(name, stage.channels, h, embedding, resample=stage.resample, train=train)
        if stage.attention:
            h = self._attention(f"{name}_attention", h)
        if stage.upsample_after:
            name = f"{name}_upsample"
            h = self._block(name, stage.channels, h, embedding, resample="up", train=train)
        return h

    def _block(self, name, channels, h, embedding, *, resample="keep", train):
        block = ResBlock(
            channels,
            resample=resample,
            dropout=self.dropout,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
        return block(h, embedding, train=train)

    def _attention(self, name, h):
        heads = h.shape[-1] // self.head_channels
        return AttentionBlock(heads, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(h)
