"""The suite "disentanglement": TAD and ATTRS of codes, MIG and DCI where factors are known."""

import dataclasses
from typing import Any

import numpy as np

from dbae_jax.evaluators.context import Context, Suite
from dbae_jax.evaluators.disentanglement import Settings, attribute_scores, factor_scores
from dbae_jax.results import Measured


def obstacle(context: Context) -> str | None:
    """Returns why there is nothing to measure, or None."""
    if context.config.model.latent_dim < 2:
        return "dimensions of the code are compared, and this code has a single one"
    if "factors" in context.known:
        return None
    name = context.config.data.name
    if "attributes" not in context.known:
        return f"images of {name} have neither attributes nor factors"
    known = context.splits["train"][0]["attributes"]
    binary = np.isin(known, (0, 1)).all()
    return None if binary else f"attributes of {name} are real numbers, TAD is of binary ones"


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the numbers."""
    return dataclasses.asdict(Settings()) | {
        "images": [context.limit("train"), context.limit("test")],
        "mirrored": False,  # InfoDiffusion mirrors training images at random before encoding
    }


def measure(context: Context) -> Measured:
    """Measures the means of the codes."""
    chosen, train = Settings(), context.codes("train")
    scores, counts = {}, {"train": min(chosen.rows, len(train.mean))}
    if "attributes" in train.known:
        attributes = train.known["attributes"]
        names = _names(context.attribute_names, attributes)
        scores |= attribute_scores(train.mean, attributes, names, chosen)
    if "factors" in train.known:
        test = context.codes("test")
        pairs = [(codes.mean, codes.known["factors"]) for codes in (train, test)]
        source = context.splits["train"]
        names = _names(getattr(source, "factor_names", ()), train.known["factors"])
        scores |= factor_scores(*pairs, names, chosen)
        counts["test"] = min(chosen.dci_rows, len(test.mean))
    return Measured(scores, counts)


SUITE = Suite(obstacle, settings, measure)


def _names(names: tuple[str, ...], values: np.ndarray) -> tuple[str, ...]:
    width = values.shape[1]
    return tuple(names) if len(names) == width else tuple(map(str, range(width)))
