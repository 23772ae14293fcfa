"""The training step as it runs on a mesh: one jitted function, and the shapes it takes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.runtime import sharding
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state
from dbae_jax.training.step import Batch, StepFn, make_train_step
from dbae_jax.workdirs.train_state import TrainState

KEPT = 4  # functions, with the programs compiled for them


class AbstractArguments(NamedTuple):
    """Shapes, dtypes and shardings of the step's arguments; no arrays."""

    state: TrainState
    batch: Batch
    key: jax.ShapeDtypeStruct


def make_jitted_step(config: Config, mesh: jax.sharding.Mesh) -> StepFn:
    """Returns train_step jitted for the mesh: state replicated and donated, batch split.

    Configs whose steps are the same, such as those of other seeds, get the same function, which is
    compiled once.

    Raises:
      ConfigError: if the devices cannot share the batch, or lack the config's attention.
    """
    build.check_attention(config, mesh.devices.flat[0].platform)
    parts = config.train.accumulation_steps
    key = "train.batch_size" + (f" / accumulation_steps ({parts})" if parts > 1 else "")
    sharding.check_batch_size(config.train.batch_size // parts, mesh, key)
    return _jitted_step(
        mesh,
        build.make_networks(config),
        build.make_bridge(config.bridge),
        make_optimizer(config),
        ema_decay=config.optim.ema_decay,
        accumulation_steps=config.train.accumulation_steps,
        tc_weight=config.train.tc_weight,
    )


@functools.lru_cache(maxsize=KEPT)
def _jitted_step(mesh: jax.sharding.Mesh, *args, **kwargs) -> StepFn:
    return jitted(make_train_step(*args, **kwargs), mesh)


def make_init(config: Config) -> Callable[[jax.Array], TrainState]:
    """Returns key -> a new state; for configs whose steps are the same, the same function."""
    return _init(build.make_networks(config), make_optimizer(config))


@functools.lru_cache(maxsize=KEPT)
def _init(*args) -> Callable[[jax.Array], TrainState]:
    return lambda key: create_state(*args, key)


def jitted(step: StepFn, mesh: jax.sharding.Mesh) -> StepFn:
    """Returns a step jitted for the mesh: state replicated and donated, batch split."""
    everywhere = sharding.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, sharding.batched(mesh), everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )


def abstract_arguments(config: Config, mesh: jax.sharding.Mesh) -> AbstractArguments:
    """Returns what the jitted step is lowered with where there are no devices."""
    everywhere = sharding.replicated(mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(make_init(config), key)
    size, channels = config.data.image_size, config.data.channels
    images = jax.ShapeDtypeStruct((config.train.batch_size, size, size, channels), jnp.uint8)

    def placed(tree, at):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), tree)

    return AbstractArguments(
        placed(state, everywhere),
        {"image": placed(images, sharding.batched(mesh))},
        placed(key, everywhere),
    )


def run_once() -> dict | None:
    """Options for programs that run once: on a CPU, optimising them takes longer than they do."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
