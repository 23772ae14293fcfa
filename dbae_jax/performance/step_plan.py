"""Figures of a training step that is compiled for devices that this machine does not have."""

import dataclasses
import logging
import re
from typing import Any

import jax
import jaxlib

from dbae_jax.configuration.config import Config
from dbae_jax.errors import ConfigError
from dbae_jax.performance import flops, hlo, kernels, memory_traffic, topology
from dbae_jax.performance.chips import Chip
from dbae_jax.performance.kernels import KernelKind, SlowKernel
from dbae_jax.runtime import sharding
from dbae_jax.runtime.platforms import is_tpu
from dbae_jax.training import jitted_step

log = logging.getLogger(__name__)

# At the least effort, XLA's backend for TPUs finds the same fusions ten times faster. It makes no
# use of on-chip memory then, so that every array counts as read from and written to device memory.
# Newer versions of jax name the option by level; level 9 is "O0".
OLDER = jax.__version_info__ < (0, 11)
QUICK = {"exec_time_optimization_effort": -1.0} if OLDER else {"optimization_level": 9}
# XLA's backend for GPUs chooses kernels without timing them, which needs a GPU. Without timing,
# only cuBLAS is left for matrix products.
UNTIMED = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """Figures of one compiled training step; bytes and FLOPs are per device and step."""

    topology: str
    chip: Chip
    num_chips: int
    batch_size: int  # over all devices
    num_steps: int
    accumulation_steps: int
    dtype: str
    matmul_precision: str
    argument_arrays_bytes: int  # state, key and the device's images, without padding
    argument_bytes: int  # the same arrays, padded as they lie in device memory
    output_bytes: int  # most of them overwrite the donated state
    donated_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float  # see `make_plan`
    # XLA's count: includes on-chip memory, counts each loop body once; None for most GPUs
    bytes_accessed: float | None
    memory_traffic_bytes: int  # device memory (HBM) alone, see `memory_traffic`
    collectives: tuple[hlo.Collective, ...]
    kernels: tuple[KernelKind, ...]  # of a GPU; the kernels of TPUs are not counted
    slow_kernels: tuple[SlowKernel, ...]
    compiler: str

    @property
    def fits(self) -> bool:
        """Whether the peak is within the device memory."""
        return self.peak_bytes <= self.chip.memory_bytes

    @property
    def compute_seconds(self) -> float:
        """Seconds per step of the arithmetic at its peak rate."""
        return self.flops / self.chip.peak_flops(self.dtype, self.matmul_precision)

    @property
    def memory_seconds(self) -> float:
        """Seconds per step of the device memory's traffic at full bandwidth."""
        return self.memory_traffic_bytes / self.chip.memory_bandwidth

    @property
    def collective_seconds(self) -> float:
        """Seconds per step of the collectives at full bandwidth.

        Around a ring, an all-reduce sends its bytes twice. The bytes are those of a result; the
        result of a reduce-scatter is one device's part.
        """
        ring = (self.num_chips - 1) / self.num_chips
        passes = {
            "all-reduce": 2 * ring,
            "reduce-scatter": self.num_chips - 1,
            "collective-permute": 1.0,
        }
        sent = sum(passes.get(c.kind, ring) * c.num_bytes for c in self.collectives)
        return sent / self.chip.interconnect

    @property
    def kernel_seconds(self) -> float:
        """Seconds per step of the kernels of a GPU, if each takes its least time."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def step_seconds(self) -> float:
        """The least time of a step, with collectives that do not overlap with other work.

        On GPUs, the kernels run one after another. On TPUs this is the roofline: the slower of
        arithmetic and memory.
        """
        work = self.kernel_seconds or max(self.compute_seconds, self.memory_seconds)
        return work + self.collective_seconds

    @property
    def images_per_second(self) -> float:
        """Images per second of all devices, if every step takes its least time."""
        return self.batch_size / self.step_seconds

    @property
    def hours(self) -> float:
        """Hours of the config's number of steps, if every step takes its least time."""
        return self.step_seconds * self.num_steps / 3600


def make_plan(config: Config, topology_name: str, *, quick: bool = True) -> StepPlan:
    """Compiles the training step for a topology and returns its figures.

    FLOPs on TPUs are XLA's count. XLA counts the body of a loop (over microbatches or attention
    heads) once, so the matrix products of the other iterations are added. On GPUs, XLA calls
    libraries whose FLOPs it does not know, so FLOPs are counted from the shapes of the kernels.

    Memory traffic and kernels are counted from the compiled program and include all iterations of
    a loop.

    Args:
      config: checked config.
      topology_name: devices, see `topology.devices`.
      quick: whether XLA compiles with its least effort.

    Raises:
      ConfigError: see `dbae_jax.commands.plan.plan`.
    """
    devices, chip = topology.devices(topology_name)
    log.info("Compiling the training step for %s. This takes minutes.", topology_name)
    traced, compiled = _compile(config, topology_name, devices, quick)
    program, cost = hlo.computations(compiled.as_text() or ""), compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    on_tpu = is_tpu(devices[0])
    found = [] if on_tpu else kernels.find(program)
    of_xla = cost["flops"] + flops.repeated(traced.jaxpr.jaxpr) / len(devices) if on_tpu else 0
    return StepPlan(
        topology=topology_name,
        chip=chip,
        num_chips=len(devices),
        batch_size=config.train.batch_size,
        num_steps=config.train.num_steps,
        accumulation_steps=config.train.accumulation_steps,
        dtype=config.model.dtype,
        matmul_precision=config.model.precision,
        argument_arrays_bytes=hlo.parameter_bytes(program),
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        donated_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        flops=of_xla or sum(kernel.runs * kernel.flops for kernel in found),
        bytes_accessed=cost.get("bytes accessed"),
        memory_traffic_bytes=memory_traffic.memory_bytes(program),
        collectives=tuple(hlo.collectives(program)),
        kernels=tuple(kernels.by_kind(found, chip, config.model.precision)),
        slow_kernels=tuple(kernels.slow(found)),
        compiler=f"jaxlib {jaxlib.__version__}, {'least' if quick else 'full'} effort",
    )


def _compile(
    config: Config, topology_name: str, devices: list[jax.Device], quick: bool
) -> tuple[jax.stages.Traced, jax.stages.Compiled]:
    """Returns the training step for the devices, traced and compiled; see `make_plan`."""
    options = _compiler_options(topology_name, devices[0], quick)
    mesh = sharding.make_mesh(devices)
    step = jitted_step.make_jitted_step(config, mesh)
    try:
        traced = step.trace(*jitted_step.abstract_arguments(config, mesh))
        return traced, traced.lower().compile(compiler_options=options)
    except RuntimeError as error:  # of the compiler, or of jax if cuDNN is missing
        raise ConfigError(_why_not_compiled(str(error), topology_name)) from error


def _compiler_options(topology_name: str, device: jax.Device, quick: bool) -> dict | None:
    """Returns the options of XLA for an effort."""
    if is_tpu(device):
        return QUICK if quick else None
    if not quick and not topology.exist(topology_name):
        raise ConfigError(
            f"--effort=full with --topology={topology_name} needs the GPUs: XLA chooses kernels by "
            "timing them. Leave out --effort, or use --topology=gpu:N on a machine with the GPUs."
        )
    return UNTIMED if quick else None


def _why_not_compiled(message: str, topology_name: str) -> str:
    if re.search("cuDNN (is )?not (found|detected)", message):
        return (
            f"The attention of --topology={topology_name} is cuDNN's, and jax {jax.__version__} "
            "asks the cuDNN library for its version, which needs no GPU; install the library "
            "with pip install nvidia-cudnn-cu13, or use --config.model.attention=xla."
        )
    used = re.search(r"Used (\S+) of (\S+) hbm", message)
    if not used:
        return f"The step does not compile for {topology_name}: {' '.join(message.split())[:300]}"
    return (
        f"The step does not fit on {topology_name}: it needs {used[1]} of the {used[2]} of a "
        "device; use more devices, config.model.dtype=bfloat16, config.train.accumulation_steps "
        "or config.model.remat=blocks."
    )
