"""U-Net of the denoiser: ADM's, conditioned on time and on z."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models import stages
from dbae_jax.models.layers import (
    AttentionBlock,
    ResBlock,
    conv,
    linear,
    rematerialised,
    sinusoid,
)
from dbae_jax.models.norms import GroupNorm


class UNet(nn.Module):
    """F([c_in x_t, x_T], c_noise, z).

    Source: ADM (Dhariwal and Nichol, 2021) with resampling inside residual blocks and scale-shift
    norms; the embedding of time and a linear map of z are added. The up path hands [h, skip] on as
    two parts: they are never concatenated. `attention`: see `attention.attend`; `remat`: see
    `layers.rematerialised`.
    """

    image_size: int
    out_channels: int
    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    dropout: float
    attention: str = "auto"
    remat: str = "none"
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
        for stage in self.stages(stages.down_path):
            h = self._stage(f"down_{stage.index}", stage, (h,), embedding, train=train)
            skips.append(h)
        h = self._block("middle_0", h.shape[-1], (h,), embedding, train=train)
        h = self._attention("middle_attention", h)
        h = self._block("middle_1", h.shape[-1], (h,), embedding, train=train)
        for stage in self.stages(stages.up_path):
            parts = (h, skips.pop())
            h = self._stage(f"up_{stage.index}", stage, parts, embedding, train=train)
        h = GroupNorm(name="norm_out", param_dtype=self.param_dtype)((h,)).apply(h)
        h = nn.silu(h)
        return conv(h, self.out_channels, zero=True, name="conv_out", **dtypes).astype(jnp.float32)

    @nn.nowrap
    def stages(self, path: Callable[..., list[stages.Stage]]) -> list[stages.Stage]:
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

    def _stage(self, name, stage, parts, embedding, *, train):
        up = {"resample": "up", "train": train}
        as_named = {"resample": stage.resample, "train": train}
        h = self._block(name, stage.channels, parts, embedding, **as_named)
        if stage.attention:
            h = self._attention(f"{name}_attention", h)
        if stage.upsample_after:
            h = self._block(f"{name}_upsample", stage.channels, (h,), embedding, **up)
        return h

    def _block(self, name, channels, parts, embedding, *, resample="keep", train):
        (block,) = rematerialised(self.remat, ResBlock)
        return block(
            channels,
            resample=resample,
            dropout=self.dropout if train else 0.0,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(parts, embedding)

    def _attention(self, name, h):
        (block,) = rematerialised(self.remat, AttentionBlock)
        return block(
            h.shape[-1] // self.head_channels,
            self.attention,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(h)
