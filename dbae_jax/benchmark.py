"""Measures speed, share of the device's matmul rate, memory and compile time, without a data set.

python -m dbae_jax.benchmark --config=configs/celeba.py --batch_size=8 --json=benchmark.json

Every sample lies between two of a large matrix product in the config's number format on the same
devices, and shares are ratios of such neighbours: what else the machine does slows both. FLOPs are
the model's: the convolutions and matrix products of the program as traced, of the training step
with its backward pass, a multiply-add counted as 2; what rematerialisation or fused kernels compute
once more is not counted.
"""

import datetime
import logging
import os
import pathlib
import platform
import resource
import sys
import time
from typing import Any

import jax
from absl import flags

from dbae_jax.configuration import command_line
from dbae_jax.configuration.config import Config, from_dict, to_dict
from dbae_jax.errors import ConfigError
from dbae_jax.performance import timing, workloads
from dbae_jax.performance.timing import Matmul
from dbae_jax.performance.workloads import Program
from dbae_jax.runtime import files, sharding

flags.adopt_module_key_flags(command_line)  # --help shows them
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Images a call over all devices, in place of config.train.batch_size and eval.batch_size.",
    lower_bound=1,
)
PARTS = flags.DEFINE_list(
    "parts", None, f"What to measure; default all of {','.join(workloads.NAMES)} that there are."
)
SECONDS = flags.DEFINE_float(
    "seconds", 20.0, "To time each part for, about; at least five samples.", lower_bound=0.0
)
PROFILE = flags.DEFINE_string("profile", None, "Folder for a trace of a few training steps.")

PROFILED_STEPS = 3

log = logging.getLogger("dbae_jax.benchmark")  # run as a command, __name__ is "__main__"


def benchmark(
    config: Config,
    parts: list[str],
    *,
    seconds: float,
    matmul_sizes: tuple[int, ...] = timing.MATMUL_SIZES,
    profile: pathlib.Path | None = None,
    clock: timing.Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measures parts of a model with random weights, on all devices.

    Args:
      config: of the model; config.train.batch_size for the training step, config.eval.batch_size
        for all else, and config.sample for reconstructions.
      parts: of `programs.NAMES`.
      seconds: to time each for, about.
      matmul_sizes: of the product to compare with; the fastest is taken.
      profile: folder for a profiler's trace of a few training steps.
      clock: seconds from any start.

    Returns:
      What was measured with (date, versions, devices, number format), "matmul", "parts" by name
      and "host_peak_bytes", all of JSON types. Spreads have median, lower and upper quartile and
      repeats. Bytes are those of one device; `compiled_bytes.temp` is what a call needs beside
      its arguments and answers, `alias` what donation saves.

    Raises:
      ConfigError: for a part that the model does not have, a batch that the devices cannot share,
        or a trace of training steps without them; before anything is compiled.
    """
    _check(config, parts, profile)
    mesh = sharding.make_mesh()
    matmul = timing.make_matmul(
        mesh,
        dtype=config.model.dtype,
        precision=config.model.matmul_precision,
        sizes=matmul_sizes,
        clock=clock,
    )
    rates, measured = [], {}
    for name in [name for name in workloads.NAMES if name in parts]:
        log.info("%s: compiling", name)
        program = workloads.make(name, config)
        log.info("%s: timing", name)
        pairs = timing.interleave(program.run, matmul.run, seconds=seconds, clock=clock)
        rates += [matmul.flops / pair.reference for pair in pairs]
        measured[name] = _row(program, matmul, pairs)
        if name == workloads.TRAIN_STEP and profile is not None:
            _trace(program, profile)
        del program  # its arrays, before the next one's are made
    return {
        **_circumstances(config),
        "matmul": {"size": matmul.size, "flops_per_second": _spread(rates)},
        "parts": measured,
        "host_peak_bytes": _host_peak_bytes(),
    }


def _check(config: Config, parts: list[str], profile: pathlib.Path | None) -> None:
    allowed = ", ".join(workloads.names(config))
    for name in parts:
        if name not in workloads.names(config):
            raise ConfigError(f"--parts={name} is not allowed: it must be among {allowed}.")
        workloads.check_batch_size(name, config)
    if not parts:
        raise ConfigError(f"--parts names nothing to measure; allowed are {allowed}.")
    if profile is not None and workloads.TRAIN_STEP not in parts:
        raise ConfigError(
            f"--profile traces training steps: add {workloads.TRAIN_STEP} to --parts."
        )
    if profile is not None and profile.exists() and not profile.is_dir():
        raise ConfigError(f"--profile={profile} is a file; name a folder.")


def _row(program: Program, matmul: Matmul, pairs: list[timing.Pair]) -> dict[str, Any]:
    """Returns a part's figures."""
    seconds = [pair.seconds for pair in pairs]
    rates = [program.flops / pair.seconds for pair in pairs]
    shares = [
        rate / (matmul.flops / pair.reference) for rate, pair in zip(rates, pairs, strict=True)
    ]
    return {
        "batch_size": program.batch_size,
        "flops_per_image": program.flops / program.batch_size,
        "seconds": _spread(seconds),
        "images_per_second": _spread([program.batch_size / s for s in seconds]),
        "flops_per_second": _spread(rates),
        "share_of_matmul": _spread(shares),
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
    log.info("a trace of %d training steps is in %s", PROFILED_STEPS, folder)


def _circumstances(config: Config) -> dict[str, Any]:
    devices = jax.devices()
    settings: Any = jax.config  # its attributes are made at run time
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": config.data.name,
        "image_size": config.data.image_size,
        "dtype": config.model.dtype,
        "matmul_precision": config.model.matmul_precision,
        "sample": vars(config.sample),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "host_cpu": _host_cpu(),
        "host_cores": _host_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compilation_cache": settings.jax_compilation_cache_dir is not None,
        "flops_counted": "products of the program without recomputation, a multiply-add as 2",
    }


def _host_cpu() -> str:
    """Returns the processor's name, as Linux tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _host_cores() -> int | None:
    """Returns the cores that this process may use, which Linux alone tells, or those there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _host_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes, but for macOS


def _device_peak_bytes() -> int | None:
    """Returns the most that one device has held until now; None where the backend keeps none."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in stats if one and "peak_bytes_in_use" in one]
    return max(peaks, default=None)


def table(result: dict[str, Any]) -> str:
    """Returns the figures as a table in Markdown, medians with quartiles in brackets."""
    rate = _show(result["matmul"]["flops_per_second"], 1e-9, 0)
    lines = [
        f"{result['devices']} x {result['device_kind']} ({result['host_cpu']}, "
        f"{result['host_cores']} cores), jax {result['jax']}, {result['dtype']}, "
        f"{result['image_size']} pixels, {result['date']}",
        f"matmul of size {result['matmul']['size']}: {rate} GFLOP/s; "
        f"host memory at the peak {result['host_peak_bytes'] / 1e9:.1f} GB",
        "",
        "| part | batch | images/s | GFLOP an image | GFLOP/s | share of matmul | compile s | "
        "device GB |",
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
    """Returns the peak in use, or what the program was compiled to need."""
    if row["device_peak_bytes"] is not None:
        return f"{row['device_peak_bytes'] / 1e9:.2f}"
    if row["compiled_bytes"] is None:
        return "unknown"
    need = row["compiled_bytes"]
    total = need["argument"] + need["output"] - need["alias"] + need["temp"]
    return f"{total / 1e9:.2f} (compiled)"


def with_batch_size(config: Config, batch_size: int) -> Config:
    """Returns the config with both batch sizes set; checked again, as the command line's is."""
    values = to_dict(config)
    values["train"]["batch_size"] = values["eval"]["batch_size"] = batch_size
    return from_dict(values)


def main(argv: list[str]) -> None:
    """Measures what the flags name; prints the table and writes the figures."""
    del argv
    config, output = command_line.read_config(), command_line.json_path()
    if command_line.COORDINATOR.value or command_line.NUM_PROCESSES.value:
        raise ConfigError("The benchmark is for one process: leave --coordinator and the like out.")
    if BATCH_SIZE.value is not None:
        config = with_batch_size(config, BATCH_SIZE.value)
    profile = pathlib.Path(PROFILE.value) if PROFILE.value else None
    parts = list(workloads.names(config)) if PARTS.value is None else PARTS.value
    result = benchmark(config, parts, seconds=SECONDS.value, profile=profile)
    print(table(result))
    if output:
        files.write_json(output, result)


if __name__ == "__main__":
    command_line.run(main)
