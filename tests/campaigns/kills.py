"""Kills commands (kill -9) at random moments, then runs them again and compares what they leave.

python -m tests.campaigns.kills --kills=100 --out=kills.json

In each trial a command starts from the files that the earlier commands leave. It is killed one to
three times, each time after a random part of the seconds that it takes, and then runs to its end.
What it leaves must be equal, bit for bit, to what it leaves when nobody kills it, and there must be
no temporary file.
"""

import argparse
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tests.campaigns import outcomes
from tests.helpers.paths import ROOT

MOST_KILLS_PER_TRIAL = 3
NUM_PICTURES = 600


class Case(NamedTuple):
    """A command and what it works on.

    Attributes:
      name: name of the command.
      words: the command.
      folder: folder that it writes.
      outcome: returns what must be the same, from this folder.
    """

    name: str
    words: list[str]
    folder: pathlib.Path
    outcome: Callable[[pathlib.Path], dict[str, np.ndarray]]


def cases(root: pathlib.Path) -> list[Case]:
    """Returns the commands in the order in which they need each other."""
    config, run, source = root / "tiny_run.py", root / "run", root / "pictures"
    config.write_text(outcomes.CONFIG)
    write_pictures(source)
    found = [
        Case(
            name,
            ["dbae_jax", name, f"--config={config}", f"--workdir={run}", *flags],
            run,
            outcomes.of_run,
        )
        for name, *flags in outcomes.COMMANDS
    ]
    sharp, prepare = root / "sharp", ["dbae_jax.data.prepare", "--dataset=folder"]
    prepare += [f"--source={source}"]
    distill = ["dbae_jax", "distill", f"--config={config}", f"--workdir={sharp}"]
    return [
        *found,
        Case("distill", [*distill, f"--teacher={run}"], sharp, outcomes.of_run),
        Case("prepare", [*prepare, f"--data_dir={root / 'data'}"], root / "data", prepared),
    ]


def write_pictures(folder: pathlib.Path) -> None:
    """Writes pictures of noise, which take a moment to prepare."""
    rng = np.random.default_rng(0)
    for index in range(NUM_PICTURES):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(path)


def prepared(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns hashes of the examples of a prepared data set, in their order, and of its files.

    Of the shards only the examples count, because TFDS writes the entries of an example in an order
    of their own in every process. The record of the preparation holds hashes of the shards.
    """
    found = {
        name: digest
        for name, digest in outcomes.of_files(folder).items()
        if not name.endswith("preparation.json") and ".array_record-" not in name
    }
    for file in folder.rglob("dataset_info.json"):
        builder = tfds.builder_from_directory(file.parent)
        for split in builder.info.splits:
            for index, example in enumerate(builder.as_data_source(split)):
                values = repr([(k, np.asarray(v).tobytes()) for k, v in sorted(example.items())])
                digest = hashlib.sha256(values.encode()).digest()
                found[f"{split}/{index}"] = np.frombuffer(digest, np.uint8)
    return found


def start(case: Case, log: pathlib.Path) -> subprocess.Popen:
    """Starts a command; what it says goes to a file."""
    with log.open("ab") as file:
        words = [sys.executable, "-m", *case.words]
        return subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file)


def trial(
    case: Case,
    before: pathlib.Path,
    seconds: float,
    expected: dict[str, np.ndarray],
    rng: random.Random,
    log: pathlib.Path,
) -> dict:
    """Returns at which seconds a command was killed, and whether it then ended right."""
    outcomes.restore(case.folder, before)
    log.write_bytes(b"")
    killed_after = []
    for _ in range(rng.randint(1, MOST_KILLS_PER_TRIAL)):
        process, wait = start(case, log), rng.uniform(0, seconds)
        time.sleep(wait)
        process.kill()
        if process.wait() == 0:  # it was faster this time
            break
        killed_after.append(round(wait, 2))
    code = start(case, log).wait()
    right = code == 0 and outcomes.same(expected, case.outcome(case.folder))
    left = outcomes.leftovers(case.folder)
    found = {"command": case.name, "killed_after": killed_after, "code": code, "leftovers": left}
    return found | {"right": right and not left, "said": "" if right else log.read_text()[-2000:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of commands, with commas")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    rng, found = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as folder:
        root, log = pathlib.Path(folder), pathlib.Path(folder, "log")
        all_cases = cases(root)
        wanted = given.only.split(",") if given.only else [case.name for case in all_cases]
        share = -(-given.kills // len(wanted))
        for case in all_cases:
            before, after = root / f"before-{case.name}", root / f"after-{case.name}"
            if case.folder.exists():
                outcomes.restore(before, case.folder)
            begun = time.monotonic()
            assert start(case, log).wait() == 0, log.read_text()
            seconds, expected = time.monotonic() - begun, case.outcome(case.folder)
            outcomes.restore(after, case.folder)
            kills = 0
            while case.name in wanted and kills < share:
                found.append(trial(case, before, seconds, expected, rng, log))
                kills += len(found[-1]["killed_after"])
                print(json.dumps(found[-1]), flush=True)
                given.out.write_text(json.dumps(found, indent=2) + "\n")
            outcomes.restore(case.folder, after)
    kills = sum(len(each["killed_after"]) for each in found)
    right = sum(each["right"] for each in found)
    print(f"{kills} kills in {len(found)} trials, of which {right} ended right.")


if __name__ == "__main__":
    main()
