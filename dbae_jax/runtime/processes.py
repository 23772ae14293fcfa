"""Several processes as one run: how they find each other, who writes, how they wait and end."""

import contextlib
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from dbae_jax.errors import ConfigError, DeviceMemoryError, LostProcessError

HEARTBEAT_TIMEOUT_SECONDS = 60  # silence after which a process counts as lost
# How the runtime's messages begin when a collective fails; some come as ValueError.
LOSS = re.compile("(UNKNOWN|UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|ABORTED|CANCELLED): ")
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED: ")


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    save_on_sigterm: bool = False,
) -> None:
    """Joins the run's other processes; to be called before anything touches a device.

    What is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID;
    without these jax asks the cluster (TPU pods, SLURM, Open MPI, Kubernetes); and where there is
    none, this process is a run of its own.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: of the run.
      process_id: this process's number, from 0.
      save_on_sigterm: SIGTERM becomes a notice (see `checkpoint.Writer.preempted`) instead of an
        end.

    Raises:
      ConfigError: if only some of the three are given, or the others cannot be reached.
    """
    given = _from_environment(coordinator, num_processes, process_id)
    jax.config.update("jax_enable_preemption_service", save_on_sigterm)
    try:
        _join(*given)
    except (RuntimeError, ValueError) as error:
        if given[0] is None and str(error).startswith("coordinator_address should be defined"):
            if save_on_sigterm:  # the notice needs a coordinator, if only of one process
                _join(f"127.0.0.1:{_free_port()}", 1, 0)
            return
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"The run's processes cannot find each other: {reason}") from error
    if not is_writer():
        logging.getLogger("dbae_jax").setLevel(logging.WARNING)


def _from_environment(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[str | None, int | None, int | None]:
    environ = os.environ
    try:
        given = (
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


def _join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
    )


def is_writer() -> bool:
    """Whether this process writes what one process must write: records, pictures, config."""
    # A process on its own is not asked for its number: that would take hold of the devices.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process of the run has come to this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: int) -> bool:
    """Whether every process of the run came here with the same value."""
    if not several():
        return True
    return bool((multihost_utils.process_allgather(np.int32(value)) == value).all())


def from_writer(look: Callable[[], Any]) -> Any:
    """Returns on every process what `look()` returns on the one that writes; JSON types.

    The others do not look: files of a shared folder may reach them late.
    """
    if not several():
        return look()
    text = json.dumps(look()).encode() if is_writer() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


def is_loss(error: BaseException | None) -> bool:
    """Whether an error is what a process gets when another one of its run has gone."""
    return several() and _matches(LOSS, error)


def _matches(status: re.Pattern, error: BaseException | None) -> bool:
    """Whether the message of an error, or of what led to it, begins so."""
    while error is not None:
        if status.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turns the runtime's errors that a user can mend into one sentence.

    Raises:
      DeviceMemoryError: when the devices' memory is full.
      LostProcessError: when a step over several processes fails.
    """
    try:
        yield
    except Exception as error:
        if _matches(OUT_OF_MEMORY, error):
            reason = " ".join(str(error).split())[:160]
            raise DeviceMemoryError(
                f"The devices' memory is full ({reason}). Try a smaller config.train.batch_size "
                "(or config.eval.batch_size), config.model.dtype=bfloat16, "
                "config.model.remat=blocks, or more config.train.accumulation_steps."
            ) from error
        if not is_loss(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise LostProcessError(
            f"Process {jax.process_index()} of {jax.process_count()} stops: a step over all "
            f"processes failed, most likely because another one was lost ({reason}). Start all "
            "of them again; the run goes on from its last checkpoint."
        ) from error


def several() -> bool:
    """Whether this process is one of several of a run."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leave(code: int) -> NoReturn:
    """Ends this process; of several, without waiting for the others, which may be lost."""
    sys.stderr.flush()
    if several():
        os._exit(code)
    sys.exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
