"""Predicts memory and time of a training step on devices that this machine does not have."""

import dataclasses
import pathlib
from collections.abc import Iterator

from dbae_jax.configuration.config import Config
from dbae_jax.performance import chips
from dbae_jax.performance.step_plan import StepPlan, make_plan
from dbae_jax.runtime import files

Row = tuple[str, str]  # label and value
DERIVED = (
    *("fits", "compute_seconds", "memory_seconds", "collective_seconds", "kernel_seconds"),
    *("step_seconds", "images_per_second", "hours"),
)


def plan(
    config: Config, *, topology: str, effort: str = "least", json_path: pathlib.Path | None = None
) -> str:
    """Compiles the training step for a topology and returns its figures as a table.

    Args:
      config: checked config; its data set need not exist.
      topology: devices, see `topology.devices`.
      effort: effort of XLA, "least" (minutes) or "full" (tens of minutes). For GPUs, "full" times
        kernels, so it needs the GPUs.
      json_path: file that gets the same figures, or None.

    Raises:
      ConfigError: for an unknown topology, a compiler that is not installed, a batch that the
        devices cannot share, or a step that is far too large for the device memory.
    """
    step_plan = make_plan(config, topology, quick=effort == "least")
    if json_path is not None:
        files.write_json(json_path, as_json(step_plan))
    return as_table(step_plan)


def as_json(step_plan: StepPlan) -> dict:
    """Returns all figures, including the derived ones, as JSON types."""
    values = dataclasses.asdict(step_plan)
    for name in ("collectives", "kernels", "slow_kernels"):
        values[name] = [item._asdict() for item in getattr(step_plan, name)]
    values |= {name: getattr(step_plan, name) for name in DERIVED}
    return values | {"num_images": step_plan.num_steps * step_plan.batch_size}


def as_table(step_plan: StepPlan) -> str:
    """Returns the figures as lines of a label and a value."""
    p, chip = step_plan, step_plan.chip
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
        *(_kernel_rows(p) if p.kernels else _roofline_rows(p)),
        (
            "Training",
            f"{p.num_steps} steps, {p.num_steps * p.batch_size / 1e6:.1f}M images: "
            f"{p.images_per_second:.0f} images/s and {p.hours:.1f} hours "
            + ("at best" if p.kernels else "at the roofline"),
        ),
        *_warning_rows(p),
    ]
    return "\n".join(f"{label:<20}{value}".rstrip() for label, value in rows)


def _roofline_rows(p: StepPlan) -> Iterator[Row]:
    """Yields the rows about the time of a step on TPUs."""
    bound = "device memory" if p.memory_seconds > p.compute_seconds else "arithmetic"
    yield "Time per step", ""
    yield "  arithmetic", f"{_ms(p.compute_seconds)} for {p.flops / 1e12:.3f} TFLOP per device"
    traffic = f"{_ms(p.memory_seconds)} for {p.memory_traffic_bytes / 1e9:.2f} GB per device"
    if p.bytes_accessed is not None:
        traffic += f" (bytes accessed by XLA's count: {p.bytes_accessed / 1e9:.2f} GB)"
    yield "  device memory", traffic
    yield "  collectives", _collectives(p)
    yield "  roofline", f"{_ms(p.step_seconds)}, bound by {bound}, collectives not overlapped"


def _kernel_rows(p: StepPlan) -> Iterator[Row]:
    """Yields the rows about the time of a step on GPUs."""
    yield (
        "Kernels per device",
        f"each takes at least {1e6 * chips.KERNEL_SECONDS:.0f} microseconds, "
        f"{chips.REACHED_FLOPS:.0%} of the peak arithmetic and {chips.REACHED_BANDWIDTH:.0%} of "
        "the peak bandwidth are reached",
    )
    columns = "{:<40}{:>7}{:>9}{:>9}{:>11}"
    yield "", columns.format("kind", "number", "TFLOP", "GB", "ms at best")
    count, num_bytes = (sum(getattr(k, n) for k in p.kernels) for n in ("count", "num_bytes"))
    for name, number, flops, size, seconds in (
        *p.kernels,
        ("sum", count, p.flops, num_bytes, p.kernel_seconds),
    ):
        figures = f"{flops / 1e12:.3f}", f"{size / 1e9:.2f}", f"{1e3 * seconds:.2f}"
        yield "", columns.format(name, number, *figures)
    yield "Time per step", ""
    yield "  kernels", f"{_ms(p.kernel_seconds)}, one after another"
    yield "  collectives", _collectives(p)
    yield "  step", f"{_ms(p.step_seconds)} at best, collectives not overlapped"


def _warning_rows(p: StepPlan) -> Iterator[Row]:
    """Yields the rows that name the kernels for which no fast implementation exists."""
    if not p.slow_kernels:
        return
    total = sum(kernel.runs for kernel in p.slow_kernels)
    yield (
        "WARNING",
        f"no fast implementation exists for {total} {'kernels' if total > 1 else 'kernel'}, so the "
        "times above are far too low for:",
    )
    for kernel in p.slow_kernels:
        times = f", {kernel.runs} times" if kernel.runs > 1 else ""
        origin = kernel.layer or "a layer that XLA does not name"
        yield "", f"{kernel.kind} with a window of {kernel.window}{times}: {origin}"


def _collectives(p: StepPlan) -> str:
    kinds = [f"{c.kind} {c.count} times, {c.num_bytes / 1e6:.1f} MB" for c in p.collectives]
    return f"{_ms(p.collective_seconds)} for {'; '.join(kinds) or 'no bytes'}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
