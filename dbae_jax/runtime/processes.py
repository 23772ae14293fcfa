"""Several processes as one run: joining them, waiting for them, and their errors."""

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from dbae_jax.errors import ConfigError, DBAEError, DeviceError
from dbae_jax.runtime import host

HEARTBEAT_TIMEOUT_SECONDS = 60  # a process that is silent for longer counts as lost
# A process that is alone may be silent for any time: suspended by Ctrl-Z, a sleeping laptop, a
# debugger, or a scheduler.
ALONE_TIMEOUT_SECONDS = 365 * 24 * 3600
# Each device holds a copy of the weights. More than two devices have not been measured.
MOST_CPU_DEVICES = 8
COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")  # numbers of processes, as jax reads them
# Beginnings of the runtime's messages when a collective fails. Some of these are ValueErrors.
LOSS = re.compile("(UNKNOWN|UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|ABORTED|CANCELLED): ")


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    save_on_sigterm: bool = False,
    device_per_core: bool = False,
) -> None:
    """Joins the other processes of the run; must be called before a device is used.

    Missing arguments are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    If these are missing too, jax asks the cluster (TPU pods, SLURM, Open MPI, Kubernetes). Without
    a cluster, this process is the only one of its run.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: number of processes of the run.
      process_id: number of this process, from 0.
      save_on_sigterm: whether a SIGTERM or the first Ctrl-C asks the training to save and stop
        (see `checkpoint.Writer.preempted`), instead of ending the process at once.
      device_per_core: whether each CPU core is a device of its own, which makes decoding faster.
        Without effect if the environment sets the number of CPU devices (JAX_NUM_CPU_DEVICES, or an
        option in XLA_FLAGS), or if an argument, SLURM or Open MPI counts several processes.

    Raises:
      ConfigError: if some of the first three arguments are missing and others are given, or if
        the other processes cannot be reached.
      DeviceError: if the devices that JAX_PLATFORMS asks for are not there.
    """
    given = _from_environment(coordinator, num_processes, process_id)
    jax.config.update("jax_enable_preemption_service", save_on_sigterm)
    in_main_thread = threading.current_thread() is threading.main_thread()
    # A process that a shell starts in the background ignores Ctrl-C, and has another handler.
    if save_on_sigterm and in_main_thread and _handles_interrupts():
        signal.signal(signal.SIGINT, _save_at_interrupt)
    if device_per_core and _count(given[1]) in (None, "1"):
        _make_a_device_per_core()
    try:
        _join(*given, alone=_count(given[1]) == "1")
    except (RuntimeError, ValueError) as error:
        if given[0] is None and str(error).startswith("coordinator_address should be defined"):
            if save_on_sigterm:  # jax handles SIGTERM through a coordinator, even of one process
                _join(f"127.0.0.1:{_free_port()}", 1, 0, alone=True)
            check_devices()
            return
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"The processes of the run cannot find each other ({reason}). Check that process 0 "
            "runs, that --coordinator is its HOST:PORT, and that each process has the right "
            "--num_processes and --process_id."
        ) from error
    check_devices()
    if not is_writer():
        logging.getLogger("dbae_jax").setLevel(logging.WARNING)


def check_devices() -> None:
    """Starts the devices; `start` does so too.

    Raises:
      DeviceError: if the devices that JAX_PLATFORMS asks for are not there.
    """
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError without a CUDA plugin
        if not asked:
            raise
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(
            f"JAX_PLATFORMS={asked} asks for devices that JAX cannot use here"
            f"{f' ({reason})' if reason else ''}. Check the driver (nvidia-smi for NVIDIA GPUs) "
            "and that the extra for these devices is installed, such as "
            "pip install -e '.[cuda]', or set JAX_PLATFORMS=cpu."
        ) from error


def _make_a_device_per_core() -> None:
    """Makes each CPU core a device of JAX, unless the environment sets the number of CPU devices.

    Devices that share a batch decode more images a second than one device with as many threads
    (docs/performance/measured.md): its threads wait for each other at every convolution.
    """
    environ = os.environ
    by_flag = "xla_force_host_platform_device_count" in environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in environ and not by_flag:
        jax.config.update("jax_num_cpu_devices", min(host.cores(), MOST_CPU_DEVICES))


def _handles_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _save_at_interrupt(number: int, frame: FrameType | None) -> None:
    """Treats the first Ctrl-C as a SIGTERM; the next one ends the process."""
    del number, frame
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(2, b"\nSaving a checkpoint after this step. Press Ctrl-C again to stop without it.\n")
    os.kill(os.getpid(), signal.SIGTERM)


def _from_environment(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[str | None, int | None, int | None]:
    """Returns the arguments of `start`, completed from the environment, or raises ConfigError."""
    environ = os.environ
    try:
        given: tuple[str | None, int | None, int | None] = (
            coordinator or environ.get("JAX_COORDINATOR_ADDRESS"),
            num_processes or int(environ.get("JAX_NUM_PROCESSES", 0)) or None,
            int(environ.get("JAX_PROCESS_ID", -1)) if process_id is None else process_id,
        )
    except ValueError as error:
        raise ConfigError(
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers: {error}."
        ) from error
    given = (*given[:2], None if given[2] == -1 else given[2])
    if given[0] and not re.fullmatch(r".+:\d+", given[0]):
        raise ConfigError(f"--coordinator={given[0]} must be HOST:PORT of process 0.")
    if any(value is not None for value in given) and None in given:
        raise ConfigError(
            "--coordinator, --num_processes and --process_id (or JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID) go together: give all three or none."
        )
    return given


def _count(num_processes: int | None) -> str | None:
    """Returns the number of processes by the flags or by the cluster, None if neither says it."""
    counts = [num_processes, *map(os.environ.get, COUNTS)]
    return next((str(count) for count in counts if count is not None), None)


def _join(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, alone: bool
) -> None:
    """Joins the processes of a run; `alone` says that this one is known to be the only one."""
    timeout = ALONE_TIMEOUT_SECONDS if alone else HEARTBEAT_TIMEOUT_SECONDS
    jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=timeout
    )


def is_writer() -> bool:
    """Returns whether this process is the one that writes files: records, images, config."""
    # A single process is not asked for its number, since that would initialise the devices.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process of the run has called this function with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: int) -> bool:
    """Returns whether every process of the run gives the same value."""
    if not several():
        return True
    return bool((multihost_utils.process_allgather(np.int32(value)) == value).all())


def from_writer(read: Callable[[], Any]) -> Any:
    """Returns on every process the result of `read()` on the process that writes files.

    The other processes do not call `read`, because files in a shared folder may reach them late.

    Args:
      read: function without arguments; returns JSON types.

    Raises:
      DBAEError: on the other processes, if `read` raises an error, for which they would wait.
    """
    if not several():
        return read()
    found, failure = {}, None
    if is_writer():
        try:
            found = {"result": read()}
        except Exception as error:
            found, failure = {"failure": f"{type(error).__name__}: {error}"}, error
    found = _from_process_0(found)
    if failure is not None:
        raise failure
    if "failure" in found:
        raise DBAEError(
            f"Process {jax.process_index()} of {jax.process_count()} stops, because process 0 had "
            f"an error ({found['failure']})."
        )
    return found["result"]


def _from_process_0(value: dict[str, Any]) -> dict[str, Any]:
    """Returns on every process the value of process 0."""
    text = json.dumps(value).encode() if is_writer() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


def is_loss(error: BaseException | None) -> bool:
    """Returns whether an error was caused by the loss of a different process of the run."""
    if not several():
        return False
    while error is not None:
        if LOSS.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def several() -> bool:
    """Returns whether the run has several processes."""
    try:
        return jax.distributed.is_initialized() and jax.process_count() > 1
    except (RuntimeError, AssertionError):  # the devices cannot be started
        return False


def leave(code: int) -> NoReturn:
    """Ends this process, without waiting for other processes of the run, which may be lost."""
    sys.stderr.flush()
    if several():
        os._exit(code)
    sys.exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
