"""The suite "editing": what edits of every attribute change, as a network judges the pictures.

The judge is trained on real training images (`label_net`); how well it knows each attribute is
reported beside. Each attribute is edited by its direction (`evaluators.directions`), with x_T
following z and with x_T kept; what is scored says `edit_scores`.
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from scipy.special import logsumexp

from dbae_jax.api import edits
from dbae_jax.data.images import to_uint8
from dbae_jax.editing import Directions, moved
from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation import attribute_directions, dataset_classifier
from dbae_jax.evaluation.classifier import network
from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols.edits import EditScores, edit_scores
from dbae_jax.evaluation.results import Measured, score
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.sampling.inversion import INVERSION_STEPS

IMAGES = 64  # of the test split that are edited
SCALES = (-0.3, -0.15, 0.15, 0.3)  # the paper's
RELATED = 0.25  # |correlation| in training images from which an attribute is no bystander
MODES = {"following": False, "fixed": True}  # name -> whether x_T is kept
PROBE = "logistic"

log = logging.getLogger(__name__)


class Judge(Protocol):
    """What tells attributes in pictures: `label_net.Classifier` does."""

    kind: str
    labels: tuple[str, ...]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [N, K] of images: uint8 [N, H, W, C]."""


def obstacle(context: Context) -> str | None:
    """Returns why there is nothing to edit or to judge, or None."""
    return attribute_directions.obstacle(context) or dataset_classifier.obstacle(context)


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the numbers."""
    return {
        "edited_images": min(IMAGES, context.limit("test")),
        "real_images": context.limit("test"),  # whose log-odds are the unit
        "probe_images": context.limit("train"),
        "scales": list(SCALES),
        "probe": PROBE,
        "normalise_codes": context.config.eval.normalise_codes,
        "related": RELATED,
        "judge": dataset_classifier.settings(context),
        "sample": vars(context.config.sample),
    } | ({"inversion_steps": INVERSION_STEPS} if context.model.gaussian_endpoint else {})


def measure(context: Context) -> Measured:
    """Trains the judge, or reads it from the cache, and scores edits of all that can be edited."""
    net = dataset_classifier.make(context)
    known = context.codes("test").known
    what = known["attributes" if net.kind == "attributes" else "label"]
    held_out = network.held_out(net, context.images("test"), what)
    about = {"judge": net.origin.net, "judge_accuracy": held_out["accuracy"]}
    measured = measure_with(net, context, about)
    if "auroc" in held_out:
        for mode in MODES:
            measured.scores[f"target_{mode}"]["details"]["judge_auroc"] = held_out["auroc"]
    return measured


def measure_with(net: Judge, context: Context, about: Mapping[str, Any]) -> Measured:
    """Scores edits by a judge.

    Args:
      net: of attributes, or of classes, each then an attribute against the others.
      context: model and data.
      about: of the judge, for the details of every score.

    Raises:
      TooFewError: if fewer than two attributes of the judge differ between images.
    """
    names, values = _judged(net, context)
    correlation = _correlation(values)
    real = log_odds(net, context.images("test"))
    varied = np.isfinite(np.diag(correlation)) & (real.std(axis=0) > 0)
    kept = np.flatnonzero(varied)
    if len(kept) < 2:
        raise TooFewError(
            "Fewer than two attributes differ between images: edits cannot be scored."
        )
    found = attribute_directions.find(context, [names[i] for i in kept], probe=PROBE)
    related = np.abs(correlation[np.ix_(kept, kept)]) >= RELATED
    if net.kind == "classes":
        related[:] = False  # they exclude each other, all of them
    images = context.images("test", min(IMAGES, context.limit("test")))
    scores = {}
    for mode, fix_endpoint in MODES.items():
        log.info("Editing %d images along %d directions, x_T %s.", len(images), len(kept), mode)
        by_name = _edited(context, net, found, images, real, kept, related, fix_endpoint)
        scores |= _summary(by_name, mode, about)
    constant = [name for name, ok in zip(names, varied, strict=True) if not ok]
    if constant:
        log.info("No score of %s: the same for all images.", ", ".join(constant))
    return Measured(scores, {"train": context.limit("train"), "test": len(images)})


SUITE = Suite(obstacle, settings, measure)


def log_odds(net: Judge, images: np.ndarray) -> np.ndarray:
    """Returns [N, K], of each attribute to be there, of each class against all others."""
    logits = np.float64(net.logits(images))
    if net.kind == "attributes":
        return logits
    every = np.arange(logits.shape[1])
    others = [logsumexp(logits[:, every != k], axis=1) for k in every]
    return logits - np.stack(others, axis=1)


def _judged(net: Judge, context: Context) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns names and training values [N, K] of what the judge tells, in its order.

    Raises:
      DataError: if it tells other things than the data hold.
    """
    names, values = attribute_directions.targets(context)
    width = context.codes("train").known.get("attributes", np.zeros((0, 0))).shape[1]
    if net.kind == "attributes":
        names, values = names[:width], values[:, :width]
    else:
        names, values = names[width:], values[:, width:]
    if len(names) != len(net.labels):
        raise DataError(
            f"The judge tells {len(net.labels)} {net.kind}, the data hold {len(names)}."
        )
    return names, values


def _correlation(values: np.ndarray) -> np.ndarray:
    """Returns [K, K]; NaN in the rows and columns of attributes that do not vary."""
    centred = np.float64(values) - values.mean(axis=0)
    std = centred.std(axis=0)
    std[std == 0] = np.nan
    return (centred.T @ centred) / len(values) / (std[:, None] * std)


def _edited(
    context: Context,
    net: Judge,
    found: Directions,
    images: np.ndarray,
    real: np.ndarray,
    kept: np.ndarray,
    related: np.ndarray,
    fix_endpoint: bool,
) -> dict[str, EditScores]:
    """Returns the scores of each attribute's edits."""
    model, sample, by_name = context.model, context.config.sample, {}
    how = {"rng": noise_seed(sample, free=model.gaussian_endpoint), "plan": sample}
    z = model.encode(images)
    # Of an image and its edits the same, so that a change of x_T does not count as one by the edit;
    # None: decoded from each code, and a free one drawn with the image's own key.
    x_T = edits.endpoint_before_edit(model, images, z) if fix_endpoint else None
    before = log_odds(net, to_uint8(model.decode(z, x_T, **how)))[:, kept]
    for target, (name, step) in enumerate(zip(found.names, found.steps, strict=True)):
        edited = edits.decode_rows(model, moved(z, step, SCALES), x_T, **how)
        pixels = to_uint8(np.moveaxis(edited, 1, 0))  # [S, N, ...]
        after = np.stack([log_odds(net, some)[:, kept] for some in pixels])
        left_out = [i for i in np.flatnonzero(related[target]).tolist() if i != target]
        by_name[name] = edit_scores(
            before, after, SCALES, target, real=real[:, kept], left_out=left_out
        )
    return by_name


def _summary(
    by_name: Mapping[str, EditScores], mode: str, about: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns means over attributes at the largest scales, with each attribute's in the details."""
    ends = np.abs(SCALES) == np.abs(SCALES).max()
    sign = np.sign(SCALES)
    each = {
        "target": {n: (s.target * sign)[ends].mean() for n, s in by_name.items()},
        "others": {n: s.others[ends].mean() for n, s in by_name.items()},
        "flipped": {n: _mean(s.flipped[ends]) for n, s in by_name.items()},
        "monotonic": {n: _mean(s.monotonic) for n, s in by_name.items()},
    }
    means = {key: _mean(np.array(list(values.values()))) for key, values in each.items()}
    means["ratio"] = means["target"] / means["others"] if means["others"] else np.nan
    each["ratio"] = {n: _divide(v, each["others"][n]) for n, v in each["target"].items()}
    better = dict.fromkeys(means, "higher") | {"others": "lower"}
    return {
        f"{key}_{mode}": score(
            value,
            better[key],
            reason="no edit has one",
            per_attribute={n: float(v) for n, v in each[key].items() if np.isfinite(v)},
            at_scale=float(np.abs(SCALES).max()),
            **about,
        )
        for key, value in means.items()
    }


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _divide(a: float, b: float) -> float:
    return a / b if b else np.nan
