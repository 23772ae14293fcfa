"""--dry_run: describes a config without running it."""

import json
import math
from collections.abc import Callable, Iterable
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
from dbae_jax.workdirs.train_state import TrainState


def describe(config: Config) -> str:
    """Returns a summary, then the table of parameters and the resolved config, as text."""
    networks = build.make_networks(config)
    build.make_bridge(config.bridge)
    optimizer = make_optimizer(config)
    # Traced once: this takes seconds for the models of the paper.
    state = jax.eval_shape(lambda key: create_state(networks, optimizer, key), jax.random.key(0))
    table = parameter_overview.get_parameter_overview(
        state.variables["params"], include_stats=False
    )
    return "\n".join(
        [*_summary(config, networks, state), "", table, json.dumps(to_dict(config), indent=2)]
    )


def forward_flops(config: Config, networks: Networks, variables: dict) -> float:
    """Returns the FLOPs of one forward pass of all networks for one image.

    Args:
      config: checked config.
      networks: its networks.
      variables: their variables, or the shapes of them.
    """
    size, channels = config.data.image_size, config.data.channels
    shapes = ((1, size, size, channels), (1,))
    return _flops(networks.module.apply, variables, shapes)


def _training_flops(config: Config, networks: Networks, variables: dict, forward: float) -> float:
    """Returns about the FLOPs of one training step for one image.

    A backward pass takes twice a forward pass. A distillation trains the U-Net alone, and evaluates
    it once more for the target.

    Args:
      config: checked config.
      networks: its networks.
      variables: shapes of their variables.
      forward: see `forward_flops`.
    """
    if not is_distilled(config):
        return 3 * forward
    size, channels = config.data.image_size, config.data.channels
    shapes = ((1, size, size, 2 * channels), (1,), (1, config.model.latent_dim))  # x_t and x_T
    return forward + 3 * _flops(networks.network, variables, shapes)


def _flops(apply: Callable, variables: dict, shapes: Iterable[tuple[int, ...]]) -> float:
    return count_flops(apply, variables, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))


def _summary(config: Config, networks: Networks, state: TrainState) -> list[str]:
    """Returns the lines that matter most; the rest of --dry_run has the details."""
    data, kind = config.data, "stochastic" if config.model.stochastic else "deterministic"
    params = state.variables["params"]
    parts = {name: _count(tree) for name, tree in params.items()}
    flops = forward_flops(config, networks, state.variables)
    training_flops = _training_flops(config, networks, state.variables, flops)
    memory = _bytes(state) + _bytes(params)  # of the gradients
    return [
        f"Model: {kind} encoder, latent dimension {config.model.latent_dim}, {config.model.dtype}",
        f"Images: {data.name}, {data.image_size}x{data.image_size}x{data.channels}",
        f"Parameters: {sum(parts.values()) / 1e6:.1f}M ("
        + ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in parts.items())
        + ")",
        f"FLOPs per image: {flops / 1e9:.1f} G for one forward pass of all networks, about "
        f"{training_flops / 1e9:.1f} G per training step",
        f"Training: {config.train.num_steps:,} steps of {config.train.batch_size} images, "
        + _epochs(config),
        f"Memory: {memory / 2**30:.2f} GiB for weights, EMA "
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


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
