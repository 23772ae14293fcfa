"""The one loss that trains encoder, endpoint decoder and U-Net together.

Knows the networks only through their functions, those of `Networks`.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dbae_jax.bridge.marginals import marginal_sample
from dbae_jax.bridge.preconditioning import Bridge, make_denoiser
from dbae_jax.runtime import rngs
from dbae_jax.training.total_correlation import total_correlation


class Code(Protocol):
    """What an encoder says of a batch's z, such as `models.encoder.Code`."""

    @property
    def mean(self) -> jax.Array:
        """[B, D]."""

    @property
    def sigma(self) -> jax.Array | None:
        """[B, D]; None for a deterministic encoder."""

    def sample(self, eps: jax.Array) -> jax.Array:
        """Returns z for standard normal eps: [B, D] both."""


class Networks(Protocol):
    """What is trained, as functions of `variables`; `models.autoencoder.Networks` says what of."""

    @property
    def latent_dim(self) -> int:
        """D, the width of z."""

    @property
    def precision(self) -> str:
        """Of matrix products, for `jax.default_matmul_precision`."""

    def encode(self, variables: dict, x_0: jax.Array) -> Code:
        """Returns q(z | x_0)."""

    def endpoint(self, variables: dict, z: jax.Array) -> jax.Array:
        """Returns x_T, with the running statistics."""

    def endpoint_train(self, variables: dict, z: jax.Array) -> tuple[jax.Array, dict]:
        """Returns x_T with the batch's statistics, and the running statistics after it."""

    def network(
        self,
        variables: dict,
        x: jax.Array,
        c_noise: jax.Array,
        z: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns F, the U-Net's answer."""


class Draws(NamedTuple):
    """All that is random in one evaluation of the loss."""

    t: jax.Array  # [B], times in [t_min, T]
    noise: jax.Array  # [B, H, W, C], standard normal, of x_t
    eps: jax.Array  # [B, D], standard normal, of a stochastic code
    dropout_key: jax.Array | None  # None: no dropout


class LossTerms(NamedTuple):
    """The loss an example, and what else a forward pass gives."""

    weighted: jax.Array  # [B], weight(t) times x_0_error
    x_0_error: jax.Array  # [B], mean squared error of the denoised image
    z: jax.Array  # [B, D]
    stats: dict  # running statistics after the pass
    total_correlation: jax.Array | None = None  # of the batch's codes, where it was asked for


class Endpoint(NamedTuple):
    """What encoder and endpoint decoder make of a batch."""

    z: jax.Array  # [B, D]
    x_T: jax.Array  # [B, H, W, C]
    stats: dict  # running statistics after the pass


def draw(key: jax.Array, image_shape: tuple[int, ...], latent_dim: int, bridge: Bridge) -> Draws:
    """Draws t ~ U(t_min, T) and the noises for images of shape [B, H, W, C].

    Draws are for the global batch and do not depend on how it lies on devices.
    """
    batch = image_shape[0]
    schedule = bridge.schedule
    return Draws(
        t=jax.random.uniform(
            rngs.stream(key, "t"), (batch,), minval=schedule.t_min, maxval=schedule.t_max
        ),
        noise=jax.random.normal(rngs.stream(key, "noise"), image_shape),
        eps=jax.random.normal(rngs.stream(key, "code"), (batch, latent_dim)),
        dropout_key=rngs.stream(key, "dropout"),
    )


def bridge_loss(
    networks: Networks,
    bridge: Bridge,
    variables: dict,
    x_0: jax.Array,
    draws: Draws,
    *,
    train: bool,
    shuffle_codes: bool = False,
    with_total_correlation: bool = False,
) -> LossTerms:
    """Denoising error of x_0 on the bridge from x_0 to the decoded endpoint.

    x_T is made anew from z, so gradients reach the encoder and the decoder through x_t, through
    the condition x_T and through z. The denoised image is not clipped.

    Args:
      networks: functions of `variables`.
      bridge: schedule and scalings.
      variables: {"params", "stats"}.
      x_0: [B, H, W, C], pixels in [-1, 1].
      draws: times and noises.
      train: the decoder normalises with the batch's statistics and moves the running ones.
      shuffle_codes: gives every example its neighbour's z (and endpoint): a diagnostic, which
        raises the loss by as much as the code is used.
      with_total_correlation: also estimates the codes'; for stochastic encoders.

    Source: DBAE, eq. (13) with the weights of its section 4 (DDBM's).
    """
    code = networks.encode(variables, x_0)
    z = code.sample(draws.eps)
    correlation = total_correlation(code.mean, code.sigma, z) if with_total_correlation else None
    if shuffle_codes:
        z = jnp.roll(z, 1, axis=0)
    codes = endpoint(networks, variables, z, train=train)
    terms = denoising_loss(networks, bridge, variables, x_0, codes, draws)
    return terms._replace(total_correlation=correlation)


def endpoint(networks: Networks, variables: dict, z: jax.Array, *, train: bool) -> Endpoint:
    """Decodes z: [B, D] to x_T, with the batch's statistics when training."""
    if not train:
        return Endpoint(z, networks.endpoint(variables, z), variables["stats"])
    return Endpoint(z, *networks.endpoint_train(variables, z))


def denoising_loss(
    networks: Networks,
    bridge: Bridge,
    variables: dict,
    x_0: jax.Array,
    codes: Endpoint,
    draws: Draws,
) -> LossTerms:
    """The part of `bridge_loss` behind the endpoint; each example's is its own."""
    x_t = marginal_sample(bridge.schedule, draws.t, x_0, codes.x_T, draws.noise)

    def network_fn(x, c_noise, z):
        return networks.network(variables, x, c_noise, z, draws.dropout_key)

    at = bridge.at(draws.t)
    denoised = make_denoiser(network_fn)(x_t, at, codes.x_T, codes.z)
    error = jnp.mean((denoised - x_0) ** 2, axis=(1, 2, 3))
    return LossTerms(at.weight * error, error, codes.z, codes.stats)
