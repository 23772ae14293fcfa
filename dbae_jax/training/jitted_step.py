"""The training of a model as it runs on a mesh: networks, optimizer and the jitted step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import platforms, sharding
from dbae_jax.training import consistency, determinism
from dbae_jax.training.optimizer import make_learning_rate, make_optimizer
from dbae_jax.training.state import create_state
from dbae_jax.training.step import Batch, DiagnoseFn, make_diagnose, make_train_step
from dbae_jax.workdirs.train_state import TrainState


class Training(NamedTuple):
    """Everything about a training that does not depend on its seed, data or workdir.

    Jitted functions compile at their first call. Trainings with several seeds share one object, so
    that each function compiles once.
    """

    networks: Networks
    bridge: Bridge
    init: Callable[[jax.Array], TrainState]  # key -> new state; not jitted
    train_step: jax.stages.Wrapped  # `StepFn`, jitted for the mesh; donates its state
    diagnose: DiagnoseFn  # jitted for the mesh
    learning_rate: optax.Schedule
    mesh: jax.sharding.Mesh


class AbstractArguments(NamedTuple):
    """Shapes, dtypes and shardings of the arguments of the training step; holds no arrays."""

    state: TrainState
    batch: Batch
    key: jax.ShapeDtypeStruct


def make_training(config: Config, mesh: jax.sharding.Mesh) -> Training:
    """Builds the networks, the optimizer and the jitted functions of a training.

    Args:
      config: checked config. `config.seed` is not used.
      mesh: devices that share every batch.

    Raises:
      ConfigError: if the devices cannot share the batch, or lack the attention of the config.
    """
    platform = platforms.platform_of(mesh.devices.flat[0])
    build.check_attention(config, platform)
    parts = config.train.accumulation_steps
    section = "distill" if is_distilled(config) else "train"
    key = f"{section}.batch_size" + (f" / accumulation_steps ({parts})" if parts > 1 else "")
    sharding.check_batch_size(config.train.batch_size // parts, mesh, key)
    networks, bridge = build.make_networks(config, platform), build.make_bridge(config.bridge)
    optimizer = make_optimizer(config)
    gaps = consistency.Gaps.of(config.distill) if is_distilled(config) else None
    step = make_train_step(
        networks,
        bridge,
        optimizer,
        ema_decay=config.optim.ema_decay,
        accumulation_steps=parts,
        tc_weight=config.train.tc_weight,
        share_at_T=config.train.share_at_T,
        frozen_parts=config.train.frozen,
        gaps=gaps,
    )
    diagnose = make_diagnose(networks, bridge, gaps)

    def initial_state(key: jax.Array) -> TrainState:
        # Networks for any platform, because the weights are drawn on a CPU.
        return create_state(build.make_networks(config), optimizer, key)

    return Training(
        networks=networks,
        bridge=bridge,
        init=initial_state,
        train_step=jit_step(step, mesh, determinism.compiler_options(config, mesh)),
        diagnose=jax.jit(diagnose, out_shardings=sharding.replicated(mesh)),
        learning_rate=make_learning_rate(config),
        mesh=mesh,
    )


def make_jitted_step(config: Config, mesh: jax.sharding.Mesh) -> jax.stages.Wrapped:
    """Returns the jitted training step alone; see `make_training`."""
    return make_training(config, mesh).train_step


def jit_step(
    step: Callable, mesh: jax.sharding.Mesh, compiler_options: dict[str, bool] | None
) -> jax.stages.Wrapped:
    """Returns a step jitted for the mesh: state replicated and donated, batch split."""
    everywhere = sharding.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, sharding.batched(mesh), everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
        # JAX pairs donated arrays with results by shape, in order. Left-out arguments would shift
        # the pairs, so that hundreds of arrays were copied before they could be overwritten.
        keep_unused=True,
        compiler_options=compiler_options,
    )


def abstract_arguments(config: Config, mesh: jax.sharding.Mesh) -> AbstractArguments:
    """Returns the arguments to lower the training step with on devices that do not exist."""
    everywhere = sharding.replicated(mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(make_training(config, mesh).init, key)
    size, channels = config.data.image_size, config.data.channels
    images = jax.ShapeDtypeStruct((config.train.batch_size, size, size, channels), jnp.uint8)

    return AbstractArguments(
        sharding.placed(state, everywhere),
        {"image": sharding.placed(images, sharding.batched(mesh))},
        sharding.placed(key, everywhere),
    )
