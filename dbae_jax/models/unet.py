"""The U-Net of the denoiser: ADM's U-Net, conditioned on time and on z."""

import itertools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models import stages
from dbae_jax.models.activations import silu
from dbae_jax.models.concatenated import Parts
from dbae_jax.models.layers import (
    AttentionBlock,
    ResBlock,
    conv,
    linear,
    rematerialised,
    sinusoid,
)
from dbae_jax.models.norms import GroupNorm
from dbae_jax.models.stages import Stage


class UNet(nn.Module):
    """The network F([c_in x_t, x_T], c_noise, z).

    Resampling takes place inside residual blocks. The sum of the time embedding and a linear map of
    z gives the scale and shift of norms in residual blocks. The up path passes h and the skip
    connection as two parts (`concatenated.Parts`). `attention`: see `attention.attend`. `remat`:
    see `layers.rematerialised`.

    Source: ADM (Dhariwal and Nichol, 2021); DBAE, appendix.
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
        """Returns F: [B, H, W, C], float32.

        Args:
          x: scaled x_t and x_T, concatenated over channels: [B, H, W, 2C]. For a Gaussian x_T
            (DiffAE): scaled x_t alone, [B, H, W, C].
          c_noise: noise levels 250 ln t, [B].
          z: latent codes [B, D].
          train: whether to apply dropout, with masks drawn from the "dropout" key.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        embedding = self._embed(c_noise, z)
        h = conv(x.astype(self.dtype), self.base_channels, name="conv_in", **dtypes)
        skips, keys = [h], self._dropout_keys(train=train)
        for stage in stages.down_path(self):
            h = self._stage(f"down_{stage.index}", stage, (h,), embedding, keys)
            skips.append(h)
        h = self._block("middle_0", h.shape[-1], (h,), embedding, next(keys))
        h = self._attention("middle_attention", h)
        h = self._block("middle_1", h.shape[-1], (h,), embedding, next(keys))
        for stage in stages.up_path(self):
            parts = (h, skips.pop())
            h = self._stage(f"up_{stage.index}", stage, parts, embedding, keys)
        h = silu(h, GroupNorm(name="norm_out", param_dtype=self.param_dtype)((h,)))
        return conv(h, self.out_channels, zero=True, name="conv_out", **dtypes).astype(jnp.float32)

    def _embed(self, c_noise: jax.Array, z: jax.Array) -> jax.Array:
        """Returns the sum of the embeddings of time and z: [B, 4 base_channels]."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = 4 * self.base_channels
        time = linear(sinusoid(c_noise, self.base_channels), width, name="time_0", **dtypes)
        time = linear(nn.silu(time), width, name="time_1", **dtypes)
        return time + linear(z, width, name="code", **dtypes)

    def _dropout_keys(self, *, train: bool) -> Iterator[jax.Array | None]:
        """Returns a key for each residual block, or None for each without dropout."""
        if not train or not self.dropout:
            return itertools.repeat(None)
        up_path = stages.up_path(self)
        count = len(stages.down_path(self)) + 2 + len(up_path)
        count += sum(stage.upsample_after for stage in up_path)
        return iter(jax.random.split(self.make_rng("dropout"), count))

    def _stage(
        self,
        name: str,
        stage: Stage,
        parts: Parts,
        embedding: jax.Array,
        keys: Iterator[jax.Array | None],
    ) -> jax.Array:
        h = self._block(name, stage.channels, parts, embedding, next(keys), stage.resample)
        if stage.attention:
            h = self._attention(f"{name}_attention", h)
        if stage.upsample_after:
            name = f"{name}_upsample"
            h = self._block(name, stage.channels, (h,), embedding, next(keys), "up")
        return h

    def _block(
        self,
        name: str,
        channels: int,
        parts: Parts,
        embedding: jax.Array,
        dropout_key: jax.Array | None,
        resample: str = "keep",
    ) -> jax.Array:
        (block,) = rematerialised(self.remat, ResBlock)
        return block(
            channels,
            resample=resample,
            dropout=self.dropout,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(parts, embedding, dropout_key)

    def _attention(self, name: str, h: jax.Array) -> jax.Array:
        (block,) = rematerialised(self.remat, AttentionBlock)
        return block(
            h.shape[-1] // self.head_channels,
            self.attention,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(h)
