"""Measures how fast the loader of a config makes batches on the host, without a model.

python -m dbae_jax.data.loader_speed --config=configs/digits.py --json=speed.json
"""

import dataclasses
import resource
import sys
import time
from typing import Any

from absl import flags

from dbae_jax.configuration import command_line
from dbae_jax.configuration.config import Config
from dbae_jax.data import pipeline, registry
from dbae_jax.errors import ConfigError
from dbae_jax.runtime import files, host

flags.adopt_module_key_flags(command_line)  # so that --help shows them
SECONDS = flags.DEFINE_float("measure_seconds", 5.0, "Seconds to measure, after the first batch.")


def measure(config: Config, seconds: float) -> dict[str, Any]:
    """Reads training batches for at least `seconds` and measures rate and memory.

    Args:
      config: config, of which the section data, seed and train.batch_size are used.
      seconds: least duration of the measurement, without the first batch.

    Returns:
      images_per_second: rate without the first batch.
      images: number of images that were read.
      seconds: duration of the measurement.
      first_batch_seconds: time to open the source, start the workers and read the first batch.
      memory_mib: peak host memory of this process.
      memory_rise_mib: increase of this peak by reading.
      worker_memory_mib: peak host memory of the largest worker; 0: no workers.
      cpus: number of CPUs that this process may use.
      batch_size: images per batch.
      data: the section config.data.
    """
    before, started = _peak_mib(resource.RUSAGE_SELF), time.perf_counter()
    data, images = config.data, 0
    with pipeline.train_batches(
        registry.make_source(data, "train"),
        batch_size=config.train.batch_size,
        seed=config.seed,
        flip=data.flip,
        num_threads=data.num_threads,
        num_workers=data.num_workers,
        prefetch_batches=data.prefetch_batches,
    ) as batches:
        next(batches)
        first = time.perf_counter()
        while (taken := time.perf_counter() - first) < seconds or not images:
            images += len(next(batches)["image"])
    peak = _peak_mib(resource.RUSAGE_SELF)
    return {
        "images_per_second": images / taken,
        "images": images,
        "seconds": taken,
        "first_batch_seconds": first - started,
        "memory_mib": peak,
        "memory_rise_mib": peak - before,
        # The system counts only children that have ended, so the workers must be closed here.
        "worker_memory_mib": _peak_mib(resource.RUSAGE_CHILDREN) if data.num_workers else 0.0,
        "cpus": host.cores(),
        "batch_size": config.train.batch_size,
        "data": dataclasses.asdict(data),
    }


def _peak_mib(who: int) -> float:
    """Returns the largest resident memory so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB.
    return resource.getrusage(who).ru_maxrss * unit / 2**20


def describe(measured: dict[str, Any]) -> str:
    """Returns the result of `measure` as lines of text."""
    data = measured["data"]
    reading = ("num_threads", "num_workers", "prefetch_batches", "flip")
    setting = ", ".join(f"{name}={data[name]}" for name in reading)
    return "\n".join(
        [
            f"{data['name']} at {data['image_size']} pixels, batches of {measured['batch_size']}, "
            f"{setting}, {measured['cpus']} CPUs",
            f"{measured['images_per_second']:,.0f} images/s over {measured['seconds']:.1f} s; "
            f"the first batch took {measured['first_batch_seconds']:.2f} s",
            f"peak host memory: {measured['memory_mib']:,.0f} MiB, of which reading added "
            f"{measured['memory_rise_mib']:,.0f} MiB; at most "
            f"{measured['worker_memory_mib']:,.0f} MiB per worker",
        ]
    )


def main(argv: list[str]) -> None:
    """Measures the loader of the config that --config names."""
    del argv  # `command_line.run` has checked it.
    if SECONDS.value <= 0:
        raise ConfigError(f"--measure_seconds={SECONDS.value} is not allowed: it must be positive.")
    output = command_line.json_path()
    measured = measure(command_line.read_config(), SECONDS.value)
    print(describe(measured))
    if output:
        files.write_json(output, measured)


if __name__ == "__main__":
    command_line.run(main)
