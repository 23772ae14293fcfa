"""The networks together: one flax module, and the pure functions that others call."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dbae_jax.models.decoder import Decoder
from dbae_jax.models.encoder import Code, Encoder
from dbae_jax.models.unet import UNet

Variables = dict  # {"params": tree of weights, "stats": tree of running statistics}


class AutoEncoder(nn.Module):
    """Encoder, endpoint decoder and U-Net; their weights lie under those three names.

    `decoder` None: x_T is free. Then `endpoint` gives zeros, which the bridge multiplies by 0 and
    the U-Net does not see, so that whoever calls need not know.
    """

    encoder: Encoder
    decoder: Decoder | None
    unet: UNet

    def encode(self, x_0: jax.Array) -> Code:
        return self.encoder(x_0)

    def endpoint(self, z: jax.Array, *, train: bool) -> jax.Array:
        if self.decoder is None:
            size = self.unet.image_size
            return jnp.zeros((len(z), size, size, self.unet.out_channels))
        return self.decoder(z, train=train)

    def network(self, x: jax.Array, c_noise: jax.Array, z: jax.Array, *, train: bool) -> jax.Array:
        if self.decoder is None:
            x = x[..., : self.unet.out_channels]
        return self.unet(x, c_noise, z, train=train)

    def __call__(self, x_0: jax.Array, c_noise: jax.Array) -> jax.Array:
        """Runs all of them once: what initialisation and cost estimates need."""
        z = self.encode(x_0).mean
        x_T = self.endpoint(z, train=False)
        return self.network(jnp.concatenate([x_0, x_T], axis=-1), c_noise, z, train=False)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks as pure functions of `variables`; knows no bridge and no config.

    `precision` is jax's matmul precision: "default", "high" or "highest".
    """

    module: AutoEncoder
    precision: str

    @property
    def latent_dim(self) -> int:
        """D, the width of z."""
        return self.module.encoder.latent_dim

    def init(self, key: jax.Array) -> Variables:
        """Draws weights and first running statistics."""
        unet = self.module.unet
        x_0 = jnp.zeros((1, unet.image_size, unet.image_size, unet.out_channels))
        return {"stats": {}} | self.module.init(key, x_0, jnp.zeros(1))

    def encode(self, variables: Variables, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) for x_0: [B, H, W, C] in [-1, 1]."""
        return self._apply(variables, x_0, method="encode")

    def endpoint(self, variables: Variables, z: jax.Array) -> jax.Array:
        """Returns x_T: [B, H, W, C] for z: [B, D], with the running statistics."""
        return self._apply(variables, z, method="endpoint", train=False)

    def endpoint_train(self, variables: Variables, z: jax.Array) -> tuple[jax.Array, dict]:
        """Returns x_T with the batch's statistics, and the running statistics after it."""
        x_T, moved = self._apply(variables, z, method="endpoint", train=True, mutable=["stats"])
        return x_T, moved.get("stats", {})

    def network(
        self,
        variables: Variables,
        x: jax.Array,
        c_noise: jax.Array,
        z: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns F: [B, H, W, C]; a dropout key switches dropout on."""
        train = dropout_key is not None
        rngs = {"dropout": dropout_key} if train else None
        return self._apply(variables, x, c_noise, z, method="network", train=train, rngs=rngs)

    def _apply(self, variables: Variables, *args, **kwargs):
        with jax.default_matmul_precision(self.precision):
            return self.module.apply(variables, *args, **kwargs)
