"""The network of the latent prior: an MLP over latent codes, also as pure functions."""

import dataclasses
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dbae_jax.models.layers import linear, sinusoid

TIME_WIDTH = 64  # width of the sinusoidal embedding of the time step


class LatentNet(nn.Module):
    """MLP with skips: the input of every layer but the first is [h, z_t].

    A hidden layer is: linear, times (1 + linear(SiLU(time))), layer norm, SiLU. The last layer is
    linear. The network computes in float32.

    Source: the latent diffusion of DiffAE (Preechakul et al., 2022), appendix A.
    """

    latent_dim: int
    num_layers: int
    width: int

    @nn.compact
    def __call__(self, z_t: jax.Array, t: jax.Array) -> jax.Array:
        """Returns the estimate of eps: [B, D] for noisy normalised codes z_t: [B, D] at t: [B]."""
        time = linear(sinusoid(t, TIME_WIDTH), self.latent_dim, name="time_0")
        time = nn.silu(linear(nn.silu(time), self.latent_dim, name="time_1"))
        h = z_t
        last = self.num_layers - 1
        for i in range(last):
            h = linear(h, self.width, name=f"layer_{i}")
            h = h * (1 + linear(time, self.width, name=f"layer_{i}_time"))
            h = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=f"layer_{i}_norm")(h)
            h = jnp.concatenate([nn.silu(h), z_t], axis=-1)
        return linear(h, self.latent_dim, name=f"layer_{last}")


@dataclasses.dataclass(frozen=True)
class LatentNetwork:
    """The network as pure functions of its weights; `precision` is jax's matmul precision."""

    module: LatentNet
    precision: str

    @property
    def latent_dim(self) -> int:
        """Latent dimension D."""
        return self.module.latent_dim

    def init(self, key: jax.Array) -> dict:
        """Returns random weights."""
        return self.module.init(key, jnp.zeros((1, self.latent_dim)), jnp.zeros(1))["params"]

    def predict(self, params: dict, z_t: jax.Array, t: jax.Array) -> jax.Array:
        """Returns the estimate of eps: [B, D] for noisy codes z_t: [B, D] at steps t: [B]."""
        with jax.default_matmul_precision(self.precision):
            return cast(jax.Array, self.module.apply({"params": params}, z_t, t))
