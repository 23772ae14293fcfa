"""Devices to compile for: TPUs that need not exist, or the GPUs of this machine."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from dbae_jax.errors import ConfigError
from dbae_jax.performance.chips import CHIPS, GPU_NAMES, TPU_SHAPES, Chip

# Without these settings, libtpu asks a metadata server for a missing TPU, waits for other
# processes that use libtpu, and writes many lines to stderr.
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def devices(topology: str) -> tuple[list[jax.Device], Chip]:
    """Returns the devices of a topology, for compiling only, and the figures of their chip.

    Args:
      topology: TPU slice such as "v5e:4x4", or "gpu:8" for the first 8 GPUs of this machine.

    Raises:
      ConfigError: if the topology does not exist, or its compiler is not installed.
    """
    kind, _, shape = topology.partition(":")
    if kind == "gpu" and re.fullmatch(r"[1-9]\d*", shape):
        return _gpus(int(shape))
    if kind not in TPU_SHAPES or not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        known = ", ".join(f"{name}:{example}" for name, example in TPU_SHAPES.items())
        raise ConfigError(
            f"--topology={topology} is unknown: it must be a TPU and the shape of its slice, such "
            f"as {known}, or gpu:8 on a machine with 8 GPUs."
        )
    return _tpus(topology), CHIPS[kind]


def _tpus(topology: str) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology={topology} needs libtpu, the compiler for TPUs, but no TPU; install it "
            "with pip install -e '.[tpu]'."
        )
    for name, value in LIBTPU_SETTINGS.items():
        os.environ.setdefault(name, value)
    kind, _, shape = topology.partition(":")
    # By default, libtpu assumes at least four chips per host.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if set(shape.split("x")) == {"1"} else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **alone).devices)
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--topology={topology} is not known to libtpu; {kind}:{TPU_SHAPES[kind]}, for "
            f"example, is. libtpu reports: {reason}"
        ) from error


def _gpus(count: int) -> tuple[list[jax.Device], Chip]:
    try:
        found = jax.devices("gpu")
    except RuntimeError:
        found = []
    if len(found) < count:
        raise ConfigError(
            f"--topology=gpu:{count} needs {count} GPUs in this machine, and jax finds "
            f"{len(found)}; use a machine with {count} GPUs, or name a TPU such as v5e:4x4."
        )
    kind = found[0].device_kind
    return found[:count], gpu_chip(kind)


def gpu_chip(kind: str) -> Chip:
    """Returns the figures of a GPU.

    Args:
      kind: name of the GPU as its driver reports it.

    Raises:
      ConfigError: if the GPU is not in the table.
    """
    for name, pattern in GPU_NAMES.items():
        if re.search(pattern, kind):
            return CHIPS[name]
    raise ConfigError(
        f"The peak rates of {kind!r} are unknown; dbae_jax/performance/chips.py has those of A100 "
        "(SXM, 80 GB), H100 (SXM) and H200."
    )
