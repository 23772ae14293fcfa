"""The three networks as one flax module with three methods."""

import flax.linen as nn
import jax

from dbae_jax.models.decoder import Decoder
from dbae_jax.models.encoder import Code, Encoder
from dbae_jax.models.unet import UNet


class AutoEncoder(nn.Module):
    """Encoder, endpoint decoder and U-Net; their weights lie under those three names."""

    encoder: Encoder
    decoder: Decoder
    unet: UNet

    def encode(self, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) for x_0: [B, H, W, C] in [-1, 1]."""
        return self.encoder(x_0)

    def endpoint(self, z: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns x_T: [B, H, W, C] for z: [B, D]."""
        return self.decoder(z, train=train)

    def network(
        self, x: jax.Array, c_noise: jax.Array, z: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns F: [B, H, W, C], the U-Net's raw output."""
        return self.unet(x, c_noise, z, train=train)

    def __call__(self, x_0: jax.Array, c_noise: jax.Array) -> jax.Array:
        """Runs all three once: what initialisation and parameter tables need."""
        z = self.encode(x_0).mean
        x_T = self.endpoint(z)
        return self.network(jax.numpy.concatenate([x_0, x_T], axis=-1), c_noise, z)
