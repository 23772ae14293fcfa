"""A workdir: the folder of one run, with its config, checkpoints and records."""

import json
import logging
import pathlib
from typing import Any, NamedTuple

import jax

from dbae_jax.configuration import build, config_files, paths
from dbae_jax.configuration.config import Config, from_dict, to_dict, upgrade
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import files
from dbae_jax.runtime.platforms import platform_of
from dbae_jax.runtime.sharding import placed
from dbae_jax.workdirs import checkpoint
from dbae_jax.workdirs.train_state import TrainState

METRICS = "metrics.jsonl"
REPORT = "report.html"
CONFIG = config_files.SAVED_NAME

ORIGIN = "initialised_from"  # key in the meta of a fine-tuned or distilled model's checkpoints
RELEASED = "released"  # key in the meta of checkpoints that were made of released weights

LOGS = (".log", ".out", ".err")  # suffixes, such as those of nohup and SLURM

# Beginnings of the keys that must stay the same when a run is resumed or its model is read.
FIXED_SECTIONS = (
    *("seed", "data.", "model.", "bridge."),
    *("optim.optimizer", "train.batch_size", "train.objective"),
)
# The exceptions: keys of these sections that may change.
FREE_KEYS = (
    *(f"data.{key}" for key in ("data_dir", "lmdb", "num_threads", "num_workers")),
    "data.prefetch_batches",
    *(f"model.{key}" for key in ("dtype", "matmul_precision", "attention", "remat")),
    "model.unet.dropout",
)

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A model that was read from a workdir.

    Attributes:
      config: config of its training.
      networks: its networks.
      variables: its weights and running statistics.
      step: step of the checkpoint.
      data: identity of the training images (see `data.identity`); None for a run of a version that
        saved none.
    """

    config: Config
    networks: Networks
    variables: dict
    step: int
    data: dict[str, Any] | None


def check_usable(workdir: pathlib.Path) -> None:
    """Checks that a run can be started or resumed in a folder, which may be missing.

    Raises:
      CheckpointError: if the path is a file, or a folder with files that are not those of a run.
    """
    problem = files.obstacle(workdir / CONFIG)
    if problem:
        raise CheckpointError(f"--workdir={workdir} cannot be used: {problem}.")
    # As beginnings of names: a killed run may leave config.json.tmp alone.
    ours = (CONFIG, checkpoint.FOLDER, METRICS)
    there = [path.name for path in workdir.iterdir()] if workdir.is_dir() else []
    foreign = sorted(name for name in there if not _is_harmless(name))
    if foreign and not any(name.startswith(ours) for name in there):
        raise CheckpointError(
            f"--workdir={workdir} holds no run of dbae_jax but other files, such as {foreign[0]}; "
            "name an empty folder, or a new one such as "
            f"{workdir / 'run'}. Logs and hidden files may be there."
        )


def _is_harmless(name: str) -> bool:
    """Returns whether a file may be in a new workdir: a hidden file or a log."""
    return name.startswith(".") or name == "logs" or pathlib.Path(name).suffix in LOGS


def last_checkpoint(workdir: pathlib.Path) -> str:
    """Returns a sentence that names the newest checkpoint, or ""."""
    saved = checkpoint.steps(workdir)
    return f"The checkpoint of step {saved[-1]} in {workdir} is kept." if saved else ""


def check_exists(workdir: pathlib.Path) -> None:
    """Checks that a workdir has checkpoints.

    Raises:
      CheckpointError: if the workdir is missing or has no checkpoints.
    """
    if not workdir.is_dir():
        raise CheckpointError(
            f"The workdir {workdir} does not exist; {paths.nearest(workdir)}name the workdir of a "
            "trained model, or train one with dbae train."
        )
    if not checkpoint.steps(workdir):
        raise CheckpointError(
            f"The workdir {workdir} holds no checkpoint; {_meant(workdir)}name the workdir of a "
            "trained model, or train one with dbae train."
        )


def _meant(workdir: pathlib.Path) -> str:
    """Returns part of a sentence that names a workdir just above or below a folder, if any."""
    above = [workdir.resolve().parent, workdir.resolve().parent.parent]
    below = sorted(path for path in workdir.iterdir() if path.is_dir())
    near = next((path for path in (*above, *below) if checkpoint.steps(path)), None)
    return "" if near is None else f"did you mean {str(near)!r}? "


def check_same_model(
    workdir: pathlib.Path,
    saved: dict[str, Any],
    config: Config,
    fixed_keys: tuple[str, ...] = FIXED_SECTIONS,
) -> None:
    """Checks that a config fits the run in a workdir.

    Args:
      workdir: folder of the run.
      saved: config of the run.
      config: current config.
      fixed_keys: beginnings of the keys that must be equal; FREE_KEYS may differ.

    Raises:
      ConfigError: if keys differ; the error lists them with both values.
    """
    if is_distilled(config):  # its batch size has a key of its own, from which the other is set
        fixed_keys = tuple(key.replace("train.batch", "distill.batch") for key in fixed_keys)
    found = differing(saved, config, fixed_keys)
    if found:
        raise ConfigError(
            f"{workdir} holds a run with a different config: {', '.join(found)}. "
            "Change these keys back, or name a different --workdir."
        )


def differing(
    saved: dict[str, Any],
    config: Config,
    keys: tuple[str, ...],
    free_keys: tuple[str, ...] = FREE_KEYS,
    where: str = "in the workdir",
) -> list[str]:
    """Returns the differences of two configs, each as text.

    Each difference reads "key (value in the workdir, value in this command)".

    Args:
      saved: config of a run.
      config: current config.
      keys: beginnings of the keys to compare.
      free_keys: keys that are not compared.
      where: where the values of `saved` are, for the text.
    """
    there, now = _flatten(upgrade(saved)), _flatten(to_dict(config))
    fixed = [key for key in now | there if key.startswith(keys) and key not in free_keys]
    absent = "absent"
    return [
        f"{key} ({there.get(key, absent)!r} {where}, {now.get(key, absent)!r} in this command)"
        for key in fixed
        if there.get(key, absent) != now.get(key, absent)
    ]


def changes(workdir: pathlib.Path, config: Config) -> list[str]:
    """Returns how a config differs from the config.json of a workdir, see `differing`.

    Raises:
      CheckpointError: if config.json is damaged.
    """
    path = workdir / CONFIG
    if not path.is_file():
        return []
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return differing(saved, config, ("",), free_keys=())
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no valid config ({type(error).__name__}). Rename or delete it, and give "
            "--config; the next training writes it again."
        ) from error


def keep_config(workdir: pathlib.Path, step: int) -> None:
    """Keeps the config of the steps up to `step` in a file beside config.json."""
    kept = workdir / f"config_until_step_{step}.json"
    if not kept.exists():
        files.write_text(kept, (workdir / CONFIG).read_text(encoding="utf-8"))


def write_config(workdir: pathlib.Path, config: Config) -> None:
    """Writes the config with all overrides as JSON, for people to read."""
    files.write_json(workdir / CONFIG, to_dict(config))


def meta(config: Config, **extra: Any) -> dict[str, Any]:
    """Returns the item "meta" of a checkpoint: all that is needed to rebuild the model."""
    return {"config": to_dict(config), "jax": jax.__version__, **extra}


def resume(workdir: pathlib.Path, config: Config, abstract: TrainState) -> TrainState | None:
    """Returns the state of the newest readable checkpoint; None without checkpoints.

    Newer checkpoints, which cannot be read, are moved to the folder "torn" of the workdir.

    Args:
      workdir: folder of the run.
      config: current config, which must fit the run.
      abstract: shapes, dtypes and shardings of the state.

    Raises:
      ConfigError: if the config does not fit; no array is read then.
      CheckpointError: if there are checkpoints and none of them can be read.
    """

    def read(step: int) -> TrainState:
        check_same_model(workdir, checkpoint.read_meta(workdir, step)["config"], config)
        return checkpoint.read_state(workdir, step, abstract)

    found = checkpoint.newest_readable(workdir, read, move_unreadable=True)
    return None if found is None else found[1]


def load(
    workdir: pathlib.Path,
    weights: str = "ema",
    step: int | None = None,
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> Loaded:
    """Reads a model without the state of its optimizer.

    Args:
      workdir: folder of the run.
      weights: "ema" for the EMA weights, "raw" for the weights of the last training step.
      step: step of the checkpoint. Default: the newest checkpoint that can be read.
      sharding: sharding of the variables. Default: the first device.

    Raises:
      CheckpointError: if there is no checkpoint that can be read.
    """
    items = {"ema": "ema", "raw": "params"}
    if weights not in items:
        raise CheckpointError(f"weights={weights!r} is not allowed: it must be 'ema' or 'raw'.")
    check_exists(workdir)
    device = next(iter(sharding.device_set)) if sharding else jax.devices()[0]

    def read(at: int) -> Loaded:
        meta = checkpoint.read_meta(workdir, at)
        config = from_dict(upgrade(meta["config"]))
        networks = build.make_networks(config, platform_of(device))
        abstract = placed(jax.eval_shape(networks.init, jax.random.key(0)), sharding)
        variables = checkpoint.read_variables(workdir, at, items[weights], abstract)
        return Loaded(config, networks, variables, at, meta.get("data"))

    if step is not None:
        return read(step)
    found = checkpoint.newest_readable(workdir, read)
    assert found is not None  # `check_exists` has found a checkpoint
    return found[1]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as a flat one, such as {"model.latent_dim": 512, ...}."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
