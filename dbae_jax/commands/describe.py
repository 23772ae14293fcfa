"""--dry_run: describes a config without running it."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from clu import parameter_overview

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data import registry
from dbae_jax.errors import DBAEError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.performance.flops import count_flops
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state


def describe(config: Config) -> str:
    """Returns a summary, then the table of parameters and the resolved config, as text."""
    networks = build.make_networks(config)
    build.make_bridge(config.bridge)
    params = jax.eval_shape(networks.init, jax.random.key(0))["params"]
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    return "\n".join(
        [*_summary(config, networks, params), "", table, json.dumps(to_dict(config), indent=2)]
    )


def forward_flops(config: Config, networks: Networks) -> float:
    """Returns the FLOPs of one forward pass of all networks for one image."""
    size, channels = config.data.image_size, config.data.channels
    return count_flops(
        networks.module.apply,
        jax.eval_shape(networks.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    )


def training_flops(config: Config, networks: Networks) -> float:
    """Returns about the FLOPs of one training step for one image.

    A backward pass takes twice a forward pass. A distillation trains the U-Net alone, and evaluates
    it once more for the target.
    """
    whole = forward_flops(config, networks)
    return whole + 3 * unet_flops(config, networks) if is_distilled(config) else 3 * whole


def unet_flops(config: Config, networks: Networks) -> float:
    """Returns the FLOPs of one forward pass of the U-Net for one image, where x_T is decoded."""
    size, channels = config.data.image_size, config.data.channels
    shapes = ((1, size, size, 2 * channels), (1,), (1, config.model.latent_dim))  # x_t and x_T
    return count_flops(
        networks.network,
        jax.eval_shape(networks.init, jax.random.key(0)),
        *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes),
    )


def _summary(config: Config, networks: Networks, params: dict) -> list[str]:
    """Returns the lines that matter most; the rest of --dry_run has the details."""
    data, kind = config.data, "stochastic" if config.model.stochastic else "deterministic"
    parts = {name: _count(tree) for name, tree in params.items()}
    flops = forward_flops(config, networks)
    return [
        f"Model: {kind} encoder, latent dimension {config.model.latent_dim}, {config.model.dtype}",
        f"Images: {data.name}, {data.image_size}x{data.image_size}x{data.channels}",
        f"Parameters: {sum(parts.values()) / 1e6:.1f}M ("
        + ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in parts.items())
        + ")",
        f"FLOPs per image: {flops / 1e9:.1f} G for one forward pass of all networks, about "
        f"{training_flops(config, networks) / 1e9:.1f} G per training step",
        f"Training: {config.train.num_steps:,} steps of {config.train.batch_size} images, "
        + _epochs(config),
        f"Memory: {_state_bytes(config, networks, params) / 2**30:.2f} GiB for weights, EMA "
        "weights, optimizer and gradients; activations come on top. `dbae plan` predicts the sum.",
    ]


def _epochs(config: Config) -> str:
    """Returns the number of steps per epoch, and of epochs, in words."""
    try:
        count = len(registry.make_source(config.data, "train"))
    except DBAEError:
        return f"steps per epoch unknown: the data of {config.data.name!r} are not prepared"
    steps = count / config.train.batch_size
    return (
        f"{steps:,.1f} steps per epoch of {count:,} images, "
        f"{config.train.num_steps / steps:,.1f} epochs"
    )


def _state_bytes(config: Config, networks: Networks, params: dict) -> int:
    """Returns the bytes of the training state and of the gradients."""
    optimizer = make_optimizer(config)
    state = jax.eval_shape(lambda key: create_state(networks, optimizer, key), jax.random.key(0))
    return _bytes(state) + _bytes(params)


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
