"""Trains the classifier of a data set on its training images and keeps it in the cache."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from dbae_jax.data import sources
from dbae_jax.evaluation.classifier import fit
from dbae_jax.evaluation.classifier.fit import FitSettings
from dbae_jax.evaluation.classifier.network import Classifier
from dbae_jax.evaluation.context import Context


def obstacle(context: Context) -> str | None:
    """Returns why no classifier can be trained or tested on held-out images, or None."""
    name = context.config.data.name
    if "attributes" in context.known:
        if not np.isin(context.splits["train"][0]["attributes"], (0, 1)).all():
            return (
                f"the attributes of {name} are real numbers, and a classifier needs values 0 or 1"
            )
    elif "label" not in context.known:
        return f"images of {name} have neither labels nor attributes to train a classifier on"
    least = FitSettings().least_images
    if _count(context) < least:
        return (
            f"a classifier needs at least {least} training images, and {_count(context)} images of "
            f"{name} are used; set a different config.data.train_split, or a larger "
            "config.eval.num_probe_images (0: all)"
        )
    return context.leak("train", "test")


def is_made(context: Context) -> bool:
    """Returns whether the cache has a file of a classifier."""
    return context.cache is not None and file_of(context.cache, context.config.data.name).exists()


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the classifier."""
    return dataclasses.asdict(FitSettings()) | {"images": _count(context)}


def make(context: Context) -> Classifier:
    """Returns the classifier of attributes, or of class labels if there are no attributes.

    Raises:
      TooFewError: if there are too few training images, or if all labels are equal.
    """
    images, labels = labelled(context, "train", _count(context))
    name = context.config.data.name
    names: tuple[str, ...] | None = None
    if labels.ndim == 2 and len(context.attribute_names) == labels.shape[1]:
        names = context.attribute_names
    if context.cache is None:
        return fit.fit(images, labels, name=name, label_names=names)
    path = file_of(context.cache, context.config.data.name)
    return fit.load_or_fit(path, images, labels, name=name, label_names=names)


def file_of(cache: pathlib.Path, data_name: str) -> pathlib.Path:
    """Returns the file that holds the classifier of a data set."""
    return cache / f"{data_name}_classifier.npz"


def labelled(context: Context, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `count` images of a split, and their attributes [N, K] or labels [N]."""
    what = "attributes" if "attributes" in context.known else "label"
    threads = context.config.data.num_threads
    parts = list(
        sources.chunks(
            context.splits[split], 256, count=count, names=("image", what), num_threads=threads
        )
    )
    images, known = (np.concatenate([part[key] for part in parts]) for key in ("image", what))
    return images, known


def _count(context: Context) -> int:
    """Returns the number of images that the classifier is trained on."""
    return min(FitSettings().most_images, context.limit("train"))
