"""The U-Net of the denoiser: ADM's U-Net, conditioned on time and on z."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dbae_jax.models import stages
from dbae_jax.models.activations import silu
from dbae_jax.models.layers import (
    AttentionBlock,
    ResBlock,
    conv,
    linear,
    linear_maps,
    rematerialised,
    sinusoid,
)
from dbae_jax.models.norms import GroupNorm


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
        blocks = self._blocks()
        embedding = nn.silu(self._embed(c_noise, z))
        modulations = linear_maps(embedding, [block.embedding for block in blocks])
        calls = zip(blocks, modulations, self._dropout_keys(len(blocks), train), strict=True)

        def block(*parts: jax.Array) -> jax.Array:
            module, modulation, dropout_key = next(calls)
            return module(parts, modulation, dropout_key)

        h = conv(x.astype(self.dtype), self.base_channels, name="conv_in", **dtypes)
        skips = [h]
        for stage in stages.down_path(self):
            h = block(h)
            if stage.attention:
                h = self._attention(f"down_{stage.index}_attention", h)
            skips.append(h)
        h = block(self._attention("middle_attention", block(h)))
        for stage in stages.up_path(self):
            h = block(h, skips.pop())
            if stage.attention:
                h = self._attention(f"up_{stage.index}_attention", h)
            if stage.upsample_after:
                h = block(h)
        h = silu(h, GroupNorm(name="norm_out", param_dtype=self.param_dtype)((h,)))
        return conv(h, self.out_channels, zero=True, name="conv_out", **dtypes).astype(jnp.float32)

    def _embed(self, c_noise: jax.Array, z: jax.Array) -> jax.Array:
        """Returns the sum of the embeddings of time and z: [B, 4 base_channels]."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = 4 * self.base_channels
        time = linear(sinusoid(c_noise, self.base_channels), width, name="time_0", **dtypes)
        time = linear(nn.silu(time), width, name="time_1", **dtypes)
        return time + linear(z, width, name="code", **dtypes)

    def _blocks(self) -> list[ResBlock]:
        """Returns the residual blocks in the order of their calls."""
        (kind,) = rematerialised(self.remat, ResBlock)

        def block(name: str, channels: int, resample: str = "keep") -> ResBlock:
            return kind(
                channels,
                resample=resample,
                dropout=self.dropout,
                embedding_width=4 * self.base_channels,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )

        down = stages.down_path(self)
        blocks = [block(f"down_{stage.index}", stage.channels, stage.resample) for stage in down]
        blocks += [block(name, down[-1].channels) for name in ("middle_0", "middle_1")]
        for stage in stages.up_path(self):
            blocks.append(block(f"up_{stage.index}", stage.channels))
            if stage.upsample_after:
                blocks.append(block(f"up_{stage.index}_upsample", stage.channels, "up"))
        return blocks

    def _dropout_keys(self, count: int, train: bool) -> list[jax.Array | None]:
        """Returns a key for each residual block, or None for each without dropout."""
        if not train or not self.dropout:
            return [None] * count
        return list(jax.random.split(self.make_rng("dropout"), count))

    def _attention(self, name: str, h: jax.Array) -> jax.Array:
        (block,) = rematerialised(self.remat, AttentionBlock)
        return block(
            h.shape[-1] // self.head_channels,
            self.attention,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(h)
