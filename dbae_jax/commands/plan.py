"""What a training step needs on chips that are not at hand: memory, arithmetic, traffic, time."""

import dataclasses
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

# The least effort of XLA's backend finds the same fusions ten times faster; what it leaves out is
# on-chip memory, so that everything is counted as read from main memory and written to it.
# By the name that this jax has for it; later ones know levels, of which 9 is "O0".
OLDER = jax.__version_info__ < (0, 11)
QUICK = {"exec_time_optimization_effort": -1.0} if OLDER else {"optimization_level": 9}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Figures of one compiled training step; bytes and operations are those of one chip."""

    topology: str
    chip: Chip
    num_chips: int
    batch_size: int  # over all chips
    num_steps: int
    accumulation_steps: int
    dtype: str
    matmul_precision: str
    argument_arrays_bytes: int  # state, key and this chip's images, as arrays
    argument_bytes: int  # the same, padded as they lie in the chip's memory
    output_bytes: int  # most of it in the place of the donated state
    donated_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float  # see `measure`
    bytes_accessed: float  # XLA's count: operands and results wherever they lie, loops once
    memory_traffic_bytes: int  # those in main memory alone, see `hlo_traffic`
    collectives: tuple[hlo.Collective, ...]
    compiler: str

    @property
    def fits(self) -> bool:
        """Whether the peak is within the chip's memory."""
        return self.peak_bytes <= self.chip.memory_bytes

    @property
    def compute_seconds(self) -> float:
        """A step's arithmetic at the chip's peak."""
        return self.flops / self.chip.peak_flops(self.dtype, self.matmul_precision)

    @property
    def memory_seconds(self) -> float:
        """A step's memory traffic at full bandwidth."""
        return self.memory_traffic_bytes / self.chip.memory_bandwidth

    @property
    def collective_seconds(self) -> float:
        """Collectives at full bandwidth; around a ring, an all-reduce sends its bytes twice.

        The bytes are those of a result, which for a reduce-scatter is a chip's own part.
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
        """The roofline: the slower of arithmetic and memory, then the collectives by themselves."""
        return max(self.compute_seconds, self.memory_seconds) + self.collective_seconds

    @property
    def hours(self) -> float:
        """Roofline time of the config's number of steps."""
        return self.step_seconds * self.num_steps / 3600


def plan(
    config: Config, json_path: pathlib.Path | None, *, topology: str, effort: str = "least"
) -> str:
    """Compiles the training step for a topology and returns what it needs, as text.

    Args:
      config: checked config; its data need not be there.
      json_path: a file to write the same figures to, or None.
      topology: devices, see `topology.devices`.
      effort: of XLA, "least", which takes minutes, or "full", which takes tens of minutes.

    Raises:
      ConfigError: for an unknown topology, a compiler that is not installed, a batch that the
        chips cannot share, or a step that does not fit into a chip's memory by far.
    """
    measured = measure(config, topology, quick=effort == "least")
    if json_path is not None:
        files.write_json(json_path, to_json(measured))
    return describe(measured)


def measure(config: Config, name: str, *, quick: bool = True) -> Plan:
    """As `plan`, but returns the figures.

    Operations are XLA's for TPUs, which counts the body of a loop (over the parts of a batch, over
    an attention's heads) once, and those of the loops' other turns. On GPUs XLA does not see into
    the libraries that it calls, so they are the model's own, as `benchmark` has them. The memory
    traffic is counted here, and takes loops as they are; on GPUs it is rough, for the room that
    such libraries ask for counts as if they wrote all of it.
    """
    devices, chip = topology.devices(name)
    mesh = sharding.make_mesh(devices)
    training = jitted_step.make_training(config, mesh)
    traced = training.train_step.trace(*jitted_step.abstract_arguments(config, training))
    try:
        compiled = traced.lower().compile(compiler_options=QUICK if quick else None)
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(_why_not_compiled(str(error), name)) from error
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    if devices[0].platform == "tpu":
        operations = cost["flops"] + flops.repeated(traced.jaxpr.jaxpr) / len(devices)
    else:
        operations = workloads.count(workloads.TRAIN_STEP, config) / len(devices)
    program = hlo.computations(compiled.as_text())
    return Plan(
        topology=name,
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
        flops=operations,
        bytes_accessed=cost["bytes accessed"],
        memory_traffic_bytes=memory_traffic.memory_bytes(program),
        collectives=tuple(hlo.collectives(program)),
        compiler=f"jaxlib {jaxlib.__version__}, {'least' if quick else 'full'} effort",
    )


def _why_not_compiled(message: str, name: str) -> str:
    used = re.search(r"Used (\S+) of (\S+) hbm", message)
    if not used:
        return f"The step does not compile for {name}: {' '.join(message.split())[:300]}"
    return (
        f"The step does not fit on {name}: it needs {used[1]} of a chip's {used[2]}; use more "
        "chips, config.model.dtype=bfloat16, config.train.accumulation_steps or "
        "config.model.remat=blocks."
    )


def to_json(plan: Plan) -> dict:
    """Returns all figures, derived ones too, as JSON types."""
    derived = ("fits", "compute_seconds", "memory_seconds", "collective_seconds", "step_seconds")
    values = dataclasses.asdict(plan) | {name: getattr(plan, name) for name in derived}
    return values | {
        "collectives": [c._asdict() for c in plan.collectives],
        "hours": plan.hours,
        "num_images": plan.num_steps * plan.batch_size,
    }


def describe(plan: Plan) -> str:
    """Returns the figures as lines of text."""
    chip, gib = plan.chip, 2**30
    bound = "memory" if plan.memory_seconds > plan.compute_seconds else "arithmetic"
    fits = "fits" if plan.fits else "DOES NOT FIT"
    milliseconds = [
        f"{1e3 * seconds:.1f}"
        for seconds in (plan.compute_seconds, plan.memory_seconds, plan.collective_seconds)
    ]
    kinds = [f"{c.kind} {c.count} of {c.num_bytes / 1e6:.1f} MB" for c in plan.collectives]
    return "\n".join(
        [
            f"{plan.topology}: {plan.num_chips} x {chip.name}, global batch {plan.batch_size}, "
            f"{plan.dtype} ({plan.compiler}; chip: {chip.source})",
            f"Memory a chip: peak {plan.peak_bytes / gib:.2f} GiB of "
            f"{chip.memory_bytes / gib:.0f}: {fits} (arguments {plan.argument_bytes / gib:.2f}, "
            f"outputs {plan.output_bytes / gib:.2f}, of these donated "
            f"{plan.donated_bytes / gib:.2f}, temporaries {plan.temporary_bytes / gib:.2f})",
            f"A step, a chip: {plan.flops / 1e12:.3f} TFLOP, "
            f"{plan.memory_traffic_bytes / 1e9:.2f} GB to and from memory (XLA's count, of on-chip "
            f"memory too, of loops one turn: {plan.bytes_accessed / 1e9:.2f} GB)",
            f"Collectives: {'; '.join(kinds) or 'none'}",
            f"Roofline: {1e3 * plan.step_seconds:.1f} ms a step, bound by {bound} (arithmetic "
            f"{milliseconds[0]}, memory {milliseconds[1]}, collectives {milliseconds[2]} ms)",
            f"{plan.num_steps} steps, {plan.num_steps * plan.batch_size / 1e6:.1f}M images: "
            f"{plan.hours:.1f} hours at these peaks, the collectives not overlapped",
        ]
    )
