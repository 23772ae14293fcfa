"""The programs that a benchmark times, compiled: each with random weights and random images."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.bridge.preconditioning import make_denoiser
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import to_float
from dbae_jax.models.autoencoder import Networks
from dbae_jax.performance.flops import count_flops
from dbae_jax.performance.timing import Run
from dbae_jax.runtime import rngs, sharding
from dbae_jax.sampling import integrate
from dbae_jax.training import jitted_step
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state
from dbae_jax.training.step import make_train_step

TRAIN_STEP = "train_step"

# (variables, images [B, H, W, C] uint8, z [B, D]) -> [B, ...]
Function = Callable[[dict, jax.Array, jax.Array], jax.Array]


class Program(NamedTuple):
    """A compiled program with its inputs."""

    run: Run
    batch_size: int
    flops: float  # of one call, on all devices; see `count`
    trace_seconds: float
    compile_seconds: float
    memory: dict[str, int] | None  # bytes a device, as compiled; None: not told by the backend


def plain(config: Config) -> Config:
    """Returns the config of the same arithmetic without tricks: what FLOPs are counted on.

    Recomputed blocks count once, fused kernels as the products that they stand for, and a
    convolution of an upsampled map as it is in float32.
    """
    model = dataclasses.replace(config.model, attention="xla", remat="none", dtype="float32")
    steps = dataclasses.replace(config.train, accumulation_steps=1)
    return dataclasses.replace(config, model=model, train=steps)


def make(name: str, config: Config) -> Program:
    """Compiles a program for all devices.

    Args:
      name: of `NAMES`.
      config: of the model; config.train.batch_size for the training step, config.eval.batch_size
        for the others.

    Raises:
      ConfigError: if the devices cannot share the batch evenly, or lack the config's attention.
    """
    build.check_attention(config, jax.default_backend())
    return _train_step(config) if name == TRAIN_STEP else _function(name, config)


def check_batch_size(name: str, config: Config) -> None:
    """Refuses a batch of a program that the devices cannot share evenly, with a `ConfigError`."""
    section = "train" if name == TRAIN_STEP else "eval"
    size = getattr(config, section).batch_size
    sharding.check_batch_size(size, sharding.make_mesh(), f"{section}.batch_size")


def count(name: str, config: Config) -> float:
    """Returns the operations of the products in one call, see `flops`; nothing is compiled.

    Of the training step, its backward pass is traced. The products of the spectral norms, which
    grow with the decoder's weights and not with the batch, are among them.
    """
    config = plain(config)
    networks, key = build.make_networks(config), jax.random.key(0)
    data = config.data
    batch_size = config.train.batch_size if name == TRAIN_STEP else config.eval.batch_size
    shape = (batch_size, data.image_size, data.image_size, data.channels)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    if name != TRAIN_STEP:
        z = jax.ShapeDtypeStruct((batch_size, config.model.latent_dim), jnp.float32)
        variables = jax.eval_shape(networks.init, key)
        return count_flops(FUNCTIONS[name](config, networks), variables, images, z)
    bridge, optimizer = build.make_bridge(config.bridge), make_optimizer(config)
    step = make_train_step(networks, bridge, optimizer, ema_decay=config.optim.ema_decay)
    state = jax.eval_shape(lambda key: create_state(networks, optimizer, key), key)
    return count_flops(step, state, {"image": images}, key)


def _train_step(config: Config) -> Program:
    """Returns the step that training runs: same program, same placing, state donated."""
    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    key = sharding.replicate(jax.random.key(config.seed), everywhere)
    options = jitted_step.run_once()
    training = jitted_step.make_training(config, mesh)
    state = jax.jit(training.init, out_shardings=everywhere, compiler_options=options)(key)
    batch = {"image": sharding.spread(mesh, _images(config, config.train.batch_size))}
    compiled, *cost = _compile(training.train_step, state, batch, key)

    def walk(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))

    return Program(walk, config.train.batch_size, count(TRAIN_STEP, config), *cost)


def _encode(config: Config, networks: Networks) -> Function:
    """Images -> z."""
    del config
    return lambda variables, images, z: networks.encode(variables, to_float(images)).mean


def _endpoint(config: Config, networks: Networks) -> Function:
    """Codes z -> x_T, with running statistics."""
    del config
    return lambda variables, images, z: networks.endpoint(variables, z)


def _denoise(config: Config, networks: Networks) -> Function:
    """One evaluation of the denoiser, at the middle of time."""
    bridge = build.make_bridge(config.bridge)
    at = jax.tree.map(np.float32, bridge.at(np.float64(bridge.schedule.t_max / 2)))

    def function(variables: dict, images: jax.Array, z: jax.Array) -> jax.Array:
        x = to_float(images)
        return make_denoiser(lambda *args: networks.network(variables, *args))(x, at, x, z)

    return function


def _reconstruct(config: Config, networks: Networks) -> Function:
    """Images -> z -> x_T -> images, by the sampler of config.sample."""
    table = config.sample.table(build.make_bridge(config.bridge))

    def function(variables: dict, images: jax.Array, z: jax.Array) -> jax.Array:
        z = networks.encode(variables, to_float(images)).mean
        x_T = networks.endpoint(variables, z)
        denoise_fn = make_denoiser(lambda *args: networks.network(variables, *args))
        keys = rngs.per_example(jax.random.key(0), jnp.arange(len(z)))
        return integrate.integrate(
            lambda x_t, at, x_T: denoise_fn(x_t, at, x_T, z),
            x_T,
            table,
            integrate.example_noise_fn(keys, x_T.shape[1:]),
        )[0]

    return function


FUNCTIONS: dict[str, Callable[[Config, Networks], Function]] = {
    "encode": _encode,
    "endpoint": _endpoint,
    "denoise": _denoise,
    "reconstruct": _reconstruct,
}
# In this order the peak of memory, which no backend resets, belongs to the last that ran.
NAMES = (*FUNCTIONS, TRAIN_STEP)


def names(config: Config) -> tuple[str, ...]:
    """Returns the programs that a config's model has: no endpoint where x_T is free."""
    free = config.bridge.endpoint == "free"
    return tuple(name for name in NAMES if not (free and name == "endpoint"))


def _function(name: str, config: Config) -> Program:
    mesh, size = sharding.make_mesh(), config.eval.batch_size
    everywhere, split = sharding.replicated(mesh), sharding.batched(mesh)
    networks = build.make_networks(config)
    key = jax.device_put(jax.random.key(config.seed), everywhere)
    # On a CPU, optimising a program that runs once takes longer than it does.
    options = jitted_step.run_once()
    draw = jax.jit(networks.init, out_shardings=everywhere, compiler_options=options)
    variables = draw(key)
    z = np.random.default_rng(1).normal(size=(size, config.model.latent_dim)).astype(np.float32)
    inputs = (sharding.spread(mesh, array) for array in (_images(config, size), z))
    arguments = (variables, *inputs)
    compiled, *cost = _compile(
        jax.jit(
            FUNCTIONS[name](config, networks),
            in_shardings=(everywhere, split, split),
            out_shardings=split,
        ),
        *arguments,
    )

    def run(calls: int) -> None:
        jax.block_until_ready([compiled(*arguments) for _ in range(calls)])

    return Program(run, size, count(name, config), *cost)


def _images(config: Config, count: int) -> np.ndarray:
    """Returns random uint8 images, [count, H, W, C]."""
    size, channels = config.data.image_size, config.data.channels
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)


def _compile(
    jitted: Any, *arguments: Any
) -> tuple[jax.stages.Compiled, float, float, dict[str, int] | None]:
    """Returns the compiled program, the seconds of tracing and of compiling, and its memory."""
    started = time.perf_counter()
    lowered = jitted.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    return compiled, traced - started, done - traced, _memory(compiled)


def _memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    kinds = ("argument", "output", "alias", "temp")
    return {kind: getattr(analysis, f"{kind}_size_in_bytes") for kind in kinds}
