"""The sources of the data set that a config names."""

import functools
from collections.abc import Callable

from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data import prepared, sources
from dbae_jax.data.shapes import ShapesSource
from dbae_jax.data.sources import Source
from dbae_jax.errors import ConfigError

# Data sets that are made in memory (`sources.IN_MEMORY`): (split, image_size) -> source.
MADE: dict[str, Callable[[str, int], Source]] = {
    "digits": sources.digits,
    "shapes": ShapesSource,
    "shapes_correlated": functools.partial(ShapesSource, sampler="correlated"),
}


def make_source(config: DataConfig, split: str) -> Source:
    """Returns the source of the training or test images of a config.

    Args:
      config: config.data; its keys train_split and test_split name the splits.
      split: "train" or "test".

    Raises:
      ConfigError: if the split is unknown, or the images have other channels than the config.
      DataError: if the data set is not prepared.
    """
    split_name = {"train": config.train_split, "test": config.test_split}[split]
    make = MADE.get(config.name)
    source = make(split_name, config.image_size) if make else _open(config, split_name)
    channels = source[0]["image"].shape[-1]
    if channels != config.channels:
        raise ConfigError(
            f"config.data.channels={config.channels} is not allowed: {config.name} has {channels} "
            f"channels; set config.data.channels={channels}."
        )
    return source


def _open(config: DataConfig, split: str) -> Source:
    """Opens a prepared data set, or the LMDB file that config.data.lmdb names."""
    return prepared.open_source(
        config.name,
        data_dir=config.data_dir,
        lmdb=config.lmdb,
        split=split,
        crop=config.crop,
        image_size=config.image_size,
        channels=config.channels,
    )
