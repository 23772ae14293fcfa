"""The label network of a data set: trained on its training images once, and kept in the cache."""

from typing import Any

import numpy as np

from dbae_jax.data import sources
from dbae_jax.evaluators import label_net_fit
from dbae_jax.evaluators.context import Context
from dbae_jax.evaluators.label_net import LabelNet
from dbae_jax.evaluators.label_net_fit import FitSettings


def obstacle(context: Context) -> str | None:
    """Returns why no label network can be trained, or None."""
    name = context.config.data.name
    if "attributes" in context.known:
        if np.isin(context.splits["train"][0]["attributes"], (0, 1)).all():
            return None
        return f"attributes of {name} are real numbers, which no network is trained on to judge"
    if "label" in context.known:
        return None
    return f"images of {name} have neither labels nor attributes to train a network on"


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the network."""
    return {"most_images": _count(context), "seed": FitSettings().seed}


def make(context: Context) -> LabelNet:
    """Returns the network: of attributes, or of labels where there are none.

    Raises:
      DataError: for too few training images, or labels that are all the same.
    """
    images, labels = labelled(context, "train", _count(context))
    name = context.config.data.name
    names = context.attribute_names if labels.ndim == 2 else ()
    names = names if labels.ndim == 2 and len(names) == labels.shape[1] else None
    if context.cache is None:
        return label_net_fit.fit(images, labels, name=name, label_names=names)
    path = context.cache / f"{name}_judge.npz"
    return label_net_fit.load_or_fit(path, images, labels, name=name, label_names=names)


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
