"""The data set that a config names: its splits as sources."""

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
    """Returns the "train" or "test" split of the config's data set: what its keys say they are.

    Raises:
      ConfigError: for an unknown data set or split.
      DataError: for one that is not prepared.
    """
    part = {"train": config.train_split, "test": config.test_split}[split]
    make = MADE.get(config.name)
    source = make(part, config.image_size) if make else _open(config, part)
    channels = source[0]["image"].shape[-1]
    if channels != config.channels:
        raise ConfigError(
            f"config.data.channels={config.channels} is not allowed: {config.name} has {channels}."
        )
    return source


def _open(config: DataConfig, split: str) -> Source:
    """Opens prepared data, or an LMDB file."""
    return prepared.open_source(
        config.name,
        data_dir=config.data_dir,
        lmdb=config.lmdb,
        split=split,
        crop=config.crop,
        image_size=config.image_size,
        channels=config.channels,
    )
