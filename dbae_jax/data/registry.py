"""The sources of the data set that a config names."""

import functools
import logging
from collections.abc import Callable, Mapping

from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data import prepared, sources
from dbae_jax.data.shapes import ShapesSource
from dbae_jax.data.sources import Source
from dbae_jax.errors import ConfigError

log = logging.getLogger(__name__)

# Data sets that are made in memory (`sources.IN_MEMORY`): (split, image_size) -> source.
MADE: dict[str, Callable[[str, int], Source]] = {
    "digits": sources.digits,
    "shapes": ShapesSource,
    "shapes_correlated": functools.partial(ShapesSource, sampler="correlated"),
}


def make_source(config: DataConfig, split: str) -> Source:
    """Returns the source of the training or test images of a config.

    A prepared data set without a split "test" has a source for it all the same: that of the
    training images, with a warning. Computations on held-out images find that both share images.

    Args:
      config: config.data; its keys train_split and test_split name the splits.
      split: "train" or "test".

    Raises:
      ConfigError: if the split is unknown, or the images have other channels than the config.
      DataError: if the data set is not prepared.
    """
    split_name = {"train": config.train_split, "test": config.test_split}[split]
    if split == "test" and not has_test(config):
        split_name = config.train_split
        log.warning(
            "%s has no split 'test': training images take its place, and suites that need images "
            "of their own do not apply. Hold some out with --config.data.train_split='train[:90%%]'"
            " --config.data.test_split='train[90%%:]'.",
            config.name,
        )
    make = MADE.get(config.name)
    source = make(split_name, config.image_size) if make else _open(config, split_name)
    channels = source[0]["image"].shape[-1]
    if channels != config.channels:
        raise ConfigError(
            f"config.data.channels={config.channels} is not allowed: {config.name} has {channels} "
            f"channels; set config.data.channels={channels}."
        )
    return source


def describe(config: DataConfig, splits: Mapping[str, Source]) -> None:
    """Logs what a command reads: images by split, classes, attributes, and what is done to them.

    Args:
      config: config.data.
      splits: sources by split.
    """
    source = next(iter(splits.values()))
    parts = ", ".join(
        f"{len(other):,} {name} images"
        if other is source or repr(other) != repr(source)
        else f"no other {name} images"
        for name, other in splits.items()
    )
    classes = getattr(source, "class_names", ())
    attributes = getattr(source, "attribute_names", ())
    known = [f"{len(classes):,} classes"] * bool(classes)
    known += [f"{len(attributes):,} attributes"] * bool(attributes)
    log.info(
        "Data: %s at %dx%dx%d, %s, crop %r%s.",
        *(config.name, config.image_size, config.image_size, config.channels, parts, config.crop),
        "".join(f", {text}" for text in known),
    )
    for line in source.about() if isinstance(source, prepared.PreparedSource) else ():
        log.info("Data: %s", line)


def has_test(config: DataConfig) -> bool:
    """Returns whether a data set has test images, if its config names the split "test"."""
    if config.name in MADE or config.lmdb or config.test_split != "test":
        return True
    return prepared.has_split("test", config.name, config.data_dir, config.image_size)


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
        background=config.background,
    )
