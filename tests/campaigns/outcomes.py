"""What must be the same after a command, whatever happened to it before it was run again."""

import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np

from dbae_jax.workdirs import checkpoint, records, workdir

CONFIG = """
from tests.helpers import tiny


def get_config():
    c = tiny.config_dict()
    c.train.picture_every_steps = 2
    c.eval.suite = "reconstruction,probe"
    c.eval.num_train_images = 64
    c.distill.num_steps = 4
    c.distill.batch_size = 8
    c.distill.stages = 2
    return c
"""
# Commands with a workdir, in the order in which they need each other.
COMMANDS = (
    ("train",),
    ("train_prior",),
    ("evaluate",),
    ("sample", "--num=8"),
    ("report",),
)
CLOCKED = ("second", "seconds", "wait_share")  # ends of names of figures that vary


def of_run(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the weights, losses, scores and samples of a workdir, by name."""
    found = {}
    if checkpoint.steps(directory):
        for which in ("raw", "ema"):
            variables = workdir.load(directory, which).variables
            for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
                found[which + jax.tree_util.keystr(path)] = np.asarray(leaf)
    for folder in (directory, directory / "prior"):
        rows = [
            {name: value for name, value in row.items() if not name.endswith(CLOCKED)}
            for row in records.read(folder)
        ]
        found[f"records of {folder.name}"] = _bytes(json.dumps(rows).encode())
    for path in sorted((directory / "samples").glob("*.png")):
        found[path.name] = _bytes(path.read_bytes())
    results = directory / "results.json"
    if results.exists():
        for suite, entry in json.loads(results.read_text())["results"].items():
            for score, value in entry["scores"].items():
                found[f"{suite}/{score}"] = np.array(value["value"], np.float64)
    return found


def of_files(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the hash of each file in a folder, by path."""
    return {
        str(path.relative_to(directory)): _bytes(hashlib.sha256(path.read_bytes()).digest())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Returns whether two outcomes are equal, bit for bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f")
        for name in first
    )


def leftovers(directory: pathlib.Path) -> list[str]:
    """Returns the temporary files below a folder."""
    return [str(path.relative_to(directory)) for path in directory.rglob("*") if "tmp" in path.name]


def restore(directory: pathlib.Path, snapshot: pathlib.Path) -> None:
    """Makes the files of a folder those of a snapshot; without a snapshot there are none."""
    shutil.rmtree(directory, ignore_errors=True)
    if snapshot.exists():
        shutil.copytree(snapshot, directory)


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
