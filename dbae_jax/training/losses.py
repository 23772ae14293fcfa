"""The loss that trains encoder, endpoint decoder and U-Net jointly.

The loss uses the networks only through the protocol `Networks`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dbae_jax.bridge.marginals import marginal_sample
from dbae_jax.bridge.preconditioning import Bridge, make_denoiser
from dbae_jax.runtime import rngs
from dbae_jax.training.total_correlation import total_correlation


class Code(Protocol):
    """The posterior q(z | x_0) of a batch, such as `models.encoder.Code`."""

    @property
    def mean(self) -> jax.Array:
        """Mean of z: [B, D]."""

    @property
    def sigma(self) -> jax.Array | None:
        """Standard deviation of z: [B, D]; None for a deterministic encoder."""

    def sample(self, eps: jax.Array) -> jax.Array:
        """Returns z: [B, D] for standard normal eps: [B, D]."""


class Networks(Protocol):
    """The networks as functions of `variables`, such as `models.autoencoder.Networks`."""

    @property
    def latent_dim(self) -> int:
        """Latent dimension D."""

    @property
    def precision(self) -> str:
        """Matmul precision, for `jax.default_matmul_precision`."""

    def encode(self, variables: dict, x_0: jax.Array) -> Code:
        """Returns q(z | x_0) for x_0: [B, H, W, C]."""

    def endpoint(self, variables: dict, z: jax.Array) -> jax.Array:
        """Returns x_T: [B, H, W, C] for z: [B, D]; batch norms use their running statistics."""

    def endpoint_train(self, variables: dict, z: jax.Array) -> tuple[jax.Array, dict]:
        """As `endpoint`, with batch statistics in batch norms; also returns the updated ones."""

    def network(
        self,
        variables: dict,
        x: jax.Array,
        c_noise: jax.Array,
        z: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the U-Net's output F: [B, H, W, C]."""


class Draws(NamedTuple):
    """All random numbers of one evaluation of the loss."""

    t: jax.Array  # [B], times in [t_min, T]
    noise: jax.Array  # [B, H, W, C], standard normal noise in x_t
    eps: jax.Array  # [B, D], standard normal noise in z of a stochastic encoder
    dropout_key: jax.Array | None  # None: no dropout
    r: jax.Array | None = None  # [B], earlier times in [0, t), of consistency training alone


class LossTerms(NamedTuple):
    """The loss per example, and the other results of the forward pass."""

    weighted: jax.Array  # [B], of denoising: weight(t) times x_0_error
    x_0_error: jax.Array  # [B], mean squared error of the denoised image
    z: jax.Array  # [B, D]
    stats: dict  # running statistics after the forward pass
    total_correlation: jax.Array | None = None  # scalar, of the latent codes; None if not requested


class Endpoint(NamedTuple):
    """Latent codes and decoded endpoints of a batch."""

    z: jax.Array  # [B, D]
    x_T: jax.Array  # [B, H, W, C]
    stats: dict  # running statistics after the forward pass


# (networks, bridge, variables, x_0, codes, draws) -> terms, such as `denoising_loss`. The loss of
# an example must not depend on the rest of the batch.
LossFn = Callable[[Networks, Bridge, dict, jax.Array, Endpoint, Draws], LossTerms]


def draw(
    key: jax.Array,
    image_shape: tuple[int, ...],
    latent_dim: int,
    bridge: Bridge,
    *,
    share_at_T: float = 0.0,
) -> Draws:
    """Returns t ~ U(t_min, T) and the noise for images of shape [B, H, W, C].

    The random numbers belong to the global batch: they do not depend on the number of devices.

    Args:
      key: key of the draws.
      image_shape: (B, H, W, C).
      latent_dim: latent dimension D.
      bridge: schedule and scalings.
      share_at_T: probability that the t of an image is T instead. There x_t is x_T, so that all
        that the denoiser knows of the image comes from its latent code.
    """
    batch = image_shape[0]
    schedule = bridge.schedule
    t = jax.random.uniform(
        rngs.stream(key, "t"), (batch,), minval=schedule.t_min, maxval=schedule.t_max
    )
    if share_at_T:
        at_T = jax.random.bernoulli(rngs.stream(key, "at_T"), share_at_T, (batch,))
        t = jnp.where(at_T, schedule.t_max, t)
    return Draws(
        t=t,
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
    loss_fn: LossFn | None = None,
) -> LossTerms:
    """Returns the weighted denoising error of x_0 on the bridge from x_0 to the decoded x_T.

    x_T is decoded from z inside the loss. Gradients therefore reach encoder and endpoint decoder
    through x_t, through the condition x_T of the U-Net, and through z. The denoised image is not
    clipped.

    Args:
      networks: the networks, as functions of `variables`.
      bridge: schedule and scalings.
      variables: {"params", "stats"}.
      x_0: images [B, H, W, C], pixels in [-1, 1].
      draws: times and noise of the batch.
      train: whether the endpoint decoder normalises with batch statistics and updates the running
        statistics.
      shuffle_codes: whether every example gets z and x_T of the previous example (the first
        those of the last). This is a diagnostic: the more the denoiser uses z and x_T, the more the
        loss rises.
      with_total_correlation: whether to estimate the total correlation of the latent codes, which
        needs a stochastic encoder.
      loss_fn: loss for given z and x_T. Default: `denoising_loss`.

    Source: DBAE, eq. (13) with the weights of its section 4 (DDBM's).
    """
    code = networks.encode(variables, x_0)
    z = code.sample(draws.eps)
    correlation = None
    if with_total_correlation:
        assert code.sigma is not None  # the config asks for a stochastic encoder
        correlation = total_correlation(code.mean, code.sigma, z)
    if shuffle_codes:
        z = jnp.roll(z, 1, axis=0)
    codes = endpoint(networks, variables, z, train=train)
    terms = (loss_fn or denoising_loss)(networks, bridge, variables, x_0, codes, draws)
    return terms._replace(total_correlation=correlation)


def endpoint(networks: Networks, variables: dict, z: jax.Array, *, train: bool) -> Endpoint:
    """Returns x_T, decoded from z: [B, D]; `train` normalises with batch statistics."""
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
    """Returns the terms of `bridge_loss` for given z and x_T.

    The loss of an example does not depend on the rest of the batch.
    """
    found = denoised(networks, bridge, variables, x_0, codes, draws, draws.t)
    error = jnp.mean((found - x_0) ** 2, axis=(1, 2, 3))
    return LossTerms(bridge.at(draws.t).weight * error, error, codes.z, codes.stats)


def denoised(
    networks: Networks,
    bridge: Bridge,
    variables: dict,
    x_0: jax.Array,
    codes: Endpoint,
    draws: Draws,
    t: jax.Array,
) -> jax.Array:
    """Returns D(x_t, t, x_T, z): [B, H, W, C] at times t: [B], with the noise of the draws."""

    def network_fn(x, c_noise, z):
        return networks.network(variables, x, c_noise, z, draws.dropout_key)

    x_t = marginal_sample(bridge.schedule, t, x_0, codes.x_T, draws.noise)
    return make_denoiser(network_fn)(x_t, bridge.at(t), codes.x_T, codes.z)
