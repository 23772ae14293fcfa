"""The suite "disentanglement": TAD and ATTRS of codes, MIG and DCI where factors are known."""

import dataclasses
from typing import Any

import numpy as np

from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols.disentanglement import Settings, attribute_scores, factor_scores
from dbae_jax.evaluation.results import Measured

LOOK = 64  # images that are read to tell what cannot be measured


def obstacle(context: Context) -> str | None:
    """Returns why there is nothing to measure, or None."""
    if context.config.model.latent_dim < 2:
        return "dimensions of the code are compared, and this code has a single one"
    few = _too_few(context)
    if few or "factors" in context.known:
        return few or context.leak("train", "test")
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


def _too_few(context: Context) -> str | None:
    """Returns why the images will not do, as far as a few of them tell, or None."""
    counts = {split: context.limit(split) for split in ("train", "test")}
    folds = Settings().folds
    if "attributes" in context.known and counts["train"] < folds:
        return f"TAD is of {folds} folds, and {counts['train']} training images are used"
    if "factors" in context.known and _differing(context, "factors", ("train", "test")) < 2:
        used = " and ".join(f"{count} {split}" for split, count in counts.items())
        return f"MIG and DCI need two factors that differ in each of {used} images"
    if "attributes" in context.known and _differing(context, "attributes", ("train",)) < 1:
        return f"all attributes of {counts['train']} training images are the same"
    return None


def _differing(context: Context, name: str, splits: tuple[str, ...]) -> int:
    """Returns how many columns differ between images; all, where more than LOOK images are used."""
    varies = None
    for split in splits:
        if context.limit(split) > LOOK:
            continue
        parts = [context.splits[split][i][name] for i in range(context.limit(split))]
        here = (np.stack(parts) != parts[0]).any(axis=0)
        varies = here if varies is None else varies & here
    return LOOK if varies is None else int(varies.sum())


def _names(names: tuple[str, ...], values: np.ndarray) -> tuple[str, ...]:
    width = values.shape[1]
    return tuple(names) if len(names) == width else tuple(map(str, range(width)))
