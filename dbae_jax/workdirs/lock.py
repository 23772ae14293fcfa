"""The lock of a workdir: one command at a time writes a run."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dbae_jax.errors import WorkdirInUseError
from dbae_jax.runtime import processes
from dbae_jax.runtime.buckets import access, lease

FILE = ".lock"

# What a file system without locks answers.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if missing.

    The kernel, or the server of a shared file system, keeps the lock: it ends with the process that
    holds it, however that process ends. In a bucket it ends then, or a minute later; see `lease`.
    Process 0 of a run holds it for all.

    Args:
      directory: folder of the run.

    Raises:
      WorkdirInUseError: on every process, if another command holds the lock; the error says which.
    """
    with contextlib.ExitStack() as stack:
        holder = processes.from_writer(lambda: _acquire(directory, stack))
        if holder:
            raise WorkdirInUseError(
                f"The workdir {directory} is in use: {holder}. Wait for it or stop it, or name "
                "another --workdir."
            )
        yield


def _acquire(directory: pathlib.Path, stack: contextlib.ExitStack) -> str:
    """Takes the lock and lets the stack release it, or returns who holds it."""
    if access.is_bucket(directory):
        return _in_words(lease.acquire(directory, _about(), stack))
    path = directory / FILE
    while True:
        made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a+"))
        except FileNotFoundError:
            continue  # the last holder has removed the empty folder in the meantime
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            return _in_words(file.read() or "{}")
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            log.warning(
                "The file system of %s has no locks (%s): make sure that no other command writes "
                "into this workdir.",
                *(directory, error.strerror),
            )
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break  # otherwise the last holder has removed the file in the meantime
    stack.callback(_release, path, made)
    file.truncate(0)
    file.write(json.dumps(_about()))
    file.flush()
    return ""


def _about() -> dict[str, Any]:
    """Returns who this process is, for others that want the lock."""
    about = {"host": socket.gethostname(), "process": os.getpid(), "command": sys.argv}
    return about | {"since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}


def _in_words(text: str) -> str:
    """Returns who holds the lock, for the text in the lock; "" for nobody."""
    if not text:
        return ""
    try:
        about = json.loads(text)
        return (
            f"process {about['process']} on host {about['host']} has held its lock since "
            f"{about['since']} ({' '.join(about['command'])})"
        )
    except (ValueError, LookupError, TypeError):
        return "another process holds its lock"


def _release(path: pathlib.Path, made: list[pathlib.Path]) -> None:
    """Removes the file, while the lock is held, and the folders that were made and stayed empty."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds a run
        for folder in made:
            folder.rmdir()
