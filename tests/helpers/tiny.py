"""A model that compiles in seconds: the digits config with narrow networks."""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dbae_jax.configs import digits
from flax import traverse_util

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, from_config_dict
from dbae_jax.data import registry
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir

# Twice the work for XLA: for what depends on the levels of the networks or on attention.
TWO_LEVELS = {
    "model.encoder.channel_mult": (1, 1),
    "model.unet.channel_mult": (1, 1),
    "model.unet.attention_resolutions": (8,),
}

# Keys that distillation sets in the config of its model.
DISTILLED = {
    "train.objective": "consistency",
    "train.init_from": "teacher",
    "train.frozen": ("encoder", "decoder"),
    "sample.sampler": "sharp",
}

# Settings of a short distillation.
DISTILL = {
    "distill.num_steps": 4,
    "distill.batch_size": 8,  # the teacher's is 16
    "distill.learning_rate": 1e-3,
    "distill.ema_decay": 0.9,
    "distill.stages": 2,
    "checkpoint.every_steps": 2,
    "train.diagnose_every_steps": 4,
}


def config_dict():
    c = digits.get_config()
    c.model.latent_dim = 8
    c.model.encoder.channel_mult = (1,)
    c.model.decoder.base_channels = 4
    c.model.unet.channel_mult = (1,)
    c.model.unet.attention_resolutions = ()
    # Adam's first steps have the size of the learning rate even where a gradient is rounding
    # alone, as for biases in front of norms. RAdam's do not, so runs can be compared.
    c.optim.optimizer = "radam"
    c.optim.warmup_steps = 0
    c.optim.schedule = "constant"
    c.optim.ema_decay = 0.99
    c.train.batch_size = 16
    c.train.num_steps = 4
    c.train.log_every_steps = 1
    c.train.diagnose_every_steps = 0
    c.train.picture_every_steps = 0
    c.train.evaluate_every_steps = 0
    c.checkpoint.every_steps = 2
    c.prior.num_layers = 3
    c.prior.width = 16
    c.prior.timesteps = 20
    c.prior.beta = 0.2
    c.prior.batch_size = 8
    c.prior.num_steps = 4
    c.prior.log_every_steps = 1
    c.prior.evaluate_every_steps = 0
    c.prior.checkpoint_every_steps = 2
    c.prior.sample_steps = 5
    c.sample.steps = 3
    c.eval.batch_size = 8
    c.eval.num_images = 16
    c.eval.num_pictures = 2
    c.eval.information_points = 4
    return c


def config(**overrides) -> Config:
    """Returns the tiny config; overrides as `**{"model.latent_dim": 4}`."""
    c = config_dict()
    c.update_from_flattened_dict(overrides)
    return from_config_dict(c)


def images(count: int) -> np.ndarray:
    """Returns the first digits, uint8 [count, 16, 16, 1]."""
    return registry.make_source(config().data, "test").images[:count]


@functools.cache
def variables(c: Config, seed: int = 0) -> dict:
    """Returns drawn weights, with the zero-initialised layers filled as well.

    They are drawn by numpy: XLA takes seconds to compile the initializers of a config.
    """
    networks, rng = build.make_networks(c), np.random.default_rng(seed)
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    flat = traverse_util.flatten_dict(shapes, keep_empty_nodes=True)
    # The statistics of a model without an endpoint decoder are an empty dictionary.
    drawn = {
        path: _draw(path, leaf.shape, rng) if hasattr(leaf, "shape") else leaf
        for path, leaf in flat.items()
    }
    for path in [path for path in drawn if path[-1] == "u"]:
        kernel = drawn["params", *path[1:-1], "kernel"]
        u, _, v = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]).T, full_matrices=False)
        drawn[path], drawn[(*path[:-1], "v")] = u[:, 0], v[0]
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(drawn))


def _draw(path: tuple[str, ...], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns kernels as large as PyTorch's, scales and variances of 1, and small other values."""
    if path[-1] in ("scale", "var"):
        return np.ones(shape, np.float32)
    size = 0.1
    if path[-1] == "kernel" and path[-2] not in ("conv_out", "out"):
        size = 1 / math.sqrt(3 * math.prod(shape[:-1]))
    return size * rng.standard_normal(shape, np.float32)


def write_workdir(
    c: Config, directory: pathlib.Path, *, step: int = 1, seed: int = 0, **about: Any
) -> None:
    """Writes what a training run leaves after `step`, with drawn weights, without training.

    `about` is added to the item "meta" of the checkpoint.
    """
    state = state_from_variables(variables(c, seed), make_optimizer(c))
    with checkpoint.Writer(directory, keep_last=9, keep_every_steps=0) as writer:
        writer.save(state, step, workdir.meta(c, **about))
    workdir.write_config(directory, c)
