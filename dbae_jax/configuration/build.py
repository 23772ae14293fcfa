"""Builds networks and bridges from configs; the only place where names of choices are resolved."""

import logging
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from dbae_jax.bridge.preconditioning import Bridge, Moments
from dbae_jax.bridge.schedules import VE, VP, Free, Schedule
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.sections import BridgeConfig
from dbae_jax.errors import ConfigError
from dbae_jax.models.autoencoder import AutoEncoder, Networks
from dbae_jax.models.decoder import Decoder
from dbae_jax.models.encoder import Encoder
from dbae_jax.models.latent_net import LatentNet, LatentNetwork
from dbae_jax.models.unet import UNet
from dbae_jax.runtime import platforms

log = logging.getLogger(__name__)

# Largest signal-to-noise ratio at T that a Gaussian x_T allows; the usual VP has 4e-5, VE 1.6e-4.
MAX_FREE_SNR = 1e-3


def make_networks(config: Config, platform: str = platforms.ANY) -> Networks:
    """Returns the encoder, the endpoint decoder and the U-Net as pure functions.

    Models with a Gaussian x_T have no endpoint decoder. Weights are the same for all platforms.

    Args:
      config: config of the model.
      platform: platform of the devices, see `platforms.platform_of`. If it
        does not have the attention of the config, the networks use "auto" and a warning says so;
        for a config that the user chooses, `check_attention` raises an error instead.
    """
    model, data = config.model, config.data
    dtypes: dict[str, Any] = {
        "dtype": jnp.dtype(model.dtype),
        "param_dtype": jnp.dtype(model.param_dtype),
    }
    encoder = Encoder(
        latent_dim=model.latent_dim,
        stochastic=model.stochastic,
        image_size=data.image_size,
        # The heads of the encoder are too wide for cuDNN.
        attention="auto" if model.attention == "cudnn" else model.attention,
        remat=model.remat,
        **vars(model.encoder),
        **dtypes,
    )
    decoder = None
    if config.bridge.endpoint == "decoded":
        decoder = Decoder(
            image_size=data.image_size, channels=data.channels, **vars(model.decoder), **dtypes
        )
    unet = UNet(
        image_size=data.image_size,
        out_channels=data.channels,
        attention=_attention(config, platform),
        remat=model.remat,
        **vars(model.unet),
        **dtypes,
    )
    return Networks(AutoEncoder(encoder, decoder, unet), model.precision)


def check_attention(config: Config, platform: str) -> None:
    """Checks that a platform supports the attention that a config names.

    Args:
      config: config of the user.
      platform: see `platforms.platform_of`.

    Raises:
      ConfigError: if the config names cuDNN's attention and the platform does not have it.
    """
    if config.model.attention == "cudnn" and platforms.lacks_cudnn(platform):
        raise ConfigError(_no_cudnn(platform) + "; use 'auto'.")


def _no_cudnn(platform: str) -> str:
    return (
        f"config.model.attention='cudnn' needs an NVIDIA GPU, and the program is for a {platform}"
    )


def _attention(config: Config, platform: str) -> str:
    """Returns the attention of the U-Net on a platform."""
    model = config.model
    if model.attention == "xla":
        return "xla"
    if config.train.deterministic:
        return "auto"  # XLA cannot run cuDNN's attention in such a step (openxla/xla#46500)
    if platforms.has_cudnn_attention(platform, model.dtype, model.unet.head_channels):
        return "cudnn"
    if model.attention == "cudnn" and platforms.lacks_cudnn(platform):
        log.warning("%s. This model runs with 'auto' here.", _no_cudnn(platform))
    return "auto"


def make_bridge(config: BridgeConfig) -> Bridge:
    """Returns the diffusion bridge: the schedule and the preconditioning that a config names.

    Raises:
      ConfigError: if t_min is not below t_max, or if x_T is Gaussian (endpoint="free") and the
        schedule leaves too much of x_0 in x_T.
    """
    given = {"t_min": config.t_min, "t_max": config.t_max}
    times = {name: value for name, value in given.items() if value is not None}
    schedule, _, plain = config.schedule.partition("_")
    schedules: dict[str, Callable[[], Schedule]] = {
        "vp": lambda: VP(beta_d=config.beta_d, beta_min=config.beta_min, **times),
        "ve": lambda: VE(**times),
    }
    diffusion: Schedule = schedules[schedule]()
    if not diffusion.t_min < diffusion.t_max:
        raise ConfigError(
            f"config.bridge.t_min={diffusion.t_min} is not allowed: it must be below "
            f"t_max={diffusion.t_max}."
        )
    free = config.endpoint == "free"
    if free and diffusion.snr_end() > MAX_FREE_SNR:
        raise ConfigError(
            "config.bridge.endpoint='free' (Gaussian x_T) needs a signal-to-noise ratio at T of at "
            f"most {MAX_FREE_SNR:g}, and here it is {diffusion.snr_end():.2g}: raise "
            "config.bridge.beta_d (vp: 19.9) or t_max."
        )
    moments = Moments(config.data_std, config.endpoint_std, config.covariance)
    return Bridge(Free(diffusion) if free else diffusion, None if plain else moments)


def make_latent_network(config: Config) -> LatentNetwork:
    """Returns the network of the latent prior as pure functions."""
    prior = config.prior
    module = LatentNet(config.model.latent_dim, prior.num_layers, prior.width)
    return LatentNetwork(module, config.model.precision)
