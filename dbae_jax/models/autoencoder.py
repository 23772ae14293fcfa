"""Encoder, endpoint decoder and U-Net as one flax module, and as pure functions (`Networks`)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dbae_jax.models.decoder import Decoder
from dbae_jax.models.encoder import Code, Encoder
from dbae_jax.models.unet import UNet

Variables = dict  # {"params": tree of weights, "stats": tree of running statistics}


class AutoEncoder(nn.Module):
    """Encoder, endpoint decoder and U-Net; the weights are stored under these three names.

    `decoder=None` is the model of DiffAE, whose x_T is Gaussian noise, independent of z. Then
    `endpoint` returns zeros: the bridge multiplies them by A = 0, and the U-Net does not read them.
    Callers therefore need no special case.
    """

    encoder: Encoder
    decoder: Decoder | None
    unet: UNet

    def encode(self, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) for images x_0 [B, H, W, C]."""
        return self.encoder(x_0)

    def endpoint(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Returns the decoded x_T [B, H, W, C] for latent codes z [B, D]."""
        if self.decoder is None:
            size = self.unet.image_size
            return jnp.zeros((z.shape[0], size, size, self.unet.out_channels))
        return self.decoder(z, train=train)

    def network(self, x: jax.Array, c_noise: jax.Array, z: jax.Array, *, train: bool) -> jax.Array:
        """Returns F [B, H, W, C] for x = [c_in x_t, x_T] [B, H, W, 2C], c_noise [B], z [B, D]."""
        if self.decoder is None:
            x = x[..., : self.unet.out_channels]
        return self.unet(x, c_noise, z, train=train)

    def __call__(self, x_0: jax.Array, c_noise: jax.Array) -> jax.Array:
        """Runs all three networks once, for initialisation and cost estimates."""
        z = self.encode(x_0).mean
        x_T = self.endpoint(z, train=False)
        return self.network(jnp.concatenate([x_0, x_T], axis=-1), c_noise, z, train=False)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks as pure functions of `variables`, without a bridge or a config.

    Attributes:
      module: the flax module.
      precision: jax's matmul precision, "default", "high" or "highest".
    """

    module: AutoEncoder
    precision: str

    @property
    def latent_dim(self) -> int:
        """Latent dimension D."""
        return self.module.encoder.latent_dim

    def init(self, key: jax.Array) -> Variables:
        """Returns random weights and initial running statistics."""
        unet = self.module.unet
        x_0 = jnp.zeros((1, unet.image_size, unet.image_size, unet.out_channels))
        return {"stats": {}, **self.module.init(key, x_0, jnp.zeros(1))}

    def encode(self, variables: Variables, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) for x_0: [B, H, W, C] in [-1, 1]."""
        return self._apply(variables, x_0, method="encode")

    def endpoint(self, variables: Variables, z: jax.Array) -> jax.Array:
        """Returns x_T: [B, H, W, C] for z: [B, D]; batch norms use their running statistics."""
        return self._apply(variables, z, method="endpoint", train=False)

    def endpoint_train(self, variables: Variables, z: jax.Array) -> tuple[jax.Array, dict]:
        """As `endpoint`, with batch statistics in batch norms; also returns the updated ones."""
        x_T, updated = self._apply(variables, z, method="endpoint", train=True, mutable=["stats"])
        return x_T, updated.get("stats", {})

    def network(
        self,
        variables: Variables,
        x: jax.Array,
        c_noise: jax.Array,
        z: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the U-Net's output F: [B, H, W, C].

        Args:
          variables: {"params", "stats"}.
          x: [c_in x_t, x_T], concatenated over channels: [B, H, W, 2C].
          c_noise: noise levels [B].
          z: latent codes [B, D].
          dropout_key: random key of the dropout masks; None means no dropout.
        """
        train = dropout_key is not None
        rngs = {"dropout": dropout_key} if train else None
        return self._apply(variables, x, c_noise, z, method="network", train=train, rngs=rngs)

    def _apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(self.precision):
            return self.module.apply(variables, *args, **kwargs)
