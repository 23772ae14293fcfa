"""Measures speed, memory and compile time of a config's model; needs no data set.

python -m dbae_jax.benchmark --config=configs/celeba.py --batch_size=8 --json=benchmark.json

A large matrix product in the config's number format is timed before and after each sample, on the
same devices. Speeds are also given as fractions of its rate, because other load on the machine
slows both. FLOPs are those of the model: the convolutions and matrix products of the traced
program, including the backward pass of the training step. A multiply-add counts as 2. Recomputed
activations count once.
"""

import datetime
import logging
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from dbae_jax.configuration import command_line, paths
from dbae_jax.configuration.config import Config, from_dict, to_dict
from dbae_jax.errors import ConfigError
from dbae_jax.performance import timing, workloads
from dbae_jax.performance.timing import Matmul
from dbae_jax.performance.workloads import Program
from dbae_jax.runtime import files, host, processes, sharding

flags.adopt_module_key_flags(command_line)  # --help shows them
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Images per call over all devices, instead of config.train.batch_size and eval.batch_size.",
    lower_bound=1,
)
PARTS = flags.DEFINE_list(
    "parts",
    None,
    f"Programs to measure, separated by commas: {','.join(workloads.NAMES)}. Default: all.",
)
SECONDS = flags.DEFINE_float(
    "seconds", 20.0, "Approximate seconds per program; at least five samples.", lower_bound=0.0
)
PROFILE = flags.DEFINE_string("profile", None, "Folder for a profile of a few training steps.")

PROFILED_STEPS = 3

log = logging.getLogger("dbae_jax.benchmark")  # run as a command, __name__ is "__main__"


def benchmark(
    config: Config,
    parts: list[str],
    *,
    seconds: float,
    matmul_sizes: tuple[int, ...] = timing.MATMUL_SIZES,
    profile: pathlib.Path | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda figures: None,
    clock: timing.Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measures programs of a model with random weights, on all devices.

    Args:
      config: config of the model. The training step takes config.train.batch_size images, the
        other programs config.eval.batch_size, and "decode" runs the sampler config.sample.
      parts: programs to measure, from `workloads.NAMES`.
      seconds: approximate seconds per program.
      matmul_sizes: sizes of the matrix product to compare with; the fastest is used.
      profile: folder for a profiler's trace of a few training steps.
      keep: is called with the figures so far after each program, because compiling the next one
        can take minutes.
      clock: function that returns the time in seconds.

    Returns:
      The circumstances (date, versions, devices, number format), "matmul", "parts" by name and
      "host_peak_bytes", all as JSON types. A measured value has its median, lower and upper
      quartile and the number of repeats. Bytes are per device: `compiled_bytes.temp` is needed
      in addition to arguments and results, `alias` is saved by donation.

    Raises:
      ConfigError: for a program that the model does not have, a batch that the devices cannot
        share, or `profile` without the training step; before anything is compiled.
    """
    _check(config, parts, profile)
    mesh = sharding.make_mesh()
    matmul = timing.make_matmul(
        mesh,
        dtype=config.model.dtype,
        precision=config.model.precision,
        sizes=matmul_sizes,
        clock=clock,
    )
    rates, measured = [], {}
    for name in [name for name in workloads.NAMES if name in parts]:
        log.info("Compiling %s.", name)
        program = workloads.make(name, config)
        log.info("Timing %s.", name)
        pairs = timing.interleave(program.run, matmul.run, seconds=seconds, clock=clock)
        rates += [matmul.flops / pair.reference for pair in pairs]
        measured[name] = _row(program, matmul, pairs)
        figures = _figures(config, matmul, rates, measured)
        log.info("%s: %.4g images/s.", name, measured[name]["images_per_second"]["median"])
        keep(figures)
        if name == workloads.TRAIN_STEP and profile is not None:
            _trace(program, profile)
        del program  # frees its arrays before the next program's are made
    return figures


def _figures(
    config: Config, matmul: Matmul, rates: list[float], measured: dict[str, Any]
) -> dict[str, Any]:
    return {
        **_circumstances(config),
        "matmul": {"size": matmul.size, "flops_per_second": _spread(rates)},
        "parts": dict(measured),
        "host_peak_bytes": _host_peak_bytes(),
    }


def _check(config: Config, parts: list[str], profile: pathlib.Path | None) -> None:
    allowed = ", ".join(workloads.names(config))
    for name in parts:
        if name not in workloads.names(config):
            raise ConfigError(f"--parts={name} is not allowed: it must be one of {allowed}.")
        workloads.check_batch_size(name, config)
    if not parts:
        raise ConfigError(f"--parts is empty: name some of {allowed}.")
    if profile is not None and workloads.TRAIN_STEP not in parts:
        raise ConfigError(
            f"--profile records training steps: add {workloads.TRAIN_STEP} to --parts."
        )
    if profile is not None and profile.exists() and not profile.is_dir():
        raise ConfigError(f"--profile={profile} is a file: name a folder.")


def _row(program: Program, matmul: Matmul, pairs: list[timing.Pair]) -> dict[str, Any]:
    """Returns the figures of a program."""
    seconds = [pair.seconds for pair in pairs]
    rates = [program.flops / pair.seconds for pair in pairs]
    fractions = [
        rate / (matmul.flops / pair.reference) for rate, pair in zip(rates, pairs, strict=True)
    ]
    return {
        "batch_size": program.batch_size,
        "flops_per_image": program.flops / program.batch_size,
        "seconds": _spread(seconds),
        "images_per_second": _spread([program.batch_size / s for s in seconds]),
        "flops_per_second": _spread(rates),
        "share_of_matmul": _spread(fractions),
        "trace_seconds": program.trace_seconds,
        "compile_seconds": program.compile_seconds,
        "compiled_bytes": program.memory,
        "device_peak_bytes": _device_peak_bytes(),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return timing.spread(values)._asdict()


def _trace(program: Program, folder: pathlib.Path) -> None:
    with jax.profiler.trace(str(folder)):
        program.run(PROFILED_STEPS)
    log.info("Wrote a profile of %d training steps to %s.", PROFILED_STEPS, folder)


def _circumstances(config: Config) -> dict[str, Any]:
    devices = jax.devices()
    settings: Any = jax.config  # its attributes are made at run time
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": config.data.name,
        "image_size": config.data.image_size,
        "dtype": config.model.dtype,
        "matmul_precision": config.model.precision,
        "sample": vars(config.sample),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "host_cpu": host.processor(),
        "host_cores": host.cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compilation_cache": settings.jax_compilation_cache_dir is not None,
        "flops_counted": (
            "convolutions and matrix products without recomputation, a multiply-add as 2"
        ),
    }


def _host_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes except on macOS


def _device_peak_bytes() -> int | None:
    """Returns the peak memory use of a device so far, or None if the backend does not record it."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in stats if one and "peak_bytes_in_use" in one]
    return max(peaks, default=None)


def table(result: dict[str, Any]) -> str:
    """Returns the figures as a Markdown table: medians, with quartiles in brackets."""
    rate = _show(result["matmul"]["flops_per_second"], 1e-9, 0)
    lines = [
        f"{result['devices']} x {result['device_kind']} ({result['host_cpu']}, "
        f"{result['host_cores']} cores), jax {result['jax']}, {result['dtype']}, "
        f"{result['image_size']} pixels, {result['date']}",
        f"matrix product of size {result['matmul']['size']}: {rate} GFLOP/s; "
        f"peak host memory: {result['host_peak_bytes'] / 1e9:.1f} GB",
        "",
        "| program | batch | images/s | GFLOP per image | GFLOP/s | fraction of matmul rate | "
        "compile s | device GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["parts"].items():
        cells = [
            name,
            str(row["batch_size"]),
            _show(row["images_per_second"], 1, 2),
            f"{row['flops_per_image'] / 1e9:.4g}",
            _show(row["flops_per_second"], 1e-9, 0),
            _show(row["share_of_matmul"], 1, 3),
            f"{row['compile_seconds']:.1f}",
            _gigabytes(row),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _show(values: dict[str, float], scale: float, digits: int) -> str:
    median, lower, upper = (
        f"{scale * values[key]:.{digits}f}" for key in ("median", "lower", "upper")
    )
    return f"{median} [{lower}, {upper}]"


def _gigabytes(row: dict[str, Any]) -> str:
    """Returns the peak memory use, or the memory that the compiled program needs."""
    if row["device_peak_bytes"] is not None:
        return f"{row['device_peak_bytes'] / 1e9:.2f}"
    if row["compiled_bytes"] is None:
        return "unknown"
    need = row["compiled_bytes"]
    total = need["argument"] + need["output"] - need["alias"] + need["temp"]
    return f"{total / 1e9:.2f} (compiled)"


def with_batch_size(config: Config, batch_size: int) -> Config:
    """Returns the checked config with both batch sizes set."""
    values = to_dict(config)
    values["train"]["batch_size"] = values["eval"]["batch_size"] = batch_size
    return from_dict(values)


def main(argv: list[str]) -> None:
    """Measures the config that the flags name, prints the table and writes the figures."""
    del argv
    config, output = command_line.read_config(), command_line.json_path()
    if command_line.COORDINATOR.value or command_line.NUM_PROCESSES.value:
        raise ConfigError("The benchmark runs in one process: leave out --coordinator.")
    if BATCH_SIZE.value is not None:
        config = with_batch_size(config, BATCH_SIZE.value)
    profile = paths.read(PROFILE.value, "--profile") if PROFILE.value else None
    processes.check_devices()
    parts = list(workloads.names(config)) if PARTS.value is None else PARTS.value

    def keep(figures: dict[str, Any]) -> None:
        if output:
            files.write_json(output, figures)

    print(table(benchmark(config, parts, seconds=SECONDS.value, profile=profile, keep=keep)))


if __name__ == "__main__":
    command_line.run(main)
