"""What a workdir holds: one run, its config, checkpoints and records; whose model it is."""

import logging
import pathlib
from typing import Any, NamedTuple

import jax

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, from_dict, to_dict, upgrade
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import files
from dbae_jax.workdirs import checkpoint
from dbae_jax.workdirs.train_state import TrainState

METRICS = "metrics.jsonl"
CONFIG = "config.json"

# A run may go on with other values of these; all other keys of the sections below are fixed.
FIXED_SECTIONS = ("seed", "data.", "model.", "bridge.", "optim.optimizer", "train.batch_size")
FREE_KEYS = (
    *(f"data.{key}" for key in ("data_dir", "lmdb", "num_threads", "num_workers")),
    "data.prefetch_batches",
    *(f"model.{key}" for key in ("dtype", "matmul_precision", "attention", "remat")),
    "model.unet.dropout",
)

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A model read from a workdir: its config, networks and variables, and the step."""

    config: Config
    networks: Networks
    variables: dict
    step: int


def check_usable(workdir: pathlib.Path) -> None:
    """Refuses a path where no workdir can be.

    Raises:
      CheckpointError: if it is a file, or a folder that holds something else than a run.
    """
    problem = files.obstacle(workdir / CONFIG)
    if problem:
        raise CheckpointError(f"--workdir={workdir} cannot be used: {problem}.")
    ours = (CONFIG, checkpoint.FOLDER, METRICS)  # or the beginning of a killed run's first file
    there = [path.name for path in workdir.iterdir()] if workdir.is_dir() else []
    if there and not any(name.startswith(ours) for name in there):
        raise CheckpointError(
            f"--workdir={workdir} holds files but no run of dbae_jax; name an empty folder."
        )


def check_exists(workdir: pathlib.Path) -> None:
    """Refuses a workdir without checkpoints.

    Raises:
      CheckpointError: if it is missing or holds none.
    """
    if not workdir.is_dir():
        raise CheckpointError(f"The workdir {workdir} does not exist; train a model there first.")
    if not checkpoint.steps(workdir):
        raise CheckpointError(
            f"The workdir {workdir} holds no checkpoint; train a model there first."
        )


def check_same_model(
    workdir: pathlib.Path,
    saved: dict[str, Any],
    config: Config,
    fixed_keys: tuple[str, ...] = FIXED_SECTIONS,
) -> None:
    """Refuses a config that does not fit the run in a workdir.

    Args:
      workdir: the run's folder.
      saved: config of the run.
      config: of now.
      fixed_keys: beginnings of the keys that must agree, FREE_KEYS aside.

    Raises:
      ConfigError: listing the keys that differ and both values.
    """
    found = differing(saved, config, fixed_keys)
    if found:
        raise ConfigError(
            f"{workdir} holds a run of another config: {', '.join(found)}. "
            "Put these keys back, or name another --workdir."
        )


def differing(saved: dict[str, Any], config: Config, keys: tuple[str, ...]) -> list[str]:
    """Returns what differs between two configs, "key (value there, value now)" each.

    Args:
      saved: config of a run.
      config: of now.
      keys: beginnings of the keys to compare, FREE_KEYS aside.
    """
    there, now = _flatten(upgrade(saved)), _flatten(to_dict(config))
    fixed = [key for key in now | there if key.startswith(keys) and key not in FREE_KEYS]
    absent = "absent"
    return [
        f"{key} ({there.get(key, absent)!r} there, {now.get(key, absent)!r} now)"
        for key in fixed
        if there.get(key, absent) != now.get(key, absent)
    ]


def write_config(workdir: pathlib.Path, config: Config) -> None:
    """Writes the resolved config as JSON, for people to read."""
    files.write_json(workdir / CONFIG, to_dict(config))


def meta(config: Config, **extra: Any) -> dict[str, Any]:
    """Returns what is saved beside the arrays of a checkpoint: all that rebuilds the model."""
    return {"config": to_dict(config), "jax": jax.__version__, **extra}


def resume(workdir: pathlib.Path, config: Config, abstract: TrainState) -> TrainState | None:
    """Returns the state of the newest readable checkpoint, or None where there is none.

    Torn checkpoints newer than it are moved to the workdir's folder "torn".

    Args:
      workdir: the run's folder.
      config: must fit the run's.
      abstract: shapes, dtypes and shardings of the state.

    Raises:
      ConfigError: if the config does not fit, before any array is read.
      CheckpointError: if there are checkpoints and none can be read.
    """

    def read(step: int) -> TrainState:
        check_same_model(workdir, checkpoint.read_meta(workdir, step)["config"], config)
        return checkpoint.read_state(workdir, step, abstract)

    found = checkpoint.newest_readable(workdir, read, move_torn=True)
    return None if found is None else found[1]


def load(
    workdir: pathlib.Path,
    weights: str = "ema",
    step: int | None = None,
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> Loaded:
    """Reads a model, without its optimizer.

    Args:
      workdir: the run's folder.
      weights: "ema", the averaged weights, or "raw".
      step: of the checkpoint; default the newest that can be read.
      sharding: of the variables; default the first device.

    Raises:
      CheckpointError: if there is nothing that can be read.
    """
    items = {"ema": "ema", "raw": "params"}
    if weights not in items:
        raise CheckpointError(f"weights={weights!r} is not allowed: it must be 'ema' or 'raw'.")
    check_exists(workdir)
    device = next(iter(sharding.device_set)) if sharding else jax.devices()[0]

    def read(at: int) -> Loaded:
        config = from_dict(upgrade(checkpoint.read_meta(workdir, at)["config"]))
        networks = build.make_networks(build.computable(config, device.platform))
        abstract = placed(jax.eval_shape(networks.init, jax.random.key(0)), sharding)
        variables = checkpoint.read_variables(workdir, at, items[weights], abstract)
        return Loaded(config, networks, variables, at)

    if step is not None:
        return read(step)
    return checkpoint.newest_readable(workdir, read)[1]


def placed(abstract: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    """Gives every leaf of an abstract tree a sharding (default: the first device)."""
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
    )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns `{"model.latent_dim": 512, ...}` for nested dictionaries."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
