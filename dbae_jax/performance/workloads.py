"""The compiled functions that a benchmark times, each with random weights and one random batch.

The functions are the ones that users run: encode, endpoint, denoise and decode of `api.programs`,
and the training step.
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from dbae_jax.api.programs import common_table, jit_functions
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.performance.flops import count_flops
from dbae_jax.performance.timing import Run
from dbae_jax.runtime import initial_weights, platforms, sharding
from dbae_jax.training import jitted_step

TRAIN_STEP = "train_step"

# Functions of `api.programs` -> their arguments after the networks and the variables.
FUNCTIONS = {
    "encode": ("images", "key", "indices"),
    "endpoint": ("z",),
    "denoise": ("x_t", "at", "x_T", "z"),
    "decode": ("x_T", "z", "keys", "table", "num_rows"),
}
STATIC = {"encode": {"sample": False}, "decode": {"keep_path": False}}
WHOLE = ("key", "keys", "table", "num_rows")  # arguments that have no batch axis
# No backend resets its peak of device memory, so the largest program comes last.
NAMES = (*FUNCTIONS, TRAIN_STEP)


class Program(NamedTuple):
    """A compiled program with its inputs."""

    run: Run
    batch_size: int
    flops: float  # per call, over all devices; see `count`
    trace_seconds: float
    compile_seconds: float
    memory: dict[str, int] | None  # bytes per device, as compiled; None if the backend hides them


def names(config: Config) -> tuple[str, ...]:
    """Returns the programs of a config's model: there is no "endpoint" if x_T is Gaussian."""
    gaussian = config.bridge.endpoint == "free"
    return tuple(name for name in NAMES if not (gaussian and name == "endpoint"))


def check_batch_size(name: str, config: Config) -> None:
    """Checks that the devices can share a program's batch evenly.

    Raises:
      ConfigError: if they cannot.
    """
    section = "train" if name == TRAIN_STEP else "eval"
    size = getattr(config, section).batch_size
    sharding.check_batch_size(size, sharding.make_mesh(), f"{section}.batch_size")


def make(name: str, config: Config) -> Program:
    """Compiles a program for all devices.

    Args:
      name: one of `NAMES`.
      config: config of the model. The training step takes config.train.batch_size images, the
        other programs config.eval.batch_size, and "decode" runs the sampler config.sample.

    Raises:
      ConfigError: if the devices cannot share the batch evenly, or lack the config's attention.
    """
    build.check_attention(config, platforms.platform_of(jax.devices()[0]))
    return _train_step(config) if name == TRAIN_STEP else _function(name, config)


def count(name: str, config: Config) -> float:
    """Returns the FLOPs of one call over all devices, see `count_flops`; compiles nothing.

    The training step includes its backward pass. The matrix products of the spectral norms are
    included; they grow with the decoder's weights and not with the batch.
    """
    config = plain(config)
    if name == TRAIN_STEP:
        mesh = sharding.make_mesh(jax.devices()[:1])
        step = jitted_step.make_jitted_step(config, mesh)
        return count_flops(step, *jitted_step.abstract_arguments(config, mesh))
    networks, arguments = build.make_networks(config), _arguments(name, config)
    if name == "decode":  # rows can be counted in a table without padding
        table = config.sample.table(build.make_bridge(config.bridge))
        arguments |= {"table": table, "num_rows": None}
    function = functools.partial(getattr(jit_functions(None), name), **STATIC.get(name, {}))
    return count_flops(
        lambda variables, arguments: function(networks, variables, **arguments),
        jax.eval_shape(networks.init, jax.random.key(0)),
        arguments,
    )


def plain(config: Config) -> Config:
    """Returns the config whose traced program has the model's own arithmetic.

    FLOPs are counted on this config: recomputed blocks count once, fused kernels count as the
    matrix products that they replace, and upsampling convolutions count as in float32.
    """
    model = dataclasses.replace(config.model, attention="xla", remat="none", dtype="float32")
    steps = dataclasses.replace(config.train, accumulation_steps=1)
    return dataclasses.replace(config, model=model, train=steps)


def _train_step(config: Config) -> Program:
    """Compiles the step as training runs it: same program, same placement, donated state."""
    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    key = sharding.replicate(jax.random.key(config.seed), everywhere)
    training = jitted_step.make_training(config, mesh)
    state = initial_weights.draw(training.init, config.seed, mesh)
    batch = {"image": sharding.spread(mesh, _images(config, config.train.batch_size))}
    compiled, cost = _compile(training.train_step.lower, state, batch, key)

    def run(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))

    return Program(run, config.train.batch_size, count(TRAIN_STEP, config), **cost)


def _function(name: str, config: Config) -> Program:
    """Compiles a function of the model for a batch that is split over all devices."""
    mesh = sharding.make_mesh()
    networks = build.make_networks(config, platforms.platform_of(jax.devices()[0]))
    variables = initial_weights.draw(build.make_networks(config).init, config.seed, mesh)
    split = functools.partial(sharding.spread, mesh)
    arguments = {
        key: value if key in WHOLE else jax.tree.map(split, value)
        for key, value in _arguments(name, config).items()
    }
    lower = functools.partial(getattr(jit_functions(mesh), name).lower, networks)
    compiled, cost = _compile(lower, variables, **arguments, **STATIC.get(name, {}))

    def run(calls: int) -> None:
        jax.block_until_ready([compiled(variables, **arguments) for _ in range(calls)])

    return Program(run, config.eval.batch_size, count(name, config), **cost)


def _arguments(name: str, config: Config) -> dict[str, Any]:
    """Returns the arguments of a function for one random batch, without networks and variables."""
    size, bridge = config.eval.batch_size, build.make_bridge(config.bridge)
    draw = np.random.default_rng(1)
    images = _images(config, size)
    noise = draw.standard_normal(images.shape, np.float32)
    table = config.sample.table(bridge)
    half_time = np.full(size, bridge.schedule.t_max / 2)
    values = {
        "images": images,
        "x_t": noise,
        "x_T": noise,
        "z": draw.standard_normal((size, config.model.latent_dim), np.float32),
        "at": jax.tree.map(np.float32, bridge.at(half_time)),
        "key": jax.random.key(config.seed),
        "indices": np.arange(size),
        "keys": jax.random.split(jax.random.key(config.seed), size),
        "table": common_table(table, keep_path=False),
        "num_rows": table.nfe,
    }
    return {argument: values[argument] for argument in FUNCTIONS[name]}


def _images(config: Config, count: int) -> np.ndarray:
    """Returns random uint8 images, [count, H, W, C]."""
    size, channels = config.data.image_size, config.data.channels
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)


def _compile(lower: Any, *args: Any, **kwargs: Any) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Returns the compiled program and what it cost: the last three fields of `Program`."""
    started = time.perf_counter()
    lowered = lower(*args, **kwargs)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    cost = {"trace_seconds": traced - started, "compile_seconds": done - traced}
    return compiled, cost | {"memory": _memory(compiled)}


def _memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    kinds = ("argument", "output", "alias", "temp")
    return {kind: getattr(analysis, f"{kind}_size_in_bytes") for kind in kinds}
