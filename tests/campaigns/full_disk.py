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

import jax
import numpy as np

from dbae_jax.workdirs import workdir
from tests.helpers.paths import ROOT

CONFIG = """
from tests.helpers import tiny


def get_config():
    c = tiny.config_dict()
    c.train.picture_every_steps = 2
    c.eval.suite = "reconstruction,probe"
    c.eval.num_train_images = 64
    return c
"""
COMMANDS = (
    ("train",),
    ("train_prior",),
    ("evaluate",),
    ("sample", "--num=8"),
    ("report",),
)
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


def restore(disk: pathlib.Path, snapshot: pathlib.Path) -> None:
    """Makes the files of a disk those of a snapshot."""
    resize(disk, ROOM)
    shutil.rmtree(disk / "run", ignore_errors=True)
    if snapshot.exists():
        shutil.copytree(snapshot, disk / "run")


def leftovers(disk: pathlib.Path) -> list[str]:
    """Returns the temporary files on a disk."""
    return [str(path.relative_to(disk)) for path in disk.rglob("*") if "tmp" in path.name]


def outcome(run_folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns what must be the same with and without a full disk: weights, scores, samples."""
    found = {}
    for name in ("", "prior"):
        if (run_folder / name / "checkpoints").is_dir() and name == "":
            variables = workdir.load(run_folder).variables
            leaves = jax.tree_util.tree_leaves_with_path(variables)
            found |= {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    for path in sorted((run_folder / "samples").glob("*.png")):
        found[path.name] = np.frombuffer(path.read_bytes(), np.uint8)
    results = run_folder / "results.json"
    if results.exists():
        for suite, entry in json.loads(results.read_text())["results"].items():
            for score, value in entry["scores"].items():
                found[f"{suite}/{score}"] = np.array(value["value"], np.float64)
    return found


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in first
    )


def trial(
    disk: pathlib.Path,
    config: pathlib.Path,
    command: tuple[str, ...],
    snapshot: pathlib.Path,
    bytes_free: int,
    expected: dict[str, np.ndarray],
) -> dict:
    """Returns what a command did on a disk with some free bytes, and what it did with room."""
    restore(disk, snapshot)
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
        "leftovers": leftovers(disk),
    }
    resize(disk, ROOM)
    code, said = run(disk, config, command)
    found["again"] = code
    found["same"] = code == 0 and same(expected, outcome(disk / "run"))
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
        config.write_text(CONFIG)
        for number, command in enumerate(COMMANDS):
            before = pathlib.Path(folder, str(number))
            if (disk / "run").exists():
                shutil.copytree(disk / "run", before)
            start = used(disk)
            resize(disk, ROOM)
            code, said = run(disk, config, command)
            assert code == 0, said
            written, expected = used(disk) - start, outcome(disk / "run")
            after = pathlib.Path(folder, f"{number}-after")
            shutil.copytree(disk / "run", after)
            if not given.only or command[0] in given.only.split(","):
                for moment in range(given.moments):
                    free = int(written * moment / given.moments)
                    found.append(trial(disk, config, command, before, free, expected))
                    print(json.dumps(found[-1]), flush=True)
                    given.out.write_text(json.dumps(found, indent=2) + "\n")
            restore(disk, after)
    print(f"{sum(each['right'] for each in found)} of {len(found)} trials ended right.")


if __name__ == "__main__":
    main()
