"""The lock of a folder in a bucket, where no kernel and no server keeps locks.

The holder has two objects in the folder: a claim, which says who it is, and a sign of life, which
it replaces every `BEAT` seconds. Who wants the lock and finds a claim watches its sign: one that
stays the same for `SILENCE` seconds is of a process that has ended. On the same machine the process
itself is looked up. The claim of such a process is removed, and its sign is read once more.

There are never two holders. Each puts its claim before it looks for others, so the later one sees
the earlier one. A holder that was only stopped for a while replaces its sign before it looks for
its claim; whoever took the lock over removed the claim before reading the sign. So one of the two
sees the other, and gives up.
"""

import contextlib
import json
import logging
import os
import pathlib
import secrets
import sys
import threading
import time
from typing import Any

from dbae_jax.errors import WorkdirInUseError

BEAT, SILENCE = 10.0, 60.0  # seconds
LOOKS = 30  # at a sign, in this time of silence
ATTEMPTS = 3  # of commands that start at the same moment, and all give up
CLAIM, SIGN = ".lock-", ".alive-"  # beginnings of the objects' names

log = logging.getLogger(__name__)


def acquire(folder: pathlib.Path, about: dict[str, Any], stack: contextlib.ExitStack) -> str:
    """Takes the lock and lets the stack release it, or returns who holds it.

    Args:
      folder: folder in a bucket.
      about: who takes the lock, in JSON types, see `lock.describe`.
      stack: releases the lock when it is closed.
    """
    for _ in range(ATTEMPTS):
        for claim in _claims(folder):
            if holder := _end(claim):
                return holder
        own = _Lease(folder, about | _process())
        others = [claim for claim in _claims(folder) if claim.name != own.claim.name]
        if not others:
            stack.callback(own.release)
            own.keep_alive()
            return ""
        own.release()
        time.sleep(secrets.randbelow(1000) / 1000)
    return _read(others[0]) or "{}"


class _Lease:
    """The claim and the sign of life of this process."""

    def __init__(self, folder: pathlib.Path, about: dict[str, Any]):
        token = secrets.token_hex(8)
        self.claim, self._sign = folder / f"{CLAIM}{token}", folder / f"{SIGN}{token}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._put_sign()
        self.claim.write_text(json.dumps(about))

    def keep_alive(self) -> None:
        """Starts to replace the sign."""
        self._thread.start()

    def release(self) -> None:
        """Removes the claim and the sign."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(BEAT)
        self.claim.unlink(missing_ok=True)
        self._sign.unlink(missing_ok=True)

    def _put_sign(self) -> None:
        self._sign.write_text(secrets.token_hex(8))

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._put_sign()
                lost = not self.claim.exists()
            except Exception as error:  # of the network: others take it for a silence
                log.info("The lock %s could not be renewed (%s).", self.claim, error)
                continue
            if lost and not self._stop.is_set():
                self._sign.unlink(missing_ok=True)
                _give_up(self.claim.parent)


def _give_up(folder: pathlib.Path) -> None:
    """Ends this process, because another one writes into the folder."""
    print(
        f"error: The lock of {folder} is gone: either this process could not renew it for more "
        f"than {SILENCE:.0f} seconds and another command took it over, or it was deleted. This "
        "command ends, because two commands that write the same run would damage it. Start it "
        "again when no other command uses the workdir.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(WorkdirInUseError.exit_code)


def _claims(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith(CLAIM)]
    except FileNotFoundError:
        return []


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _end(claim: pathlib.Path) -> str:
    """Removes the claim of a process that has ended; otherwise returns what the claim says."""
    sign = claim.with_name(claim.name.replace(CLAIM, SIGN, 1))
    text, seen = _read(claim), _read(sign)
    if text is None:  # released in the meantime
        return ""
    runs = _runs_here(text)
    if runs is None:
        log.info(
            "%s is locked. Waiting for up to %.0f seconds to see whether the process that holds "
            "the lock still runs.",
            *(claim.parent, SILENCE),
        )
        runs = _is_renewed(sign, seen)
    if not runs:
        claim.unlink(missing_ok=True)
        runs = _read(sign) not in (seen, None)
    if runs:
        return text or "{}"
    sign.unlink(missing_ok=True)
    return ""


def _is_renewed(sign: pathlib.Path, seen: str | None) -> bool:
    """Watches a sign of life, and returns whether it was replaced."""
    for _ in range(LOOKS):
        time.sleep(SILENCE / LOOKS)
        if (now := _read(sign)) != seen:
            return now is not None  # None: the lock was released
    return False


def _process() -> dict[str, Any]:
    """Returns what tells others on this machine whether this process still runs."""
    return {"machine": _machine(), "process": os.getpid(), "started": _started(os.getpid())}


def _runs_here(text: str) -> bool | None:
    """Returns whether the process of a claim runs; None if it is not of this machine."""
    try:
        about = json.loads(text)
        here = about["machine"] is not None and about["machine"] == _machine()
        return about["started"] == _started(about["process"]) if here else None
    except (ValueError, LookupError, TypeError):
        return None


def _machine() -> str | None:
    """Returns what processes have in common that can look each other up; None if unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(process: int) -> str | None:
    """Returns when a process of this machine was started; None if it has ended."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if status[0] in "ZX" else status[19]  # zombies have ended
