"""The programs that a benchmark times, compiled: each with random weights and random images."""

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax import build, rngs, samplers, sharding, train
from dbae_jax.config import Config
from dbae_jax.flops import count_flops
from dbae_jax.images import to_float
from dbae_jax.precond import make_denoiser
from dbae_jax.timing import Run


class Program(NamedTuple):
    """A compiled program with its inputs."""

    run: Run
    batch_size: int
    flops: float  # of one call: its convolutions and matrix products, on all devices
    trace_seconds: float
    compile_seconds: float
    memory: dict[str, int] | None  # bytes a device, as compiled; None: not told by the backend


class _Compiled(NamedTuple):
    call: Callable
    flops: float
    trace_seconds: float
    compile_seconds: float
    memory: dict[str, int] | None


def train_step(config: Config) -> Program:
    """Returns the step that training runs: same program, same placing, state donated.

    Raises:
      ConfigError: if the devices cannot share config.train.batch_size evenly.
    """
    with tempfile.TemporaryDirectory() as empty:
        run = train.set_up(config, pathlib.Path(empty))
    images = _images(config, config.train.batch_size)
    batch = sharding.to_global(run.mesh, {"image": images})
    compiled = _compile(run.train_step, run.state, batch, run.key)
    state = run.state

    def walk(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state, metrics = compiled.call(state, batch, run.key)
        jax.block_until_ready((state, metrics))

    return Program(walk, config.train.batch_size, *compiled[1:])


def encode(config: Config) -> Program:
    """Returns images -> z."""
    networks = build.make_networks(config)

    def call(variables, images, _):
        return networks.encode(variables, to_float(images)).mean

    return _program(config, call)


def endpoint(config: Config) -> Program:
    """Returns z -> x_T, as evaluation has it: with running statistics."""
    networks = build.make_networks(config)

    def call(variables, _, z):
        return networks.endpoint(variables, z)

    return _program(config, call)


def denoise(config: Config) -> Program:
    """Returns one evaluation of the denoiser, at the middle of time."""
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    at = jax.tree.map(np.float32, bridge.at(np.float64(bridge.schedule.t_max / 2)))

    def call(variables, images, z):
        x = to_float(images)
        return make_denoiser(lambda *args: networks.network(variables, *args))(x, at, x, z)

    return _program(config, call)


def reconstruct(config: Config) -> Program:
    """Returns images -> z -> x_T -> images, by the sampler of config.sample."""
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    table = samplers.Plan(**vars(config.sample)).table(bridge)

    def call(variables, images, _):
        z = networks.encode(variables, to_float(images)).mean
        x_T = networks.endpoint(variables, z)
        denoiser = make_denoiser(lambda *args: networks.network(variables, *args))
        keys = rngs.per_example(jax.random.key(0), jnp.arange(len(z)))
        return samplers.integrate(
            lambda x_t, at, x_T: denoiser(x_t, at, x_T, z),
            x_T,
            table,
            samplers.example_noise_fn(keys, x_T.shape[1:]),
        )[0]

    return _program(config, call)


# In this order the peak of memory, which no backend resets, belongs to the last that ran.
PROGRAMS: dict[str, Callable[[Config], Program]] = {
    "encode": encode,
    "endpoint": endpoint,
    "denoise": denoise,
    "reconstruct": reconstruct,
    "train_step": train_step,
}


def _program(config: Config, function: Callable) -> Program:
    """Compiles function(variables, images, z) for config.eval.batch_size on all devices."""
    mesh, size = sharding.make_mesh(), config.eval.batch_size
    sharding.check_batch_size(size, mesh, "eval.batch_size")
    everywhere, split = sharding.replicated(mesh), sharding.batched(mesh)
    key = jax.device_put(jax.random.key(config.seed), everywhere)
    variables = jax.jit(build.make_networks(config).init, out_shardings=everywhere)(key)
    z = np.random.default_rng(1).normal(size=(_local(size), config.model.latent_dim))
    inputs = {"image": _images(config, size), "z": z.astype(np.float32)}
    inputs = sharding.to_global(mesh, inputs)
    jitted = jax.jit(function, in_shardings=(everywhere, split, split), out_shardings=split)
    arguments = variables, inputs["image"], inputs["z"]
    compiled = _compile(jitted, *arguments)

    def run(calls: int) -> None:
        answers = [compiled.call(*arguments) for _ in range(calls)]
        jax.block_until_ready(answers)

    return Program(run, size, *compiled[1:])


def _images(config: Config, batch_size: int) -> np.ndarray:
    """Returns this process's part of a batch of random uint8 images."""
    size, channels = config.data.image_size, config.data.channels
    shape = (_local(batch_size), size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _local(batch_size: int) -> int:
    return batch_size // jax.process_count()


def _compile(jitted: Any, *arguments: Any) -> _Compiled:
    started = time.perf_counter()
    lowered = jitted.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    flops = count_flops(jitted, *arguments)
    return _Compiled(compiled, flops, traced - started, done - traced, _memory(compiled))


def _memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    kinds = ("argument", "output", "alias", "temp")
    return {kind: getattr(analysis, f"{kind}_size_in_bytes") for kind in kinds}
