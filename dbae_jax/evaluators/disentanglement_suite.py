"""The suite "disentanglement": scores of `disentanglement` for the codes of a data set."""

import dataclasses
from typing import Any

from dbae_jax.evaluators import disentanglement
from dbae_jax.evaluators.context import Context, Suite
from dbae_jax.evaluators.disentanglement import Settings
from dbae_jax.results import Measured


def obstacle(context: Context) -> str | None:
    """Returns why codes cannot be scored, or None."""
    if context.model.latent_dim < 2:
        return "a code of one dimension cannot be disentangled"
    if context.has_binary_attributes() or "factors" in context.known:
        return None
    return (
        f"the images of {context.config.data.name} have neither factors nor attributes that are 0 "
        "or 1"
    )


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the numbers."""
    counts = {split: context.limit(split) for split in ("train", "test")}
    section = context.config.eval
    return dataclasses.asdict(Settings()) | {"images": counts, "sample_codes": section.sample_codes}


def measure(context: Context) -> Measured:
    """Scores codes of training images; DCI also needs those of held-out ones."""
    scores, known = {}, context.codes("train").known
    train, limits = context.z("train"), Settings()
    counts = {"train": min(len(train), limits.rows)}
    if context.has_binary_attributes():
        attributes = known["attributes"]
        names = context.attribute_names or tuple(map(str, range(attributes.shape[1])))
        scores |= disentanglement.attribute_scores(train, attributes, names, limits)
    if "factors" in context.known:
        test, factors = context.z("test"), context.codes("test").known["factors"]
        names = getattr(context.splits["test"], "factor_names", None)
        names = names or tuple(map(str, range(factors.shape[1])))
        pairs = (train, known["factors"]), (test, factors)
        scores |= disentanglement.factor_scores(*pairs, names, limits)
        counts["test"] = min(len(test), limits.dci_rows)
    return Measured(scores, counts)


SUITE = Suite(obstacle, settings, measure)
