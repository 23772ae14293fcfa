"""Devices to compile for: chips of a topology that is not there, or GPUs that are."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from dbae_jax.errors import ConfigError
from dbae_jax.performance.chips import CHIPS, GPU_NAMES, TPU_SHAPES, Chip

# Without these libtpu asks a metadata server for a TPU that is not there, waits for other
# processes that loaded it, and fills stderr.
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def devices(topology: str) -> tuple[list[jax.Device], Chip]:
    """Returns the devices of a topology, for compiling only, and what their chip can do.

    Args:
      topology: "v5e:4x4" and the like, or "gpu:8" for the first 8 GPUs of this machine.

    Raises:
      ConfigError: if there is no such topology, or what compiles for it is not installed.
    """
    kind, _, shape = topology.partition(":")
    if kind == "gpu" and re.fullmatch(r"[1-9]\d*", shape):
        return _gpus(int(shape))
    if kind not in TPU_SHAPES or not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        known = ", ".join(f"{name}:{example}" for name, example in TPU_SHAPES.items())
        raise ConfigError(
            f"--topology={topology} is unknown: it must be a TPU and the shape of its slice, such "
            f"as {known}, or gpu:8 on a machine with that many GPUs."
        )
    return _tpus(topology), CHIPS[kind]


def _tpus(topology: str) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology={topology} needs libtpu, the TPU compiler, which works without a TPU: "
            "pip install 'dbae_jax[tpu]'."
        )
    for name, value in LIBTPU_SETTINGS.items():
        os.environ.setdefault(name, value)
    kind, _, shape = topology.partition(":")
    # A host has four or more chips unless it is told otherwise.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if set(shape.split("x")) == {"1"} else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **alone).devices)
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--topology={topology} is no slice that libtpu knows, unlike {kind}:"
            f"{TPU_SHAPES[kind]}; it says: {reason}"
        ) from error


def _gpus(count: int) -> tuple[list[jax.Device], Chip]:
    try:
        found = jax.devices("gpu")
    except RuntimeError:
        found = []
    if len(found) < count:
        raise ConfigError(
            f"--topology=gpu:{count} compiles for the GPUs of this machine, of which jax sees "
            f"{len(found)}; run it where there are {count}, or name a TPU such as v5e:4x4."
        )
    kind = found[0].device_kind
    return found[:count], gpu_chip(kind)


def gpu_chip(kind: str) -> Chip:
    """Returns the figures of a GPU by the name that its driver gives it.

    Raises:
      ConfigError: for one that is not in the table.
    """
    for name, pattern in GPU_NAMES.items():
        if re.search(pattern, kind):
            return CHIPS[name]
    known = "A100 (SXM, 80 GB), H100 (SXM) and H200"
    raise ConfigError(f"The peaks of {kind!r} are not in dbae_jax/chips.py, which has {known}.")
