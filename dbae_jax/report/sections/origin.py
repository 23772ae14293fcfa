"""The origin of the page: weights, training, sampler, software, devices, date."""

import datetime
import pathlib
import platform
import subprocess
from typing import Any

import jax

import dbae_jax
from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.report import about
from dbae_jax.report.tables import NONE, Row
from dbae_jax.runtime import host
from dbae_jax.runtime.progress import duration
from dbae_jax.workdirs import checkpoint, workdir


def provenance(
    config: Config,
    directory: pathlib.Path,
    model: DBAE,
    command: about.Command,
    rows: list[dict[str, Any]],
) -> list[Row]:
    """Returns the origin of the model and of the page.

    Args:
      config: the current config.
      directory: the workdir.
      model: its model.
      command: writes commands of the workdir.
      rows: rows of metrics.jsonl.
    """
    assert model.step is not None  # models of workdirs have one
    meta = checkpoint.read_meta(directory, model.step)
    now = datetime.datetime.now(datetime.UTC)
    stochastic = "stochastic; the page uses the mean of q(z | x_0)"
    return [
        Row("training", [command("distill" if is_distilled(config) else "train")]),
        Row("time of training", [_training(rows)]),
        Row("weights", [f"EMA weights of step {model.step:,}, fingerprint {model.fingerprint}"]),
        *_start(config, meta.get(workdir.ORIGIN)),
        Row("encoder", [stochastic if config.model.stochastic else "deterministic"]),
        Row("sampler", [about.sampler(config, model)]),
        Row("seed", [f"{config.seed} in training, 0 for the random numbers of this page"]),
        Row("dbae_jax", [f"{dbae_jax.__version__}; {commit()}"]),
        Row("jax", [f"{jax.__version__}; in training {meta['jax']}"]),
        Row("python", [platform.python_version()]),
        Row("devices of this page", [devices()]),
        Row("this page", [command("report")]),
        Row("date", [now.strftime("%Y-%m-%d %H:%M UTC")]),
    ]


def _start(config: Config, origin: dict[str, Any] | None) -> list[Row]:
    """Returns the row about the model that a fine-tuned or distilled one started from."""
    if origin is None:
        return []
    whose = f"step {origin['step']:,} of {origin['name']}, fingerprint {origin['fingerprint']}"
    name = "teacher" if is_distilled(config) else "weights at the start"
    return [Row(name, [f"EMA weights of {whose}"])]


def _training(rows: list[dict[str, Any]]) -> str:
    seconds = [row["train_seconds"] for row in rows if "train_seconds" in row]
    speeds = sorted(row["images_per_second"] for row in rows if "images_per_second" in row)
    if not seconds:
        return NONE
    speed = f", {speeds[len(speeds) // 2]:.3g} images per second (median)" if speeds else ""
    return f"{duration(seconds[-1])}{speed}"


def commit() -> str:
    """Returns the git commit of the package, or a sentence that says why there is none."""
    folder = pathlib.Path(dbae_jax.__file__).parent
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h of %cs", "--", "."]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "git commit unknown, because git does not run here"
    if done.returncode or not done.stdout.strip():
        return "git commit unknown, because the package lies in no git repository"
    return f"git commit {done.stdout.strip()} when this page was made"


def devices() -> str:
    """Returns the number and the model of the devices; of a CPU also the number of cores."""
    there = jax.devices()
    if there[0].platform == "cpu":
        number = f"{len(there)} device{'s' * (len(there) > 1)}"
        return f"{host.processor()}, {host.cores()} cores, as {number} of JAX"
    return f"{len(there)} {about.TIMES} {there[0].device_kind}"
