"""Opens the trained model of a workdir, with its EMA weights, on all devices."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from dbae_jax.api import directions
from dbae_jax.api.dbae import DBAE
from dbae_jax.api.directions import CACHE
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data import registry
from dbae_jax.data.sources import Source
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation.context import Context
from dbae_jax.prior import prior
from dbae_jax.runtime import sharding
from dbae_jax.workdirs import workdir

# Keys that must agree with the training run if a command uses a model on any data.
OF_MODEL = ("model.", "bridge.", "data.image_size", "data.channels", "train.objective")


class Opened(NamedTuple):
    """A model with the config of the command, and what its training run had.

    Attributes:
      model: the model.
      trained: config of the training run.
      data: identity of its training images, or None; see `workdir.Loaded`.
    """

    model: DBAE
    trained: Config
    data: dict[str, Any] | None


def open_model(
    config: Config | None,
    directory: pathlib.Path,
    same_keys: tuple[str, ...] = workdir.FIXED_SECTIONS,
    *,
    whole_batches: bool = False,
) -> Opened:
    """Reads the newest checkpoint of a workdir.

    Args:
      config: config of the command, whose batch size and number formats apply; None for the
        config of the training.
      directory: the workdir.
      same_keys: prefixes of the keys that must have the values of the training run.
      whole_batches: see `DBAE`.

    Raises:
      CheckpointError: if the workdir holds no model.
      ConfigError: if such a key has a different value, or if a distilled model is opened with the
        config of another training.
    """
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    config = loaded.config if config is None else config
    if is_distilled(loaded.config) and not is_distilled(config):
        raise ConfigError(
            f"The model in {directory} is distilled, and this config is not that of a "
            "distillation. Leave --config out: then the config in the workdir is read. Keys may "
            "still be changed, as in --config.data.name=lfw."
        )
    workdir.check_same_model(directory, to_dict(loaded.config), config, same_keys)
    weights = {"step": loaded.step, "weights": "ema"}
    model = DBAE(
        config,
        loaded.variables,
        whole_batches=whole_batches,
        mesh=mesh,
        step=loaded.step,
        source=f"EMA weights of {directory}",
        load_prior=functools.partial(prior.load, directory, weights, mesh=mesh),
        load_directions=functools.partial(directions.load, directory, config.data.name),
    )
    return Opened(model, loaded.config, loaded.data)


def make_context(model: DBAE, directory: pathlib.Path) -> Context:
    """Returns a context of a model, the splits of its config's data, and the workdir's cache.

    Raises:
      ConfigError, DataError: if the data are missing or have a different size than the model.
    """
    config = model.config
    splits = open_splits(config)
    if config.eval.validation_split:
        named = dataclasses.replace(config.data, test_split=config.eval.validation_split)
        splits["validation"] = registry.make_source(named, "test")
    return Context(model, config, splits, cache=directory / CACHE)


def open_splits(config: Config) -> dict[str, Source]:
    """Returns the "train" and "test" splits of a config's data."""
    splits = {split: registry.make_source(config.data, split) for split in ("train", "test")}
    registry.describe(config.data, splits)
    return splits
