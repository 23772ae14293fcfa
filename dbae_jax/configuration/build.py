"""Config sections -> objects: the only factory, and the only place where choices are looked up."""

import dataclasses
import logging

import jax.numpy as jnp

from dbae_jax.bridge.preconditioning import Bridge, Moments
from dbae_jax.bridge.schedules import VE, VP, Free
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.sections import BridgeConfig
from dbae_jax.errors import ConfigError
from dbae_jax.models.autoencoder import AutoEncoder, Networks
from dbae_jax.models.decoder import Decoder
from dbae_jax.models.encoder import Encoder
from dbae_jax.models.latent_net import LatentNet, LatentNetwork
from dbae_jax.models.unet import UNet

log = logging.getLogger(__name__)

# What a free x_T may keep of x_0; the usual VP has 4e-5, VE 1.6e-4.
MAX_FREE_SNR = 1e-3


def make_networks(config: Config) -> Networks:
    """Returns encoder, endpoint decoder (none where x_T is free) and U-Net as pure functions."""
    model, data = config.model, config.data
    dtypes = {"dtype": jnp.dtype(model.dtype), "param_dtype": jnp.dtype(model.param_dtype)}
    encoder = Encoder(
        latent_dim=model.latent_dim,
        stochastic=model.stochastic,
        image_size=data.image_size,
        attention="auto" if model.attention == "cudnn" else model.attention,  # its head is too wide
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
        attention=model.attention,
        remat=model.remat,
        **vars(model.unet),
        **dtypes,
    )
    return Networks(AutoEncoder(encoder, decoder, unet), model.matmul_precision)


def check_attention(config: Config, platform: str) -> None:
    """Refuses attention that devices such as "gpu", "tpu" or "cpu" do not have.

    Args:
      config: of the user's choice.
      platform: of the devices, as jax names it.

    Raises:
      ConfigError: for cuDNN's where there is no GPU.
    """
    problem = _missing_attention(config, platform)
    if problem:
        raise ConfigError(problem)


def computable(config: Config, platform: str) -> Config:
    """Returns a config with attention that the platform has, for a model that is there already.

    The model is the same; `check_attention` refuses where the choice is the user's.
    """
    problem = _missing_attention(config, platform)
    if problem:
        log.warning("%s Here 'auto' takes its place.", problem)
        return portable(config)
    return config


def _missing_attention(config: Config, platform: str) -> str | None:
    if config.model.attention != "cudnn" or platform == "gpu":
        return None
    return (
        "config.model.attention='cudnn' is a kernel of NVIDIA's GPUs, and the program is for a "
        f"{platform}; use 'auto'."
    )


def portable(config: Config) -> Config:
    """Returns a config whose networks have the same weights and can be traced on any machine."""
    if config.model.attention != "cudnn":
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention="auto"))


def make_bridge(config: BridgeConfig) -> Bridge:
    """Returns the schedule with the scalings that the config names.

    Raises:
      ConfigError: if its times do not fit, or a free x_T would not be near noise.
    """
    given = {"t_min": config.t_min, "t_max": config.t_max}
    times = {name: value for name, value in given.items() if value is not None}
    schedule, _, plain = config.schedule.partition("_")
    schedules = {
        "vp": lambda: VP(beta_d=config.beta_d, beta_min=config.beta_min, **times),
        "ve": lambda: VE(**times),
    }
    diffusion = schedules[schedule]()
    if not diffusion.t_min < diffusion.t_max:
        raise ConfigError(
            f"config.bridge.t_min={diffusion.t_min} is not allowed: it must be below "
            f"t_max={diffusion.t_max}."
        )
    free = config.endpoint == "free"
    if free and diffusion.snr_end() > MAX_FREE_SNR:
        raise ConfigError(
            f"config.bridge.endpoint='free' needs an x_T that is near noise, SNR_T at most "
            f"{MAX_FREE_SNR:g}, and here it is {diffusion.snr_end():.2g}: raise "
            "config.bridge.beta_d (vp: 19.9) or t_max."
        )
    moments = Moments(config.data_std, config.endpoint_std, config.covariance)
    return Bridge(Free(diffusion) if free else diffusion, None if plain else moments)


def make_latent_network(config: Config) -> LatentNetwork:
    """Returns the network of the latent prior as pure functions."""
    prior = config.prior
    module = LatentNet(config.model.latent_dim, prior.num_layers, prior.width)
    return LatentNetwork(module, config.model.matmul_precision)
