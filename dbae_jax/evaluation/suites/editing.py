"""The suite "editing": the effect of edits on all attributes, measured by a classifier.

The classifier is trained on real training images (`dataset_classifier`), and its accuracy is part
of the results. Each attribute is edited along its direction (`attribute_directions`), once with x_T
recomputed from the edited code and once with x_T held fixed. `edit_scores` defines the scores.
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
from dbae_jax.runtime.progress import track
from dbae_jax.sampling.inversion import INVERSION_STEPS

# Attributes with at least this |correlation| in training images count as related to the target.
RELATED = 0.25
MODES = {"following": False, "fixed": True}  # name -> whether x_T is held fixed
PROBE = "logistic"
_WHAT = ("Editing images with recomputed x_T", "Editing images with fixed x_T")

log = logging.getLogger(__name__)


class AttributeClassifier(Protocol):
    """A classifier of attributes or classes in images, such as `network.Classifier`."""

    @property
    def kind(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [N, K] of uint8 images [N, H, W, C]."""


def obstacle(context: Context) -> str | None:
    """Returns why there are no attributes to edit or to classify, or None."""
    return attribute_directions.obstacle(context) or dataset_classifier.obstacle(context)


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the scores."""
    return {
        "edited_images": _edited_images(context),
        "real_images": context.limit("test"),  # their log-odds define the unit of the scores
        "probe_images": context.limit("train"),
        "scales": list(context.config.eval.edit_scales),
        "probe": PROBE,
        "normalise_codes": context.config.eval.normalise_codes,
        "related": RELATED,
        "classifier": dataset_classifier.settings(context),
        "sample": vars(context.config.sample),
    } | ({"inversion_steps": INVERSION_STEPS} if context.model.gaussian_endpoint else {})


def measure(context: Context) -> Measured:
    """Returns the scores of edits of all attributes, with the data set's classifier."""
    net = dataset_classifier.make(context)
    known = context.codes("test").known
    what = known["attributes" if net.kind == "attributes" else "label"]
    held_out = network.held_out(net, context.images("test"), what)
    about = {"classifier": net.origin.net, "classifier_accuracy": held_out["accuracy"]}
    measured = measure_with(net, context, about)
    if "auroc" in held_out:
        for mode in MODES:
            measured.scores[f"target_{mode}"]["details"]["classifier_auroc"] = held_out["auroc"]
    return measured


def measure_with(net: AttributeClassifier, context: Context, about: Mapping[str, Any]) -> Measured:
    """Returns the scores of edits, measured by a classifier.

    Args:
      net: classifier of attributes or of classes; each class counts as an attribute.
      context: model and data.
      about: facts about the classifier for the details of every score.

    Raises:
      TooFewError: if fewer than two attributes vary between images.
    """
    names, values = _known_values(net, context)
    correlation = _correlation(values)
    real = log_odds(net, context.images("test"))
    varied = np.isfinite(np.diag(correlation)) & (real.std(axis=0) > 0)
    edited = np.flatnonzero(varied)
    if len(edited) < 2:
        raise TooFewError(
            "Fewer than two attributes vary between images, so edits cannot be scored."
        )
    found = attribute_directions.find(context, [names[i] for i in edited], probe=PROBE)
    related = np.abs(correlation[np.ix_(edited, edited)]) >= RELATED
    if net.kind == "classes":
        related[:] = False  # every pair of classes is exclusive
    images = context.images("test", _edited_images(context))
    scores: dict[str, Any] = {}
    for mode, fix_endpoint in MODES.items():
        by_name = _edited(context, net, found, images, real, edited, related, fix_endpoint)
        scores |= _summary(by_name, np.array(context.config.eval.edit_scales), mode, about)
    constant = [name for name, ok in zip(names, varied, strict=True) if not ok]
    if constant:
        log.info(
            "The suite does not edit %s, because their values do not vary.", ", ".join(constant)
        )
    return Measured(scores, {"train": context.limit("train"), "test": len(images)})


def _edited_images(context: Context) -> int:
    return min(context.config.eval.edited_images, context.limit("test"))


SUITE = Suite(obstacle, settings, measure)


def log_odds(net: AttributeClassifier, images: np.ndarray) -> np.ndarray:
    """Returns log-odds [N, K] of each attribute, or of each class against all other classes."""
    logits = net.logits(images).astype(np.float64)
    if net.kind == "attributes":
        return logits
    every = np.arange(logits.shape[1])
    others = [logsumexp(logits[:, every != k], axis=1) for k in every]
    return logits - np.stack(others, axis=1)


def _known_values(net: AttributeClassifier, context: Context) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns names and training values [N, K] of the classifier's attributes, in its order.

    Raises:
      DataError: if the data have a different number of attributes or classes.
    """
    names, values = attribute_directions.targets(context)
    width = context.codes("train").known.get("attributes", np.zeros((0, 0))).shape[1]
    if net.kind == "attributes":
        names, values = names[:width], values[:, :width]
    else:
        names, values = names[width:], values[:, width:]
    if len(names) != len(net.labels):
        raise DataError(
            f"The classifier has {len(net.labels)} {net.kind}, and the data have {len(names)}."
        )
    return names, values


def _correlation(values: np.ndarray) -> np.ndarray:
    """Returns correlations [K, K]; NaN for attributes that do not vary."""
    centred = np.float64(values) - values.mean(axis=0)
    std = centred.std(axis=0)
    std[std == 0] = np.nan
    return (centred.T @ centred) / len(values) / (std[:, None] * std)


def _edited(
    context: Context,
    net: AttributeClassifier,
    found: Directions,
    images: np.ndarray,
    real: np.ndarray,
    columns: np.ndarray,
    related: np.ndarray,
    fix_endpoint: bool,
) -> dict[str, EditScores]:
    """Returns the scores of the edits of each attribute; `columns` are the edited attributes."""
    model, sample, by_name = context.model, context.config.sample, {}
    scales = context.config.eval.edit_scales
    how: dict[str, Any] = {"rng": noise_seed(sample, free=model.gaussian_endpoint), "plan": sample}
    z = model.encode(images)
    # An image and its edits share a fixed x_T. For None, x_T is decoded from each code, or drawn
    # with the image's own key if it is Gaussian, so that an edit does not change the noise.
    x_T = edits.endpoint_before_edit(model, images, z) if fix_endpoint else None
    before = log_odds(net, to_uint8(model.decode(z, x_T, **how)))[:, columns]
    steps = track(found.steps, _WHAT[fix_endpoint], total=len(found.steps), unit="attributes")
    for target, (name, step) in enumerate(zip(found.names, steps, strict=True)):
        rows = edits.decode_rows(model, moved(z, step, scales), x_T, **how)
        by_scale = to_uint8(np.moveaxis(rows, 1, 0))  # [S, N, ...]
        after = np.stack([log_odds(net, pixels)[:, columns] for pixels in by_scale])
        left_out = [i for i in np.flatnonzero(related[target]).tolist() if i != target]
        by_name[name] = edit_scores(
            before, after, scales, target, real=real[:, columns], left_out=left_out
        )
    return by_name


def _summary(
    by_name: Mapping[str, EditScores], scales: np.ndarray, mode: str, about: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns means over attributes at the largest scales; details hold each attribute's score."""
    largest = np.abs(scales) == np.abs(scales).max()
    sign = np.sign(scales)
    each = {
        "target": {n: (s.target * sign)[largest].mean() for n, s in by_name.items()},
        "others": {n: s.others[largest].mean() for n, s in by_name.items()},
        "flipped": {n: _mean(s.flipped[largest]) for n, s in by_name.items()},
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
            reason="it is undefined for every edit",
            per_attribute={n: float(v) for n, v in each[key].items() if np.isfinite(v)},
            at_scale=float(np.abs(scales).max()),
            **about,
        )
        for key, value in means.items()
    }


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _divide(a: float, b: float) -> float:
    return a / b if b else np.nan
