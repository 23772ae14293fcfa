"""Predicts memory and time of a training step on devices that this machine does not have."""

import dataclasses
import logging
import pathlib
import re

import jax
import jaxlib

from dbae_jax.configuration.config import Config
from dbae_jax.errors import ConfigError
from dbae_jax.performance import flops, hlo, memory_traffic, topology, workloads
from dbae_jax.performance.chips import Chip
from dbae_jax.runtime import files, sharding
from dbae_jax.training import jitted_step

log = logging.getLogger(__name__)

# At the least effort, XLA's backend finds the same fusions ten times faster. It makes no use of
# on-chip memory then, so that every array counts as read from and written to device memory.
# Newer versions of jax name the option by level; level 9 is "O0".
OLDER = jax.__version_info__ < (0, 11)
QUICK = {"exec_time_optimization_effort": -1.0} if OLDER else {"optimization_level": 9}


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
    bytes_accessed: float  # XLA's count: includes on-chip memory, counts each loop body once
    memory_traffic_bytes: int  # device memory (HBM) alone, see `memory_traffic`
    collectives: tuple[hlo.Collective, ...]
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
    def step_seconds(self) -> float:
        """The roofline: the slower of arithmetic and memory, plus the collectives."""
        return max(self.compute_seconds, self.memory_seconds) + self.collective_seconds

    @property
    def hours(self) -> float:
        """Hours of the config's number of steps at the roofline."""
        return self.step_seconds * self.num_steps / 3600


def plan(
    config: Config, json_path: pathlib.Path | None, *, topology: str, effort: str = "least"
) -> str:
    """Compiles the training step for a topology and returns its figures as a table.

    Args:
      config: checked config; its data set need not exist.
      json_path: file that gets the same figures, or None.
      topology: devices, see `topology.devices`.
      effort: effort of XLA, "least" (minutes) or "full" (tens of minutes).

    Raises:
      ConfigError: for an unknown topology, a compiler that is not installed, a batch that the
        devices cannot share, or a step that is far too large for the device memory.
    """
    step_plan = make_plan(config, topology, quick=effort == "least")
    if json_path is not None:
        files.write_json(json_path, as_json(step_plan))
    return as_table(step_plan)


def make_plan(config: Config, topology_name: str, *, quick: bool = True) -> StepPlan:
    """Compiles the training step for a topology and returns its figures; see `plan`.

    FLOPs on TPUs are XLA's count. XLA counts the body of a loop (over microbatches or attention
    heads) once, so the matrix products of the other iterations are added. On GPUs, XLA calls
    libraries whose FLOPs it does not know, so the model's own FLOPs count, as in the benchmark.

    Memory traffic is counted from the compiled program and includes all iterations of a loop. On
    GPUs it is rough: the workspace of such libraries counts as if it were written completely.
    """
    devices, chip = topology.devices(topology_name)
    log.info("Compiling the training step for %s. This takes minutes.", topology_name)
    mesh = sharding.make_mesh(devices)
    step = jitted_step.make_jitted_step(config, mesh)
    traced = step.trace(*jitted_step.abstract_arguments(config, mesh))
    try:
        compiled = traced.lower().compile(compiler_options=QUICK if quick else None)
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(_why_not_compiled(str(error), topology_name)) from error
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    if devices[0].platform == "tpu":
        step_flops = cost["flops"] + flops.repeated(traced.jaxpr.jaxpr) / len(devices)
    else:
        step_flops = workloads.count(workloads.TRAIN_STEP, config) / len(devices)
    program = hlo.computations(compiled.as_text())
    return StepPlan(
        topology=topology_name,
        chip=chip,
        num_chips=len(devices),
        batch_size=config.train.batch_size,
        num_steps=config.train.num_steps,
        accumulation_steps=config.train.accumulation_steps,
        dtype=config.model.dtype,
        matmul_precision=config.model.matmul_precision,
        argument_arrays_bytes=hlo.parameter_bytes(program),
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        donated_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        flops=step_flops,
        bytes_accessed=cost["bytes accessed"],
        memory_traffic_bytes=memory_traffic.memory_bytes(program),
        collectives=tuple(hlo.collectives(program)),
        compiler=f"jaxlib {jaxlib.__version__}, {'least' if quick else 'full'} effort",
    )


def _why_not_compiled(message: str, topology_name: str) -> str:
    used = re.search(r"Used (\S+) of (\S+) hbm", message)
    if not used:
        return f"The step does not compile for {topology_name}: {' '.join(message.split())[:300]}"
    return (
        f"The step does not fit on {topology_name}: it needs {used[1]} of the {used[2]} of a "
        "device; use more devices, config.model.dtype=bfloat16, config.train.accumulation_steps "
        "or config.model.remat=blocks."
    )


def as_json(step_plan: StepPlan) -> dict:
    """Returns all figures, including the derived ones, as JSON types."""
    derived = ("fits", "compute_seconds", "memory_seconds", "collective_seconds", "step_seconds")
    values = dataclasses.asdict(step_plan)
    return (
        values
        | {name: getattr(step_plan, name) for name in (*derived, "hours")}
        | {
            "collectives": [c._asdict() for c in step_plan.collectives],
            "num_images": step_plan.num_steps * step_plan.batch_size,
        }
    )


def as_table(step_plan: StepPlan) -> str:
    """Returns the figures as lines of a label and a value."""
    p, chip = step_plan, step_plan.chip
    bound = "device memory" if p.memory_seconds > p.compute_seconds else "arithmetic"
    kinds = [f"{c.kind} {c.count} times, {c.num_bytes / 1e6:.1f} MB" for c in p.collectives]
    rows = [
        ("Devices", f"{p.topology}, {p.num_chips} x {chip.name} (peak rates: {chip.source})"),
        ("Global batch", f"{p.batch_size} images, {p.dtype}"),
        ("Compiler", p.compiler),
        ("Memory per device", ""),
        (
            "  peak",
            f"{_gib(p.peak_bytes)} of {chip.memory_bytes / 2**30:.0f} GiB: "
            + ("fits" if p.fits else "DOES NOT FIT"),
        ),
        ("  arguments", _gib(p.argument_bytes)),
        ("  outputs", f"{_gib(p.output_bytes)}, of which {_gib(p.donated_bytes)} are donated"),
        ("  temporary arrays", _gib(p.temporary_bytes)),
        ("Time per step", ""),
        ("  arithmetic", f"{_ms(p.compute_seconds)} for {p.flops / 1e12:.3f} TFLOP per device"),
        (
            "  device memory",
            f"{_ms(p.memory_seconds)} for {p.memory_traffic_bytes / 1e9:.2f} GB "
            f"per device (bytes accessed by XLA's count: {p.bytes_accessed / 1e9:.2f} GB)",
        ),
        ("  collectives", f"{_ms(p.collective_seconds)} for {'; '.join(kinds) or 'no bytes'}"),
        ("  roofline", f"{_ms(p.step_seconds)}, bound by {bound}, collectives not overlapped"),
        (
            "Training",
            f"{p.num_steps} steps, {p.num_steps * p.batch_size / 1e6:.1f}M images: "
            f"{p.hours:.1f} hours at the roofline",
        ),
    ]
    return "\n".join(f"{label:<20}{value}".rstrip() for label, value in rows)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
