"""The label network of a data set: trained on its training images once, and kept in the cache."""

import dataclasses
from typing import Any

import numpy as np

from dbae_jax.data import sources
from dbae_jax.evaluation.classifier import fit
from dbae_jax.evaluation.classifier.fit import FitSettings
from dbae_jax.evaluation.classifier.network import Classifier
from dbae_jax.evaluation.context import Context


def obstacle(context: Context) -> str | None:
    """Returns why no label network can be trained, or none that judges held-out images, or None."""
    name = context.config.data.name
    if "attributes" in context.known:
        if not np.isin(context.splits["train"][0]["attributes"], (0, 1)).all():
            return f"attributes of {name} are real numbers, which no network is trained on to judge"
    elif "label" not in context.known:
        return f"images of {name} have neither labels nor attributes to train a network on"
    least = FitSettings().least_images
    if _count(context) < least:
        return (
            f"a network that judges pictures is trained on {least} images or more, and of the "
            f"training images of {name} {_count(context)} are used; set another "
            "config.data.train_split, or a larger config.eval.num_probe_images (0: all)"
        )
    return context.leak("train", "test")


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the network."""
    return dataclasses.asdict(FitSettings()) | {"images": _count(context)}


def make(context: Context) -> Classifier:
    """Returns the network: of attributes, or of labels where there are none.

    Raises:
      DataError: for too few training images, or labels that are all the same.
    """
    images, labels = labelled(context, "train", _count(context))
    name = context.config.data.name
    names = context.attribute_names if labels.ndim == 2 else ()
    names = names if labels.ndim == 2 and len(names) == labels.shape[1] else None
    if context.cache is None:
        return fit.fit(images, labels, name=name, label_names=names)
    path = context.cache / f"{name}_classifier.npz"
    return fit.load_or_fit(path, images, labels, name=name, label_names=names)


def labelled(context: Context, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `count` images of a split, and their attributes [N, K] or labels [N]."""
    what = "attributes" if "attributes" in context.known else "label"
    threads = context.config.data.num_threads
    parts = list(
        sources.chunks(
            context.splits[split], 256, count=count, names=("image", what), num_threads=threads
        )
    )
    return tuple(np.concatenate([part[name] for part in parts]) for name in ("image", what))


def _count(context: Context) -> int:
    return min(FitSettings().most_images, context.limit("train"))
