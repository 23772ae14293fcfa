"""Tells the causes of a failure apart: full disks, full memory and lost processes."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

import jax

from dbae_jax.errors import (
    DBAEError,
    DeviceMemoryError,
    LostProcessError,
    StorageError,
)
from dbae_jax.runtime import processes
from dbae_jax.runtime.buckets import access

OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED: ")
PATH = re.compile(r"(?<![\w.])(/[^\s\"':,;\]]+)")  # an absolute path in a message of a library

# Errors of a file system -> what to do. Libraries report some of them by their text alone.
REMEDIES = {
    errno.ENOSPC: "The disk is full. Free some space, or name a folder on another disk.",
    errno.EDQUOT: "The disk quota is used up. Free some space, or name a folder on another disk.",
    errno.EROFS: "The disk is read-only. Name a folder on a disk that can be written.",
    errno.EACCES: "Change the permissions, or name another folder.",
    errno.EPERM: "Change the permissions, or name another folder.",
    errno.EMFILE: "Allow more open files (ulimit -n), or lower config.data.num_workers.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EIO: "The disk or the network file system fails. Check it, and start again.",
    errno.ESTALE: "The network file system fails. Check it, and start again.",
    errno.EFBIG: "The file system or a limit (ulimit -f) does not allow files of this size.",
}


@contextlib.contextmanager
def explaining(kept: Callable[[], str] = str) -> Iterator[None]:
    """Turns errors of the computer that a user can fix into one sentence.

    Args:
      kept: returns a sentence about what was saved before the failure, or "".

    Raises:
      StorageError: if a file cannot be read or written.
      DeviceMemoryError: if the memory of the devices, or of the computer, is full.
      LostProcessError: if a step over several processes fails.
    """
    try:
        yield
    except DBAEError:
        raise
    except Exception as error:
        found = explanation(error) or _of_file(error)
        if found is None:
            raise
        raise type(found)(f"{found} {kept()}".strip()) from error


def explanation(error: BaseException) -> DBAEError | None:
    """Returns the error that explains another one, or None if that is unknown.

    A file system comes first: tensorstore reports a full disk with the same status as XLA reports
    full memory.
    """
    chain = list(_causes(error))
    return _of_storage(chain) or _of_bucket(chain) or _of_memory(chain) or _of_processes(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what caused it.

    An error that was raised while another one was handled counts as its consequence only if
    libraries raise this type: a KeyError is a bug of ours.
    """
    while error is not None:
        yield error
        handled = None if error.__suppress_context__ else error.__context__
        if not isinstance(error, (OSError, RuntimeError, ValueError)):
            handled = None
        error = error.__cause__ or handled


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f" ({text})" if text else ""


def _of_storage(chain: list[BaseException]) -> StorageError | None:
    for error in chain:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            return _storage_error(error.errno, error.filename or "A file")
        code = next((number for number in REMEDIES if os.strerror(number) in str(error)), None)
        if code is not None:  # as tensorstore and array_record report it
            match = PATH.search(str(error))
            return _storage_error(code, match[1] if match else "A file")
    return None


def _of_bucket(chain: list[BaseException]) -> StorageError | None:
    for error in chain:
        if access.is_failure(error):
            return StorageError(
                f"A bucket cannot be read or written ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Check the network and the credentials, "
                "and start again."
            )
    return None


def _of_file(error: BaseException) -> StorageError | None:
    """Returns the error for a file that is missing, or that is something else than expected."""
    if isinstance(error, OSError) and error.errno and error.filename:
        return _storage_error(error.errno, error.filename)
    return None


def _storage_error(code: int, path: str) -> StorageError:
    remedy = REMEDIES.get(code, "Check the path and the disk.")
    return StorageError(f"{path} cannot be read or written: {os.strerror(code)}. {remedy}")


def _of_memory(chain: list[BaseException]) -> DeviceMemoryError | None:
    for error in chain:
        if isinstance(error, MemoryError):
            return DeviceMemoryError(
                f"The memory of this computer is full{_reason(error)}. Set a smaller config.data."
                "num_workers, config.data.prefetch_batches or config.eval.batch_size."
            )
        if OUT_OF_MEMORY.match(str(error)):
            return DeviceMemoryError(
                f"The memory of the devices is full ({' '.join(str(error).split())[:160]}). In a "
                "training, set config.model.dtype=bfloat16, config.model.remat=blocks or a larger "
                "config.train.accumulation_steps; a smaller batch needs a new workdir. In dbae "
                "train_prior, set a smaller config.prior.batch_size; in other commands, a smaller "
                "config.eval.batch_size."
            )
    return None


def _of_processes(error: BaseException) -> LostProcessError | None:
    if not processes.is_loss(error):
        return None
    return LostProcessError(
        f"Process {jax.process_index()} of {jax.process_count()} stops: a step over all "
        "processes failed, most likely because a different process was lost "
        f"({' '.join(str(error).split())[:200]}). Start all of them again; the run resumes from "
        "its last checkpoint."
    )
