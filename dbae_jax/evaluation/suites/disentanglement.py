"""The suite "disentanglement": TAD and ATTRS of latent codes, and MIG and DCI of known factors."""

import dataclasses
from typing import Any

import numpy as np

from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols.disentanglement import Settings, attribute_scores, factor_scores
from dbae_jax.evaluation.results import Measured

MOST_READ = 64  # images that are read before the measurement, to find values that never vary


def obstacle(context: Context) -> str | None:
    """Returns why the model or the data cannot be measured, or None."""
    if context.config.model.latent_dim < 2:
        return "the suite compares dimensions of the latent code, and this code has a single one"
    few = _too_few(context)
    if few or "factors" in context.known:
        return few or context.leak("train", "test")
    name = context.config.data.name
    if "attributes" not in context.known:
        return f"images of {name} have neither attributes nor factors"
    known = context.splits["train"][0]["attributes"]
    binary = np.isin(known, (0, 1)).all()
    return None if binary else f"attributes of {name} are real numbers, and TAD needs binary ones"


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the scores."""
    return dataclasses.asdict(Settings()) | {
        "images": [context.limit("train"), context.limit("test")],
        "mirrored": False,  # unlike InfoDiffusion, which mirrors training images at random
    }


def measure(context: Context) -> Measured:
    """Returns the scores of the means of the latent codes."""
    chosen, train = Settings(), context.codes("train")
    scores: dict[str, Any] = {}
    counts = {"train": min(chosen.rows, len(train.mean))}
    if "attributes" in train.known:
        attributes = train.known["attributes"]
        names = _names(context.attribute_names, attributes)
        scores |= attribute_scores(train.mean, attributes, names, chosen)
    if "factors" in train.known:
        test = context.codes("test")
        of_train, of_test = ((codes.mean, codes.known["factors"]) for codes in (train, test))
        source = context.splits["train"]
        names = _names(getattr(source, "factor_names", ()), train.known["factors"])
        scores |= factor_scores(of_train, of_test, names, chosen)
        counts["test"] = min(chosen.dci_rows, len(test.mean))
    return Measured(scores, counts)


SUITE = Suite(obstacle, settings, measure)


def _too_few(context: Context) -> str | None:
    """Returns why there are too few or too similar images, or None.

    Only small sets are read, so a set of more than `MOST_READ` images is not refused here.
    """
    counts = {split: context.limit(split) for split in ("train", "test")}
    folds = Settings().folds
    if "attributes" in context.known and counts["train"] < folds:
        return f"TAD needs {folds} images or more, and {counts['train']} training images are used"
    if "factors" in context.known and _differing(context, "factors", ("train", "test")) < 2:
        used = " and ".join(f"{count} {split}" for split, count in counts.items())
        return f"MIG and DCI need two factors that vary within the {used} images"
    if "attributes" in context.known and _differing(context, "attributes", ("train",)) < 1:
        return f"all attributes of {counts['train']} training images are the same"
    return None


def _differing(context: Context, name: str, splits: tuple[str, ...]) -> int:
    """Returns how many columns vary within every split that has at most `MOST_READ` images."""
    varies = None
    for split in splits:
        if context.limit(split) > MOST_READ:
            continue
        parts = [context.splits[split][i][name] for i in range(context.limit(split))]
        here = (np.stack(parts) != parts[0]).any(axis=0)
        varies = here if varies is None else varies & here
    return MOST_READ if varies is None else int(varies.sum())


def _names(names: tuple[str, ...], values: np.ndarray) -> tuple[str, ...]:
    width = values.shape[1]
    return tuple(names) if len(names) == width else tuple(map(str, range(width)))
