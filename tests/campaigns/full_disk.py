"""Fills the disk at every part of what the commands write, then makes room and runs them again.

python -m tests.campaigns.full_disk --moments=8 --out=full_disk.json

Each command runs on a small tmpfs, which needs the right to mount. Before each trial the files are
those that the earlier commands leave, and the disk ends after a fraction of what the command
writes. The command must end with exit code 2 and one sentence that says that the disk is full, and
leave no temporary file. With room on the disk, the same command must then end as if nothing had
happened.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from tests.campaigns import outcomes
from tests.helpers.paths import ROOT

PAGE = 4096  # a tmpfs counts in pages
ROOM = 512 * 2**20


@contextlib.contextmanager
def small_disk() -> Iterator[pathlib.Path]:
    """Mounts a tmpfs in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        try:
            yield pathlib.Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def resize(disk: pathlib.Path, size: int) -> None:
    """Sets the size of a tmpfs in bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", "tmpfs", disk], check=True)


def used(disk: pathlib.Path) -> int:
    return shutil.disk_usage(disk).used


def run(disk: pathlib.Path, config: pathlib.Path, command: tuple[str, ...]) -> tuple[int, str]:
    """Returns the exit code and stderr of a command on the run in a disk."""
    name, *flags = command
    words = [sys.executable, "-m", "dbae_jax", name, f"--config={config}"]
    words += [f"--workdir={disk / 'run'}", *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr


def trial(
    disk: pathlib.Path,
    config: pathlib.Path,
    command: tuple[str, ...],
    snapshot: pathlib.Path,
    bytes_free: int,
    expected: dict[str, np.ndarray],
) -> dict:
    """Returns what a command did on a disk with some free bytes, and what it did with room."""
    resize(disk, ROOM)
    outcomes.restore(disk / "run", snapshot)
    # A size of 0 would be no limit.
    resize(disk, max(-(-(used(disk) + bytes_free) // PAGE), 1) * PAGE)
    code, said = run(disk, config, command)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    found = {
        "command": command[0],
        "free": bytes_free,
        "code": code,
        "sentence": last,
        "traceback": "Traceback" in said,
        "leftovers": outcomes.leftovers(disk),
    }
    resize(disk, ROOM)
    code, said = run(disk, config, command)
    found["again"] = code
    found["same"] = code == 0 and outcomes.same(expected, outcomes.of_run(disk / "run"))
    told = found["code"] == 2 and "is full" in last and not found["traceback"]
    found["right"] = (told or found["code"] == 0) and not found["leftovers"] and found["same"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=8, help="trials for each command")
    parser.add_argument("--only", default="", help="names of commands, with commas")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    found = []
    with small_disk() as disk, tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "tiny_run.py")
        config.write_text(outcomes.CONFIG)
        for number, command in enumerate(outcomes.COMMANDS):
            before = pathlib.Path(folder, str(number))
            if (disk / "run").exists():
                shutil.copytree(disk / "run", before)
            start = used(disk)
            resize(disk, ROOM)
            code, said = run(disk, config, command)
            assert code == 0, said
            written, expected = used(disk) - start, outcomes.of_run(disk / "run")
            after = pathlib.Path(folder, f"{number}-after")
            shutil.copytree(disk / "run", after)
            if not given.only or command[0] in given.only.split(","):
                for moment in range(given.moments):
                    free = int(written * moment / given.moments)
                    found.append(trial(disk, config, command, before, free, expected))
                    print(json.dumps(found[-1]), flush=True)
                    given.out.write_text(json.dumps(found, indent=2) + "\n")
            resize(disk, ROOM)
            outcomes.restore(disk / "run", after)
    print(f"{sum(each['right'] for each in found)} of {len(found)} trials ended right.")


if __name__ == "__main__":
    main()
