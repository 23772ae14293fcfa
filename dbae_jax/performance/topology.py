"""Devices to compile for: TPUs and GPUs that need not exist, or the GPUs of this machine."""

import importlib.metadata
import importlib.util
import os
import platform
import re

import jax
from jax.experimental import topologies

from dbae_jax.errors import ConfigError
from dbae_jax.performance import gpu_targets
from dbae_jax.performance.chips import CHIPS, GPU_NAMES, MOST_GPUS, TPU_SHAPES, Chip

PLUGIN = "jax-cuda13-plugin"  # holds XLA's compiler for GPUs
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
      topology: TPU slice such as "v5e:4x4", GPUs of one machine such as "h100:8", or "gpu:8" for
        the first 8 GPUs of this machine.

    Raises:
      ConfigError: if the topology does not exist, or its compiler is not installed.
    """
    kind, _, shape = topology.partition(":")
    is_count = re.fullmatch(r"[1-9]\d*", shape) is not None
    if kind == "gpu" and is_count:
        return _gpus(int(shape))
    if kind in gpu_targets.TARGETS and is_count:
        return _absent_gpus(topology), CHIPS[kind.upper()]
    if kind not in TPU_SHAPES or not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        slices = ", ".join(f"{name}:{example}" for name, example in TPU_SHAPES.items())
        gpus = ", ".join(f"{name}:8" for name in gpu_targets.TARGETS)
        raise ConfigError(
            f"--topology={topology} is unknown: it must be a TPU and the shape of its slice, such "
            f"as {slices}, a GPU and the number of GPUs, such as {gpus}, or gpu:8 for the GPUs of "
            "this machine."
        )
    return _tpus(topology), CHIPS[kind]


def exist(topology: str) -> bool:
    """Returns whether the devices of a topology are those of this machine."""
    return topology.startswith("gpu:")


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


def _absent_gpus(topology: str) -> list[jax.Device]:
    name, _, count = topology.partition(":")
    if int(count) > MOST_GPUS:
        raise ConfigError(
            f"--topology={topology} names more GPUs than a machine has; plans are for the GPUs of "
            f"one machine, so use at most {name}:{MOST_GPUS}."
        )
    _check_plugin(topology)
    # The compiler needs no device. Without this setting, jax looks for GPUs and CUDA's libraries.
    jax.config.update("jax_platforms", "cpu")
    # Otherwise the compiler reports to stderr that a compilation takes minutes. jax sets level 1.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        description = topologies.get_topology_desc(
            platform="cuda",
            topology_name=name,
            topology=f"1x1x{count}",  # partitions, hosts of each, GPUs of each
            target_config=gpu_targets.target_config(name),
        )
    except (jax.errors.JaxRuntimeError, NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--topology={topology} is refused by {_versions()}: {reason}. Plans for GPUs were "
            "made with jax 0.10.2 and 0.12.0.1; upgrade with pip install --upgrade "
            "-e '.[plan-gpu]'."
        ) from error
    return list(description.devices)


def _check_plugin(topology: str) -> None:
    """Checks that jax's plugin for CUDA is there, in the version of jax."""
    if _version(PLUGIN) is None:
        raise ConfigError(
            f"--topology={topology} needs {PLUGIN}, the compiler for GPUs, but no GPU; install it "
            "with pip install -e '.[plan-gpu]'."
        )
    if _version(PLUGIN) != _version("jax"):
        raise ConfigError(
            f"--topology={topology} needs jax and {PLUGIN} in the same version, and found are "
            f"{_versions()}; upgrade both with pip install --upgrade -e '.[plan-gpu]', which "
            "may need a newer Python."
        )


def _versions() -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("jax", PLUGIN))
    return f"{packages} and Python {platform.python_version()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus(count: int) -> tuple[list[jax.Device], Chip]:
    try:
        found = jax.devices("gpu")
    except RuntimeError:
        found = []
    if len(found) < count:
        raise ConfigError(
            f"--topology=gpu:{count} needs {count} GPUs in this machine, and jax finds "
            f"{len(found)}; use a machine with {count} GPUs, or name GPUs that need not exist, "
            f"such as h100:{min(count, MOST_GPUS)}."
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
        "(SXM, 80 GB), H100 (SXM), H200 and B200."
    )
