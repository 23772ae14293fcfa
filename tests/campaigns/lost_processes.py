"""Loses one of two processes of a training at random moments: killed, stopped, or cut off.

python -m tests.campaigns.lost_processes --moments=10 --out=lost_processes.json

Each runs in a network namespace of its own, which needs root and the program `ip`. At a random
moment it is killed (SIGKILL), stopped (SIGSTOP), or its network is cut. Process 0 must end by
itself with code 76, or with SIGABRT if jax's own watch is first, and say that a process was lost.
Both are then started again and must end as if nothing had happened, bit for bit.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from dbae_jax.workdirs import checkpoint
from tests.campaigns import outcomes
from tests.helpers.paths import ROOT

# Where jax would look for other devices, it would wait for networks that are not there.
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}
HERE, THERE, LINK = "dbae-process0", "dbae-process1", "dbae-link"
ADDRESSES = {HERE: "10.213.0.1", THERE: "10.213.0.2"}
PORTS = (20_000, 30_000)
STEPS, PATIENCE_SECONDS = 150, 600
CONFIG = """
from tests.helpers import tiny


def get_config():
    c = tiny.config_dict()
    c.train.num_steps = {steps}
    c.train.log_every_steps = 10
    c.checkpoint.every_steps = 10
    return c
"""
WAYS = ("killed", "stopped", "cut off")


class Pair(NamedTuple):
    """The two processes of a run."""

    here: subprocess.Popen
    there: subprocess.Popen


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Makes a network namespace for each process, and a link between them."""
    try:
        for name, address in ADDRESSES.items():
            # gloo, which connects the CPUs of both, listens at the address of the host's name.
            hosts = pathlib.Path("/etc/netns", name, "hosts")
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", HERE, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", THERE)
        for name, address in ADDRESSES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")
        yield
    finally:
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "delete", name], check=False)
            shutil.rmtree(pathlib.Path("/etc/netns", name), ignore_errors=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def start(config: pathlib.Path, workdir: pathlib.Path, port: int) -> Pair:
    """Starts both processes; what each says goes to a file beside the workdir."""
    words = [sys.executable, "-m", "dbae_jax", "train", f"--config={config}"]
    words += [f"--workdir={workdir}", f"--coordinator={ADDRESSES[HERE]}:{port}"]
    started = []
    for index, name in enumerate(ADDRESSES):
        command = ["ip", "netns", "exec", name, *words, "--num_processes=2"]
        with workdir.with_name(f"process{index}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [*command, f"--process_id={index}"],
                    cwd=ROOT,
                    env=ENVIRONMENT,
                    stdout=log,
                    stderr=log,
                )
            )
    return Pair(*started)


def lose(way: str, process: subprocess.Popen) -> None:
    """Loses process 1."""
    if way == "cut off":
        ip("-n", HERE, "link", "set", LINK, "down")
    else:
        process.send_signal(signal.SIGKILL if way == "killed" else signal.SIGSTOP)


def end(pair: Pair) -> None:
    """Ends what is left of a run, and connects the network again."""
    for process in pair:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
    ip("-n", HERE, "link", "set", LINK, "up")


def wait(process: subprocess.Popen) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE_SECONDS)
    return None


def trial(way: str, config: pathlib.Path, root: pathlib.Path, expected: dict, rng) -> dict:
    """Returns what process 0 did when process 1 was lost, and whether the restart was exact."""
    workdir, log = root / "run", root / "process0.log"
    outcomes.restore(workdir, root / "nothing")
    pair, begun = start(config, workdir, rng.randint(*PORTS)), time.monotonic()
    while not checkpoint.steps(workdir):
        assert pair.here.poll() is None and time.monotonic() - begun < PATIENCE_SECONDS, (
            log.read_text()
        )
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 3))
    lose(way, pair.there)
    begun = time.monotonic()
    code = wait(pair.here)
    seconds, said = time.monotonic() - begun, log.read_text()
    reached = checkpoint.steps(workdir)[-1]
    end(pair)
    again = start(config, workdir, rng.randint(*PORTS))
    codes = [wait(process) for process in again]
    exact = codes == [0, 0] and outcomes.same(expected, outcomes.of_run(workdir))
    told = (code == 76 and "error: Process 0 of 2 stops: " in said) or (
        code == -signal.SIGABRT and "task" in said
    )
    return {
        "way": way,
        "step": reached,
        "code": code,
        "seconds": round(seconds, 1),
        "told": told,
        "exact": exact,
        "said": "" if told and exact else said[-1500:] + log.read_text()[-1500:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    rng, found = random.Random(given.seed), []
    with namespaces(), tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        config = root / "tiny_run.py"
        config.write_text(CONFIG.format(steps=STEPS))
        whole = start(config, root / "run", rng.randint(*PORTS))
        codes = [wait(process) for process in whole]
        assert codes == [0, 0], (root / "process0.log").read_text()
        expected = outcomes.of_run(root / "run")
        for moment in range(given.moments):
            found.append(trial(WAYS[moment % len(WAYS)], config, root, expected, rng))
            print(json.dumps(found[-1]), flush=True)
            given.out.write_text(json.dumps(found, indent=2) + "\n")
    right = sum(each["told"] and each["exact"] for each in found)
    print(
        f"{right} of {len(found)} losses ended right; process 0 ended after "
        f"{min(each['seconds'] for each in found)} to {max(each['seconds'] for each in found)} s."
    )


if __name__ == "__main__":
    main()
