"""Describes a config without running it: its keys, parameters and FLOPs."""

import json

import jax
import jax.numpy as jnp
from clu import parameter_overview

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.models.autoencoder import Networks
from dbae_jax.performance.flops import count_flops


def describe(config: Config) -> str:
    """Returns the resolved config, the table of parameters and the FLOPs per image, as text."""
    networks = build.make_networks(config)
    build.make_bridge(config.bridge)
    params = jax.eval_shape(networks.init, jax.random.key(0))["params"]
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    parts = {name: _count(tree) for name, tree in params.items()}
    flops = forward_flops(config, networks)
    return "\n".join(
        [
            json.dumps(to_dict(config), indent=2),
            table,
            f"Parameters: {sum(parts.values()) / 1e6:.1f}M ("
            + ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in parts.items())
            + ")",
            f"FLOPs per image: {flops / 1e9:.1f} G for one forward pass of all networks, about "
            f"{3 * flops / 1e9:.1f} G per training step",
        ]
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


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
